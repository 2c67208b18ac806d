"""Fits a power law to measured losses: loss = coefficient * x ** -exponent, a straight line in the logarithms."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from lvm_jax.errors import UserError

MIN_POINTS = 3  # a line through two leaves no residual to estimate the uncertainty from


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """A linear regression of ln(loss) on ln(x), without a floor under the loss.

    Attributes:
      coefficient: the loss at x = 1.
      exponent: how fast the loss falls; doubling x multiplies the loss by 2 ** -exponent.
      margin: half of the exponent's 95% confidence interval, from Student's t with points - 2 degrees of freedom. It
        covers the scatter of the points around the line, but not the choice of this form or other seeds.
      scatter: root mean square of the residuals in ln(loss), about the relative error of the line at a point.
      points: number of points fitted.
      first, last: the range of x in the data; the law says nothing beyond it.
    """

    coefficient: float
    exponent: float
    margin: float
    scatter: float
    points: int
    first: float
    last: float

    def __call__(self, x: float) -> float:
        """The loss at x."""
        return self.coefficient * x**-self.exponent


def fit_power_law(x: Sequence[float], loss: Sequence[float]) -> PowerLaw:
    """Fits a power law.

    Raises:
      UserError: fewer than 3 points, fewer than 2 different x, or a number that is not positive.
    """
    if len(x) != len(loss) or len(x) < MIN_POINTS:
        raise UserError(
            f"{len(x)} values of x and {len(loss)} losses: a power law needs {MIN_POINTS} points"
        )
    points = np.array([x, loss], np.float64)
    if not (np.isfinite(points).all() and (points > 0).all()):
        raise UserError(f"a power law needs numbers above 0: x {list(x)}, losses {list(loss)}")
    if len(set(x)) < 2:
        raise UserError(f"all {len(x)} points have x = {x[0]}: a power law needs different ones")
    log_x, log_loss = np.log(points)
    line: Any = stats.linregress(log_x, log_loss)  # SciPy does not type its result
    residuals = log_loss - line.intercept - line.slope * log_x
    return PowerLaw(
        coefficient=math.exp(line.intercept),
        exponent=float(-line.slope),
        margin=float(stats.t.ppf(0.975, len(x) - 2) * line.stderr),
        scatter=float(np.sqrt(np.mean(residuals**2))),
        points=len(x),
        first=float(min(x)),
        last=float(max(x)),
    )


def frontier(cost: Sequence[float], loss: Sequence[float]) -> list[int]:
    """Indices, by cost, of the points whose loss no other point of the same or lower cost reaches."""
    best, found = math.inf, []
    for i in sorted(range(len(cost)), key=lambda i: (cost[i], loss[i])):
        if loss[i] < best:
            best = loss[i]
            found.append(i)
    return found
