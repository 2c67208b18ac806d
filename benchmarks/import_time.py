"""Seconds that importing this project takes beyond importing jax and flax.

python benchmarks/import_time.py [--rounds=7]

Each import runs in a fresh interpreter; the imports take turns, and their medians are compared.
"""

import functools
import subprocess
import sys

from absl import flags
from turns import in_turns, timed  # benchmarks/ is the script's own folder

from lvm_jax import cli

BASE = "import jax, flax"
SUBJECTS = {
    "jax and flax": BASE,
    "lvm_jax": f"{BASE}; import lvm_jax",
    "lvm_jax.models": f"{BASE}; from lvm_jax.models import Llama, VQGAN, presets",
    "lvm_jax.inference": f"{BASE}; from lvm_jax.inference import VisualPrompt, generate_images",
}


def wall(code: str) -> dict[str, float]:
    """Seconds of a fresh interpreter that runs `code`."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    return {"seconds": timed(lambda: subprocess.run(command, check=True))["seconds"]}


def main() -> None:
    """Prints the median of each import, and its difference from jax and flax alone."""
    # The warm-up turns fill the page cache.
    medians = in_turns(
        {name: functools.partial(wall, code) for name, code in SUBJECTS.items()}, flags.FLAGS.rounds
    )
    base = medians["jax and flax"]["seconds"]
    print(f"{'import':24} {'median s':>9} {'beyond':>8}")
    for name, median in medians.items():
        print(f"{name:24} {median['seconds']:9.2f} {median['seconds'] - base:+8.2f}")


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 7, "interpreters of each kind", lower_bound=1)
    cli.run(main)
