"""How the benchmarks compare: in every round each side has a turn, and the medians over the rounds count.

Taking turns, all sides see the same load on the machine.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import jax

Measurement = Mapping[str, float]  # {"seconds": ...}, and what else a side measures


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call, until its arrays are computed."""
    return timed(function)["seconds"]


def timed(function: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds of one call, until its arrays are computed.

    On a shared machine other programs lengthen the wall time of whoever has the turn, and the CPU time hardly.
    """
    begin, cpu_begin = time.perf_counter(), time.process_time()
    jax.block_until_ready(function())
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu_begin,
    }


def in_turns(
    sides: Mapping[str, Callable[[], Measurement]], rounds: int
) -> dict[str, dict[str, float]]:
    """Prints every side's measurements in every round; returns the medians, side -> quantity -> value.

    The first turn of each side is a warm-up and does not count.
    """
    found: dict[str, list[Measurement]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, measure in sides.items():
            found[name].append(measure())
        last = "; ".join(
            f"{name} " + ", ".join(f"{what} {value:,.4g}" for what, value in turns[-1].items())
            for name, turns in found.items()
        )
        print(f"{f'round {number}' if number else 'warm-up'}: {last}", flush=True)
    return {
        name: {what: statistics.median(turn[what] for turn in turns[1:]) for what in turns[0]}
        for name, turns in found.items()
    }
