"""Metric states: small pytrees that are summed over steps and hosts, and divided once at the end.

An average of averages would weigh a short batch as much as a full one; sums of (total, weight) do not.

K: codes.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A weighted mean before its division."""

    total: Float[Array, ""] | np.floating | float
    weight: Float[Array, ""] | np.floating | float = 1.0

    def merge(self, other: "Mean") -> "Mean":
        """The state over both batches."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> float:
        """total / weight; NaN if the weight is 0, so that an empty evaluation never looks like a perfect one."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else math.nan


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often each code occurs."""

    counts: Int[np.ndarray, " K"]

    def usage(self) -> float:
        """The fraction of codes that occur at least once, in [0, 1]."""
        return float(np.mean(self.counts > 0))

    def entropy(self) -> float:
        """Shannon entropy of the empirical distribution, in nats; at most ln(size)."""
        p = self.counts[self.counts > 0] / self.counts.sum()
        return float(-(p * np.log(p)).sum())

    def perplexity(self) -> float:
        """exp(entropy): the number of equally likely codes that would be as varied."""
        return math.exp(self.entropy())


def merge(a: Mapping[str, Mean] | None, b: Mapping[str, Mean]) -> dict[str, Mean]:
    """Merges two dicts of states with the same names; `a` is None before the first batch."""
    return dict(b) if a is None else {name: a[name].merge(state) for name, state in b.items()}


def compute(states: Mapping[str, Mean]) -> dict[str, float]:
    """The numbers of a dict of states."""
    return {name: state.compute() for name, state in states.items()}
