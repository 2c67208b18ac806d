"""Predicts the time of a step on absent chips: the slowest of compute, memory and hidden communication, plus the rest.

TPU figures are the vendor's (cloud.google.com/tpu/docs, the page of each generation) and, for links, those of "How to
Scale Your Model" (jax-ml.github.io/scaling-book, chapters "Rooflines" and "TPUs"). GPU figures are from the data sheet,
with one network card of 400 Gb/s per GPU, as in a DGX.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from lvm_jax.analysis.costs import Collective, Cost

# Of the peak: about what MaxText's published runs of 16B and more reach end to end on v5p and v5e (56 to 71%).
COMPUTE_FRACTION = 0.65


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, in bytes, bytes/s and FLOP/s.

    Attributes:
      peak_flops: dense bf16.
      hbm_bytes: what XLA lets a program use; on a GPU the three quarters that JAX takes by default.
      hbm_bandwidth: reads and writes together.
      ici_bandwidth: TPU: the links along one axis of the torus, both directions. GPU: NVLink, one direction.
      dcn_bandwidth: the chip's share of its host's network, one direction.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float


GIB = 2**30
CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1.23e12, 9e10, 6.25e9),
    "v5e": Chip(197e12, 15.75 * GIB, 0.81e12, 9e10, 3.125e9),
    "v5p": Chip(459e12, 95.74 * GIB, 2.765e12, 1.8e11, 6.25e9),
    "v6e": Chip(918e12, 31.25 * GIB, 1.64e12, 1.8e11, 6.25e9),
    "h100": Chip(989e12, 0.75 * 84_942_979_072, 3.35e12, 4.5e11, 5e10),
    "h200": Chip(989e12, 0.75 * 151_397_597_184, 4.8e12, 4.5e11, 5e10),
}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of one step: each component as if it ran alone, and the total.

    Attributes:
      compute: FLOPs at `COMPUTE_FRACTION` of the peak.
      hbm: HBM bytes at full bandwidth.
      hidden: asynchronous collectives, which overlap with the above.
      exposed: synchronous collectives, which everything waits for.
      step: max(compute, hbm, hidden) + exposed.
    """

    compute: float
    hbm: float
    hidden: float
    exposed: float

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return max(self.compute, self.hbm, self.hidden) + self.exposed


def predict(cost: Cost, chip: Chip, devices: Sequence[Any]) -> Prediction:
    """The roofline of a program on `devices`.

    Args:
      cost: of one device.
      chip: its rates.
      devices: in the order of the mesh. `coords` and `slice_index` of a TPU, or `process_index` of a GPU, decide which
        links a collective uses.
    """
    seconds = {True: 0.0, False: 0.0}
    for collective in cost.collectives:
        seconds[collective.asynchronous] += collective_seconds(collective, chip, devices)
    return Prediction(
        compute=cost.flops / (COMPUTE_FRACTION * chip.peak_flops),
        hbm=cost.hbm_bytes / chip.hbm_bandwidth,
        hidden=seconds[True],
        exposed=seconds[False],
    )


def collective_seconds(collective: Collective, chip: Chip, devices: Sequence[Any]) -> float:
    """Seconds of all executions of a collective, without latency.

    Rings run in both directions along every axis of the torus where the group's chips differ. The GPUs of a host share
    a switch, which counts as one axis. Between slices, or hosts of GPUs, chips first combine within their own slice;
    then each exchanges its share over the hosts' network.
    """
    members = [devices[position] for position in collective.group]
    gpus = getattr(members[0], "platform", "tpu") in ("gpu", "cuda")
    by_slice: dict[int, list[Any]] = {}
    for member in members:
        where = member.process_index if gpus else getattr(member, "slice_index", None) or 0
        by_slice.setdefault(where, []).append(member)
    inside = next(iter(by_slice.values()))
    if gpus:
        axes = int(len(inside) > 1)
    else:
        axes = sum(len({member.coords[axis] for member in inside}) > 1 for axis in range(3))
    seconds = 0.0
    if axes:
        local = dataclasses.replace(collective, group=collective.group[: len(inside)])
        seconds += local.wire_bytes / (axes * chip.ici_bandwidth)
    if len(by_slice) > 1:
        across = dataclasses.replace(
            collective,
            group=collective.group[: len(by_slice)],
            payload=collective.payload / len(inside),
        )
        seconds += across.wire_bytes / chip.dcn_bandwidth
    return seconds


def largest_fitting(memory: Callable[[int], float], limit: float, start: int) -> int:
    """The largest n with memory(n) <= limit, for memory that grows about linearly; 0 if not even 1 fits.

    Args:
      memory: bytes for n; infinite if the compiler gave up. Each call is a compilation, so it makes few.
      limit: available bytes.
      start: first n to try.
    """
    # A bisection whose guess is the line through the two largest finite points, kept inside the bracket.
    known: dict[int, float] = {}
    n = start
    while True:
        known[n] = memory(n)
        low = max((k for k, m in known.items() if m <= limit), default=0)
        high = min((k for k, m in known.items() if m > limit), default=None)
        if high == low + 1:
            return low
        n = 2 * low if high is None else (low + high) // 2
        finite = sorted((k, m) for k, m in known.items() if m < float("inf"))[-2:]
        if len(finite) == 2:
            (a, at_a), (b, at_b) = finite
            slope = (at_b - at_a) / (b - a)
            if slope > 0:
                n = b + int((limit - at_b) // slope)
        n = max(low + 1, n)
        n = n if high is None else min(high - 1, n)


def out_of_memory(message: str) -> str | None:
    """Extracts "NEED of LIMIT" from the compiler's out-of-memory message; None for any other message."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    sizes = re.findall(r"[\d.]+[KMGT]", message)
    return " of ".join(sizes[:2])
