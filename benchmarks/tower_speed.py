r"""A ViTDet tower on the CPU: forward, and forward and backward, against the same network in PyTorch, in turns.

    taskset -c 1 python benchmarks/tower_speed.py --peer_python=OTHER_ENVIRONMENT/bin/python --side=512

The tower of Vary (12 blocks, 768 wide) in fp32 on square pictures. The peer is transformers' SAM encoder with the same
two convolutions. Before any timing, tokens and the gradient of the pictures must be equal. CPU time counts, which other
programs on the machine hardly lengthen. OTHER_ENVIRONMENT has torch, transformers and safetensors.
"""

import functools
import pathlib
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from agreement import require_equal
from flax import nnx
from peers.driver import Peer
from tower_folder import save_tower
from turns import in_turns, timed

from lvm_jax import cli
from lvm_jax.models import VitDet, presets
from lvm_jax.models.towers.vitdet_config import forward_flops
from lvm_jax.parallel import runtime

TOLERANCE = 1e-4  # of the largest value
WAYS = {"forward": 1, "both": 3}  # FLOPs over those of a forward pass


def make_ways(tower: VitDet, images: np.ndarray) -> dict[str, Callable[[], jax.Array]]:
    """The tokens; the gradient of the pictures, after those of all parameters."""
    graphdef, params = nnx.split(tower)

    def loss(params: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(nnx.merge(graphdef, params)(x)))

    forward = jax.jit(lambda p, x: nnx.merge(graphdef, p)(x))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    x = jax.device_put(images)
    return {
        "forward": lambda: forward(params, x),
        "both": lambda: jax.block_until_ready(gradient(params, x))[1],
    }


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    overrides = {"image_size": (args.side, args.side), "remat": args.remat}
    config = presets.vitdet(args.preset, scan_layers=args.scan_layers, **overrides)
    tower = nnx.jit(lambda: VitDet(config, rngs=nnx.Rngs(0)))()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batch, *config.image_size, 3)).astype(np.float32)
    record.announce()
    ways = make_ways(tower, images)
    with tempfile.TemporaryDirectory() as folder:
        save_tower(tower, pathlib.Path(folder))
        np.save(f"{folder}/images.npy", images)
        with Peer("torch_tower.py", folder, record.cores()) as peer:
            sides: dict[str, Callable[[], dict[str, float]]] = {}
            for way in args.ways:
                peer.ask({"way": way, "output": f"{folder}/{way}.npy"})
                theirs = np.load(f"{folder}/{way}.npy")
                require_equal(way, ways[way](), theirs, within=TOLERANCE)
                sides[f"lvm_jax {way}"] = functools.partial(timed, ways[way])
                sides[f"PyTorch {way}"] = functools.partial(peer.ask, {"way": way, "output": ""})
            medians = in_turns(sides, args.rounds)
            versions = record.versions(peer.versions)
    print(f"{args.preset}, {args.batch} x {args.side} x {args.side}, fp32, {versions}")
    for way in args.ways:
        ours, theirs = (medians[f"{side} {way}"]["cpu_seconds"] for side in ("lvm_jax", "PyTorch"))
        flops = WAYS[way] * args.batch * forward_flops(config)
        print(
            f"{way}: {ours:.3f} CPU s ({flops / ours / 1e9:.0f} GFLOP/s), PyTorch {theirs:.3f}, "
            f"ratio {theirs / ours:.2f}"
        )
    record.write({"threads": record.cores(), "versions": versions, "medians": medians})


if __name__ == "__main__":
    flags.DEFINE_string("preset", "vary", "tower of lvm_jax.models.presets.vitdet")
    flags.DEFINE_integer("side", 512, "of a picture, in pixels", lower_bound=16)
    flags.DEFINE_integer("batch", 1, "pictures", lower_bound=1)
    flags.DEFINE_multi_enum("ways", list(WAYS), list(WAYS), "what is timed")
    flags.DEFINE_string("remat", "none", "of our side")
    flags.DEFINE_bool("scan_layers", True, "of our side")
    flags.DEFINE_integer("rounds", 3, "turns of each side", lower_bound=1)
    cli.run(main, required_flags=["peer_python"])
