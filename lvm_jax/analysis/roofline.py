"""How long a step should take on chips that are not here: the slowest of compute and memory, plus what nothing hides.

The figures of a TPU are the vendor's (cloud.google.com/tpu/docs, the page of each generation) and, for links, those of
"How to Scale Your Model" (jax-ml.github.io/scaling-book, chapter "Rooflines" and "TPUs"); those of a GPU are its data
sheet's, with one network card of 400 Gb/s for each GPU, as in a DGX.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from lvm_jax.analysis.costs import Collective, Cost

# Of the peak: about what MaxText's published runs of 16B and more reach as a whole on v5p and v5e (56 to 71%).
COMPUTE_FRACTION = 0.65


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip. Bytes are bytes, rates are a second.

    Attributes:
      peak_flops: dense bf16.
      hbm_bytes: what XLA lets a program use; of a GPU the three quarters that JAX takes by default.
      hbm_bandwidth: reading and writing together.
      ici_bandwidth: of a TPU the links along one axis of the torus, both directions; of a GPU NVLink, one direction.
      dcn_bandwidth: its share of its host's network, one direction.
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
    """Seconds of one step, each part as if it were alone, and all of it.

    Attributes:
      compute: FLOPs at `COMPUTE_FRACTION` of the peak.
      hbm: bytes of HBM at full bandwidth.
      hidden: asynchronous collectives, which run beside the above.
      exposed: synchronous collectives, which everything waits for.
      step: max(compute, hbm, hidden) + exposed.
    """

    compute: float
    hbm: float
    hidden: float
    exposed: float

    @property
    def step(self) -> float:
        """Seconds."""
        return max(self.compute, self.hbm, self.hidden) + self.exposed


def predict(cost: Cost, chip: Chip, devices: Sequence[Any]) -> Prediction:
    """The roofline of a program on `devices`.

    Args:
      cost: of one device.
      chip: its rates.
      devices: in the order of the mesh; `coords` and `slice_index` of a TPU, `process_index` of a GPU tell which links
        a collective can use.
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
    """Seconds of all executions of a collective; latency is not counted.

    Rings run along every axis of the torus in which the group's chips differ, in both directions; a host's GPUs are
    behind one switch, which counts as one axis. Across slices, or hosts of GPUs, each chip first meets the others of
    its own, and then exchanges its part over the hosts' network.
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
    """The largest n with memory(n) <= limit, for a memory that grows about linearly; 0 if not even 1 fits.

    Args:
      memory: bytes for n; infinite where the compiler gave up. Each call is a compilation, so there are few.
      limit: bytes that there are.
      start: where to begin.
    """
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
    """The compiler's "NEED of LIMIT" from its message that a program does not fit; None for any other message."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    sizes = re.findall(r"[\d.]+[KMGT]", message)
    return " of ".join(sizes[:2])
