"""What must agree before anything is timed: else a timing would compare programs that compute different things."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lvm_jax.errors import UserError

LATER, FIRST = 1e-3, 1e-4  # nats; no update has touched the first step's loss yet


def require_equal(what: str, one: Any, other: Any, *, within: float = 0.0) -> None:
    """Requires equal arrays.

    Args:
      what: names them in the message.
      one, other: arrays, or lists of numbers.
      within: how far they may differ, over the largest value.

    Raises:
      UserError: they differ, or one has a number that is not finite.
    """
    one, other = (np.asarray(x, np.float64) for x in (one, other))
    if one.shape != other.shape:
        raise UserError(f"{what}: the shapes are {one.shape} and {other.shape}: nothing was timed")
    gap = _largest(one, other)
    worst = gap / max(np.abs(other).max(), 1e-30) if np.isfinite(gap) else gap
    if not worst <= within:  # nor is NaN an agreement
        raise UserError(
            f"{what}: the two sides differ by {worst:.1e} of the largest value, {within:g} is allowed: nothing was "
            "timed; compare the versions of the packages with those in docs/performance.md"
        )
    print(f"{what}: equal within {worst:.1e} of the largest value, {one.size} numbers", flush=True)


def require_losses(losses: Mapping[str, Sequence[float]]) -> None:
    """Requires runs of the same steps to agree with the first run.

    Raises:
      UserError: they do not.
    """
    (name, ours), *others = losses.items()
    for other, theirs in others:
        first, largest = _largest(ours[:1], theirs[:1]), _largest(ours, theirs)
        if not (first <= FIRST and largest <= LATER):
            raise UserError(
                f"losses differ by {first:.1e} in the first step and {largest:.1e} later, more than {FIRST} and "
                f"{LATER}: {name} {list(ours)}, {other} {list(theirs)}: nothing was timed"
            )
        print(f"losses of {len(ours)} steps agree with {other} within {largest:.1e} nats")


def _largest(one: Any, other: Any) -> float:
    """The largest difference."""
    with np.errstate(invalid="ignore"):  # two infinities differ by NaN
        return float(np.abs(np.subtract(one, other)).max())
