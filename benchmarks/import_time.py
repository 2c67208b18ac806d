"""Seconds that importing this project takes beyond importing jax and flax.

python benchmarks/import_time.py [--rounds=7]

Each import runs in a fresh interpreter; the imports take turns, and their medians are compared.
"""

import argparse
import statistics
import subprocess
import sys
import time

BASE = "import jax, flax"
SUBJECTS = {
    "lvm_jax": f"{BASE}; import lvm_jax",
    "lvm_jax.models": f"{BASE}; from lvm_jax.models import Llama, VQGAN, presets",
    "lvm_jax.inference": f"{BASE}; from lvm_jax.inference import VisualPrompt, generate_images",
}


def seconds(code: str) -> float:
    """Wall seconds of a fresh interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Prints the median of each import, and its difference from jax and flax alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interpreters of each kind")
    rounds = parser.parse_args().rounds
    codes = {"jax and flax": BASE, **SUBJECTS}
    times: dict[str, list[float]] = {name: [] for name in codes}
    for code in codes.values():
        seconds(code)  # the first import fills the page cache
    for _ in range(rounds):
        for name, code in codes.items():
            times[name].append(seconds(code))
    base = statistics.median(times["jax and flax"])
    print(f"{'import':24} {'median s':>9} {'beyond':>8}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:24} {median:9.2f} {median - base:+8.2f}")


if __name__ == "__main__":
    main()
