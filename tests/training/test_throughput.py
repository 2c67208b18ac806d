"""The denominator of MFU on a CPU: what else runs on the machine does not lower it, or MFU would be above 1."""

import itertools

from lvm_jax.training import throughput


def test_one_undisturbed_product_of_many_gives_the_peak(monkeypatch):
    # Another process takes the core away for a whole second at nearly every product.
    seconds = itertools.cycle((1.25, 1.25, 0.25, 1.25, 1.25, 1.25, 1.25))
    times = itertools.accumulate(x for pair in zip(itertools.repeat(3.0), seconds) for x in pair)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(times))
    peak = throughput.peak_flops.__wrapped__()
    assert peak == 2 * 512**3 / 0.25
    assert next(times) > 40 * 4, "it has tried many"
