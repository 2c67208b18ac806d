import dataclasses

import pytest

from lvm_jax.analysis.costs import Collective, Cost
from lvm_jax.analysis.roofline import (
    COMPUTE_FRACTION,
    Chip,
    collective_seconds,
    largest_fitting,
    out_of_memory,
    predict,
)

CHIP = Chip(
    peak_flops=100.0, hbm_bytes=64, hbm_bandwidth=10.0, ici_bandwidth=4.0, dcn_bandwidth=0.5
)


@dataclasses.dataclass
class Device:
    coords: tuple[int, int, int]
    slice_index: int = 0


CUBE = [Device((x, y, z)) for x in range(2) for y in range(2) for z in range(2)]


def gather(group, payload=16.0, asynchronous=False):
    return Collective("all-gather", payload, group, 1.0, asynchronous)


def test_a_collective_uses_the_links_of_the_axes_it_spans():
    assert collective_seconds(gather((0, 1)), CHIP, CUBE) == 16 / 2 / 4
    assert collective_seconds(gather((0, 1, 2, 3)), CHIP, CUBE) == 16 * 3 / 4 / (2 * 4)
    assert collective_seconds(gather(tuple(range(8))), CHIP, CUBE) == 16 * 7 / 8 / (3 * 4)


def test_across_slices_each_chip_sends_its_part_over_the_hosts_network():
    devices = [Device((x, 0, 0), s) for s in range(2) for x in range(4)]
    reduce = Collective("all-reduce", 16.0, tuple(range(8)), 1.0, asynchronous=False)
    inside = 2 * 16 * 3 / 4 / 4.0
    across = 2 * (16 / 4) / 2 / 0.5
    assert collective_seconds(reduce, CHIP, devices) == inside + across
    only_across = dataclasses.replace(reduce, group=(0, 4))
    assert collective_seconds(only_across, CHIP, devices) == 2 * 16 / 2 / 0.5


def test_a_step_is_the_slowest_of_what_overlaps_and_all_that_does_not():
    cost = Cost(flops=650.0, hbm_bytes=50.0, collectives=[gather((0, 1)), gather((0, 1), 48, True)])
    times = predict(cost, CHIP, CUBE)
    assert times.compute == 650 / (COMPUTE_FRACTION * 100)
    assert (times.hbm, times.hidden, times.exposed) == (5.0, 6.0, 2.0)
    assert times.step == pytest.approx(10.0 + 2.0)


@pytest.mark.parametrize(
    ("base", "slope", "start"), [(10, 2, 4), (10, 2, 64), (0, 60, 1), (3, 7, 2)]
)
def test_the_largest_batch_is_found_with_few_compilations(base, slope, start):
    calls = []

    def memory(n):
        calls.append(n)
        need = base + slope * n + 0.3 * (n % 3)
        return need if need < 100 else float("inf")

    found = largest_fitting(memory, 64.0, start)
    assert base + slope * found + 0.3 * (found % 3) <= 64
    assert base + slope * (found + 1) + 0.3 * ((found + 1) % 3) > 64
    assert len(calls) == len(set(calls)) <= 7


def test_nothing_fits():
    assert largest_fitting(lambda n: float("inf"), 64.0, 8) == 0


def test_only_a_lack_of_memory_is_one():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
        "Used 29.22G of 15.75G hbm."
    )
    assert out_of_memory(message) == "29.22G of 15.75G"
    assert out_of_memory("INTERNAL: 3G of 2G") is None


@dataclasses.dataclass
class Gpu:
    process_index: int
    platform: str = "gpu"


def test_gpus_of_a_host_are_behind_one_switch_and_hosts_behind_the_network():
    devices = [Gpu(host) for host in range(2) for _ in range(4)]
    assert collective_seconds(gather((0, 1, 2, 3)), CHIP, devices) == 16 * 3 / 4 / 4.0
    assert collective_seconds(gather((0, 4)), CHIP, devices) == 16 / 2 / 0.5
    everywhere = collective_seconds(gather(tuple(range(8))), CHIP, devices)
    assert everywhere == 16 * 3 / 4 / 4.0 + (16 / 4) / 2 / 0.5
