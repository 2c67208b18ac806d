r"""A ViTDet tower on the CPU: forward, and forward and backward, against the same network in PyTorch, in turns.

    taskset -c 1 python benchmarks/tower_speed.py --peer_python=OTHER_ENVIRONMENT/bin/python --side=512

The tower of Vary (12 blocks, 768 wide) in fp32 on square pictures. The peer is transformers' SAM encoder with the same
two convolutions. Before any timing, tokens and the gradient of the pictures must be equal. CPU time counts, which other
programs on the machine hardly lengthen. OTHER_ENVIRONMENT has torch, transformers and safetensors.
"""

import functools
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from peers.driver import Peer  # benchmarks/ is the script's own folder
from steps import cores
from tower_folder import save_tower
from turns import in_turns, seconds

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.models import VitDet, presets
from lvm_jax.models.towers.vitdet_config import forward_flops
from lvm_jax.parallel import runtime

TOLERANCE = 1e-4  # of the largest value
SIDES = {"forward": 1, "both": 3}  # way -> FLOPs over those of a forward pass


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


def timed(function: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    begin = time.process_time()
    wall = seconds(function)
    return {"seconds": wall, "cpu_seconds": time.process_time() - begin}


def check_equal(way: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Requires equal arrays.

    Raises:
      UserError: they differ, so a timing would compare programs that compute different things.
    """
    worst = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not worst <= TOLERANCE:
        raise UserError(f"{way}: the two sides differ by {worst:.1e} of the largest value")
    print(f"{way}: equal within {worst:.1e} of the largest value", flush=True)


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    overrides = {"image_size": (args.side, args.side), "remat": args.remat}
    config = presets.vitdet(args.preset, scan_layers=args.scan_layers, **overrides)
    tower = nnx.jit(lambda: VitDet(config, rngs=nnx.Rngs(0)))()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batch, *config.image_size, 3)).astype(np.float32)
    print(f"{cores()} cores, load average {os.getloadavg()[0]:.1f} before the start")
    ways = make_ways(tower, images)
    with tempfile.TemporaryDirectory() as folder:
        save_tower(tower, pathlib.Path(folder))
        np.save(f"{folder}/images.npy", images)
        with Peer(
            args.peer_python, "torch_tower.py", folder, cores(), keep_freed_memory=True
        ) as peer:
            sides: dict[str, Callable[[], dict[str, float]]] = {}
            for way in args.ways:
                peer.ask({"way": way, "output": f"{folder}/{way}.npy"})
                check_equal(way, np.asarray(ways[way]()), np.load(f"{folder}/{way}.npy"))
                sides[f"lvm_jax {way}"] = functools.partial(timed, ways[way])
                sides[f"PyTorch {way}"] = functools.partial(peer.ask, {"way": way, "output": ""})
            medians = in_turns(sides, args.rounds)
            versions = peer.versions | {"jax": jax.__version__, "python": sys.version.split()[0]}
    print(f"{args.preset}, {args.batch} x {args.side} x {args.side}, fp32, {versions}")
    for way in args.ways:
        ours, theirs = (medians[f"{side} {way}"]["cpu_seconds"] for side in ("lvm_jax", "PyTorch"))
        flops = SIDES[way] * args.batch * forward_flops(config)
        print(
            f"{way}: {ours:.3f} CPU s ({flops / ours / 1e9:.0f} GFLOP/s), PyTorch {theirs:.3f}, "
            f"ratio {theirs / ours:.2f}"
        )
    if args.output:
        record = {"threads": cores(), "versions": versions, "medians": medians}
        pathlib.Path(args.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("peer_python", None, "a Python interpreter with torch and transformers")
    flags.DEFINE_string("preset", "vary", "tower of lvm_jax.models.presets.vitdet")
    flags.DEFINE_integer("side", 512, "of a picture, in pixels", lower_bound=16)
    flags.DEFINE_integer("batch", 1, "pictures", lower_bound=1)
    flags.DEFINE_list("ways", list(SIDES), "what is timed")
    flags.DEFINE_string("remat", "none", "of our side")
    flags.DEFINE_bool("scan_layers", True, "of our side")
    flags.DEFINE_integer("rounds", 3, "turns of each side", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    cli.run(main, required_flags=["peer_python"])
