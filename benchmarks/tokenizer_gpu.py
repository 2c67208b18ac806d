r"""The tokenizer on an accelerator in bf16: images/s, the fraction of the measured matmul ceiling, ids equal to fp32.

    python benchmarks/tokenizer_gpu.py --batch=64 [--peer_python=OTHER_ENVIRONMENT/bin/python]

The ceiling is what this device reaches in a square bf16 matrix product of side --matmul. With a peer, torch.compile in
channels_last under bf16 autocast takes turns with ours on the same images. Weights and images come from a seed, with
codes spread as widely as features. Real weights decide more ids by a clear margin, so this percentage of equal ids is
the harder test.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from flax import nnx
from vqgan_peer import Turn, images_per_second, make, ours, theirs, turn_of

from lvm_jax import cli
from lvm_jax.analysis.flops import count_flops
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.training.throughput import product_flops


def flops(vqgan: VQGAN) -> dict[str, float]:
    """FLOPs of encoding and decoding one image."""
    config = vqgan.config
    graphdef, params = nnx.split(VQGAN.abstract(config))
    side = config.resolution
    images = jax.ShapeDtypeStruct((1, side, side, config.num_channels), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, config.tokens_per_image), jnp.int32)
    return {
        "encode": count_flops(lambda p, x: nnx.merge(graphdef, p).encode(x), params, images),
        "decode": count_flops(lambda p, x: nnx.merge(graphdef, p).decode(x), params, ids),
    }


def main() -> None:
    """Measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    device = jax.devices()[0]
    if device.platform == "cpu" and not args.allow_cpu:
        raise UserError(
            "no accelerator here: run tokenizer_speed.py, or pass --allow_cpu to try it"
        )
    config = presets.vqgan(args.preset, resolution=args.resolution)
    exact, images = make(config, args.batch)
    graphdef, params = nnx.split(VQGAN.abstract(dataclasses.replace(config, dtype="bfloat16")))
    del params
    vqgan = nnx.merge(graphdef, nnx.state(exact))
    sides: dict[str, Turn] = {"lvm_jax": ours(vqgan, images)}
    with jax.default_matmul_precision("highest"):  # a GPU's own choice would be tf32
        fp32 = ours(exact, images)("encode", 1)["ids"]
    equal = float(np.mean(np.equal(sides["lvm_jax"]("encode", 1)["ids"], fp32)))
    peak, work = product_flops(args.matmul, jnp.bfloat16, 50), flops(vqgan)
    print(f"{device.device_kind}, jax {jax.__version__}, {args.preset}, batch {args.batch}")
    print(
        f"bf16 matmul of {args.matmul}: {peak / 1e12:.3g} TFLOP/s; ids equal to fp32: {equal:.2%}"
    )
    result: dict[str, Any] = {"device": device.device_kind, "ceiling": peak, "ids_equal": equal}
    with contextlib.ExitStack() as stack:
        if args.peer_python:
            path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            peer = stack.enter_context(
                theirs(path, exact, images, threads=record.cores(), device=args.peer_device)
            )
            sides["PyTorch"] = turn_of(peer)
            same = float(np.mean(np.equal(sides["PyTorch"]("encode", 1)["ids"], fp32)))
            print(f"PyTorch {peer.versions}: ids equal to fp32: {same:.2%}")
        for what in ("encode", "decode"):
            rates = images_per_second(
                sides, what, rounds=args.rounds, count=args.repeats, images=args.batch
            )
            share = rates["lvm_jax"] * work[what] / peak
            result[what] = {**rates, "fraction_of_ceiling": share}
            shown = ", ".join(f"{side} {rate:,.4g} images/s" for side, rate in rates.items())
            print(f"{what}: {shown}; {share:.0%} of the ceiling")
    record.write(result)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "lvm-f16-8192", "a tokenizer without attention")
    flags.DEFINE_integer("resolution", 256, "side of the images", lower_bound=16)
    flags.DEFINE_integer("batch", 64, "images at once", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("repeats", 10, "runs in a turn", lower_bound=1)
    flags.DEFINE_integer("matmul", 8192, "side of the matrix product", lower_bound=128)
    flags.DEFINE_string("peer_device", "cuda", "PyTorch's device")
    flags.DEFINE_bool("allow_cpu", False, "run without an accelerator, to try the script")
    cli.run(main)
