import math

import numpy as np
import pytest
from scipy import stats

from lvm_jax.analysis.power_law import fit_power_law, frontier
from lvm_jax.errors import UserError


def test_an_exact_law_is_found_with_no_margin():
    x = [1e3, 1e4, 1e6]
    law = fit_power_law(x, [7.3 * v**-0.04 for v in x])
    assert law.exponent == pytest.approx(0.04)
    assert law.coefficient == pytest.approx(7.3)
    assert law.margin == pytest.approx(0, abs=1e-9)
    assert law(1e5) == pytest.approx(7.3 * 1e5**-0.04)
    assert (law.first, law.last, law.points) == (1e3, 1e6, 3)


def test_exponent_and_margin_are_those_of_a_linear_regression():
    x, loss = [1e3, 3e3, 1e4, 1e6], [5.0, 4.4, 4.3, 3.1]
    law, line = fit_power_law(x, loss), stats.linregress(np.log(x), np.log(loss))
    assert law.exponent == pytest.approx(-line.slope)
    assert law.coefficient == pytest.approx(math.exp(line.intercept))
    assert law.margin == pytest.approx(4.302653 * line.stderr)  # Student's t of 2 degrees, 97.5%


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


def test_the_numbers_are_those_of_least_squares_by_hand():
    """Golden: slope, intercept and their errors from the sums of squares, written out once in NumPy."""
    law = fit_power_law([1e3, 3e3, 1e4, 1e6], [5.0, 4.4, 4.3, 3.1])
    assert law.coefficient == pytest.approx(7.777111061744962, rel=1e-12)
    assert law.exponent == pytest.approx(0.06651771002630187, rel=1e-12)
    assert law.margin == pytest.approx(0.026439933543716484, rel=1e-12)
    assert law.scatter == pytest.approx(0.02285146177179687, rel=1e-12)
