r"""The tokenizer on CPU cores in fp32: encode, decode and the training step against the same network in PyTorch.

    python benchmarks/tokenizer_speed.py --peer_python=OTHER_ENVIRONMENT/bin/python

Each of --presets ("narrow" is lvm-f16-8192 with a quarter of its channels) takes turns with PyTorch in channels_last.
PyTorch uses the cores as threads; here they are --devices that share the batch, as with JAX_NUM_CPU_DEVICES. Neither
side returns freed memory (`runtime.keep_freed_memory`). Both have the same weights and images. Before any timing, the
ids of all images must be equal, and decoded images and the losses of the first training steps must agree (L1, codebook
and commitment terms, Adam; no LPIPS or discriminator). Run it on an idle machine.
"""

import math
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import record  # benchmarks/ is the script's own folder
from absl import flags
from agreement import require_equal
from vqgan_peer import Turn, images_per_second, make, ours, theirs, turn_of

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.parallel import runtime

# What is compared, in how many runs, and how far it may differ, over the largest value.
CHECKS = {"encode": ("ids", 1, 0.0), "decode": ("means", 1, 1e-3), "train": ("losses", 3, 1e-3)}


def configuration(name: str, resolution: int) -> VQGANConfig:
    """The tokenizer `name` at `resolution`."""
    if name == "narrow":
        return presets.vqgan("lvm-f16-8192", hidden_channels=32, resolution=resolution)
    return presets.vqgan(name, resolution=resolution)


def check(sides: dict[str, Turn], parts: Sequence[str]) -> None:
    """Requires both sides to compute the same in all `parts`.

    Raises:
      UserError: they do not, so a timing would compare two different programs.
    """
    for what in parts:
        key, count, within = CHECKS[what]
        a, b = (side(what, count)[key] for side in sides.values())
        require_equal(f"  {what}: {key}", a, b, within=within)


def measure(name: str, args: Any, threads: int) -> dict[str, Any]:
    """Measures all three rates of one tokenizer, and their ratios."""
    vqgan, images = make(configuration(name, args.resolution), args.batch)
    print(f"{name}, {args.batch} x {args.resolution} px")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        with theirs(path, vqgan, images, threads=threads) as peer:
            sides: dict[str, Turn] = {"lvm_jax": ours(vqgan, images), "PyTorch": turn_of(peer)}
            check(sides, args.parts)
            result: dict[str, Any] = {"versions": record.versions(peer.versions)}
            for what in args.parts:
                rates = images_per_second(
                    sides, what, rounds=args.rounds, count=args.repeats, images=args.batch
                )
                ratio = rates["lvm_jax"] / rates["PyTorch"]
                result[what] = {**rates, "ratio": ratio}
                shown = ", ".join(f"{side} {rate:.3g} images/s" for side, rate in rates.items())
                print(f"  {what}: {shown}; ratio {ratio:.2f}")
    return result


def main() -> None:
    """Measures each preset, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    threads = record.cores()
    devices = args.devices or math.gcd(threads, args.batch)
    if args.batch % devices:
        raise UserError(
            f"--batch {args.batch} does not divide over --devices {devices}: make it a multiple"
        )
    jax.config.update("jax_num_cpu_devices", devices)
    record.announce()
    print(f"{devices} devices, fp32")
    results = {name: measure(name, args, threads) for name in args.presets}
    record.write(results)


if __name__ == "__main__":
    flags.DEFINE_list("presets", ["lvm-f16-8192", "narrow"], "tokenizers without attention")
    flags.DEFINE_multi_enum("parts", list(CHECKS), list(CHECKS), "what is measured")
    flags.DEFINE_integer("resolution", 256, "side of the images", lower_bound=16)
    flags.DEFINE_integer("batch", 2, "images at once", lower_bound=1)
    flags.DEFINE_integer(
        "devices",
        None,
        "that share a batch; by default the most of the cores that divide it",
        lower_bound=1,
    )
    flags.DEFINE_integer("rounds", 5, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("repeats", 2, "runs in a turn", lower_bound=1)
    cli.run(main, required_flags=["peer_python"])
