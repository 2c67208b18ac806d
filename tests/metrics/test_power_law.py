import math

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.metrics.power_law import fit_power_law, frontier


def test_an_exact_law_is_found_with_no_margin():
    x = [1e3, 1e4, 1e6]
    law = fit_power_law(x, [7.3 * v**-0.04 for v in x])
    assert law.exponent == pytest.approx(0.04)
    assert law.coefficient == pytest.approx(7.3)
    assert law.margin == pytest.approx(0, abs=1e-9)
    assert law(1e5) == pytest.approx(7.3 * 1e5**-0.04)
    assert (law.first, law.last, law.points) == (1e3, 1e6, 3)


def test_the_margin_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    x = np.geomspace(1e3, 1e6, 6)
    inside = 0
    for _ in range(400):
        law = fit_power_law(list(x), list(5 * x**-0.1 * np.exp(0.02 * rng.standard_normal(6))))
        inside += abs(law.exponent - 0.1) < law.margin
    assert 0.92 < inside / 400 < 0.98


def test_the_frontier_leaves_out_what_costs_more_and_is_no_better():
    cost, loss = [1, 2, 4, 2, 8], [5.0, 4.0, 4.5, 4.2, 3.0]
    assert frontier(cost, loss) == [0, 1, 4]


def test_mistakes():
    with pytest.raises(UserError, match="2 values of x and 2 losses: a power law needs 3 points"):
        fit_power_law([1, 2], [3, 2])
    with pytest.raises(UserError, match="numbers above 0"):
        fit_power_law([1, 2, 3], [3, math.nan, 1])
    with pytest.raises(UserError, match="all 3 points have x = 2"):
        fit_power_law([2, 2, 2], [3, 2, 1])
