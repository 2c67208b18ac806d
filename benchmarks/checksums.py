r"""CRC32C by crc32c and google-crc32c, in turns: on the frames that a loader checks, and on the bytes of a checkpoint.

    python benchmarks/checksums.py --rounds=7

A loader checks many small frames, so the overhead of a call matters as much as the bytes. Several threads compute a
checkpoint's digests, so it also matters whether a call holds the interpreter's lock. Single-threaded cases count CPU
time, which other load on the machine hardly disturbs; threaded ones use wall time. A library that is not installed is
reported and skipped.
"""

import functools
import importlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import flags
from turns import in_turns  # benchmarks/ is the script's own folder

from lvm_jax import cli

FRAMES = {"0.5 KB": 1 << 9, "2 KB": 1 << 11, "8 KB": 1 << 13, "64 KB": 1 << 16, "64 MB": 1 << 26}
PIECES, PIECE_BYTES = 4, 16 << 20  # what digests of a checkpoint share among threads

Extend = Callable[[int, bytes], int]


def libraries() -> dict[str, Extend]:
    """Name -> function (CRC so far, more bytes) -> CRC, for the installed libraries."""
    faces: dict[str, Callable[[Any], Extend]] = {
        "crc32c": lambda module: lambda crc, data: module.crc32c(data, crc),
        "google_crc32c": lambda module: module.extend,
    }
    found = {}
    for name, face in faces.items():
        try:
            found[name] = face(importlib.import_module(name))
        except ImportError:
            print(f"{name} is not installed: skipped")
    return found


def frames_per_second(extend: Extend, frame: bytes, seconds: float) -> dict[str, float]:
    """GB/s of CPU time, checking `frame` repeatedly."""
    calls = max(1, (1 << 20) // len(frame))
    begin, done = time.process_time(), 0
    while (spent := time.process_time() - begin) < seconds:
        for _ in range(calls):
            extend(0, frame)
        done += calls
    return {"GB/s": done * len(frame) / spent / 1e9}


def chained(extend: Extend, frame: bytes, seconds: float) -> dict[str, float]:
    """GB/s of CPU time if a frame comes as head, data and tail, as in the scan of a shard."""
    parts = (frame[:12], frame[12:-4], frame[-4:])
    begin, done = time.process_time(), 0
    while (spent := time.process_time() - begin) < seconds:
        for _ in range(1000):
            functools.reduce(extend, parts, 0)
        done += 1000
    return {"GB/s": done * len(frame) / spent / 1e9}


def in_threads(extend: Extend, piece: bytes, seconds: float) -> dict[str, float]:
    """GB/s of wall time over chunks that four threads share."""
    begin, done = time.perf_counter(), 0
    with ThreadPoolExecutor(PIECES) as pool:
        while (spent := time.perf_counter() - begin) < seconds:
            list(pool.map(lambda _: extend(0, piece), range(PIECES)))
            done += PIECES
    return {"GB/s": done * len(piece) / spent / 1e9}


def compare(case: str, measures: Mapping[str, Callable[[], dict[str, float]]]) -> None:
    """Prints every round of a case, the medians and their ratio."""
    print(f"{case}:")
    medians = in_turns(measures, flags.FLAGS.rounds)
    rates = {name: median["GB/s"] for name, median in medians.items()}
    ratio = ""
    if len(rates) == 2:
        ratio = f", google_crc32c / crc32c {rates['google_crc32c'] / rates['crc32c']:.2f}"
    print(f"{case}, median: {', '.join(f'{n} {r:.2f} GB/s' for n, r in rates.items())}{ratio}")


def main() -> None:
    """Compares the libraries on all cases."""
    data = np.random.default_rng(0).bytes(1 << 26)
    found, seconds = libraries(), flags.FLAGS.seconds
    if len({extend(extend(0, data[:99]), data[99:]) for extend in found.values()}) > 1:
        raise AssertionError("the libraries disagree")
    cases = {name: (frames_per_second, data[:size]) for name, size in FRAMES.items()} | {
        "2 KB in three parts": (chained, data[: 1 << 11]),
        f"{PIECES} threads of 16 MB": (in_threads, data[:PIECE_BYTES]),
    }
    for case, (measure, sample) in cases.items():
        compare(
            case,
            {
                name: functools.partial(measure, extend, sample, seconds)
                for name, extend in found.items()
            },
        )


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 7, "of both libraries", lower_bound=1)
    flags.DEFINE_float("seconds", 0.2, "each library works, each round", lower_bound=0.01)
    cli.run(main)
