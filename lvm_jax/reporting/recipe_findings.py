"""What a recipe study found, as sentences computed from its study.json.

A difference is of equal seeds, and told from none if its 95% interval, by Student's t over the seeds, leaves out 0.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from lvm_jax.reporting.numbers import number

Study = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between two variants, over the seeds that both have.

    Attributes:
      mean: of the second minus the first.
      margin: half of its 95% interval; None with fewer than two seeds.
    """

    mean: float
    margin: float | None

    @property
    def is_told(self) -> bool | None:
        """Whether it is not 0, as far as the seeds tell; None: one seed tells nothing."""
        return None if self.margin is None else abs(self.mean) > self.margin

    def __str__(self) -> str:
        sign = "+" if self.mean > 0 else ""
        margin = "" if self.margin is None else f" ± {number(self.margin, 2)}"
        return f"{sign}{number(self.mean)}{margin}"


def findings(study: Study) -> list[str]:
    """Whether orders that others found hold here, then what each number says."""
    columns = [_column(study, heading, name) for heading, name in study["columns"]]
    orders = [_order(study, heading, name, order) for heading, name, *order in study["orders"]]
    return [sentence for sentence in (*orders, *columns) if sentence]


def difference(study: Study, name: str, one: str, other: str) -> Difference | None:
    """Of a number between two variants; None if no seed has it of both."""
    ours, theirs = (_by_seed(study, variant, name) for variant in (one, other))
    both = np.array([theirs[seed] - ours[seed] for seed in ours if seed in theirs])
    if not len(both):
        return None
    several = len(both) > 1
    error = float(both.std(ddof=1)) / math.sqrt(len(both)) if several else None
    return Difference(float(both.mean()), margin_of(error, len(both)))


def margin_of(error: float | None, seeds: int) -> float | None:
    """Half of the 95% interval of a mean over seeds, from its standard error."""
    return None if error is None else float(stats.t.ppf(0.975, seeds - 1)) * error


def _by_seed(study: Study, variant: str, name: str) -> dict[int, float]:
    return {
        run["seed"]: run["numbers"][name]
        for run in study["runs"]
        if run["variant"] == variant and name in run["numbers"]
    }


def _column(study: Study, heading: str, name: str) -> str:
    """From the lowest to the highest, and which variants differ from the base."""
    means = {
        v["variant"]: v["numbers"][name]["mean"] for v in study["variants"] if name in v["numbers"]
    }
    if len(means) < 2:
        return ""
    if len(set(means.values())) == 1:
        return f"{heading}: {number(next(iter(means.values())))} in all variants."
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    span = f"{heading}: {number(means[low])} ({low}) to {number(means[high])} ({high})."
    base = study["variants"][0]["variant"]
    beside = {v: difference(study, name, base, v) for v in means if v != base}
    known = {v: d for v, d in beside.items() if d}
    told = [f"{v} {d}" for v, d in known.items() if d.is_told]
    if not any(d.is_told is not None for d in known.values()):
        return span
    if not told:
        return f"{span} No variant can be told from {base}."
    others = len(known) - len(told)
    rest = f"; the other {others} cannot be told from it" if others else ""
    return f"{span} Unlike {base}: {', '.join(told)}{rest}."


def _order(study: Study, heading: str, name: str, order: Sequence[str]) -> str:
    """How many pairs of a published order are in that order here, the other way, or cannot be told."""
    pairs = {
        (one, other): difference(study, name, one, other)
        for one, other in itertools.combinations(order, 2)
    }
    known = {pair: d for pair, d in pairs.items() if d}
    if not known:
        return ""
    published = f"{heading} ({' < '.join(order)})"
    if all(d.is_told is None for d in known.values()):
        same = sum(d.mean > 0 for d in known.values())
        return f"{published}: {same} of {len(known)} pairs are in this order, by one seed each."
    holds = [p for p, d in known.items() if d.is_told and d.mean > 0]
    reversed_ = [f"{p[0]} above {p[1]}" for p, d in known.items() if d.is_told and d.mean < 0]
    unknown = len(known) - len(holds) - len(reversed_)
    if len(holds) == len(known):
        verdict = "holds"
    elif reversed_:
        verdict = "does not hold"
    else:
        verdict = "is not contradicted" if holds else "cannot be told"
    named = f" ({', '.join(reversed_)})" if reversed_ else ""
    return (
        f"{published} {verdict}: of {len(known)} pairs {len(holds)} are in this order, {len(reversed_)} the other way"
        f"{named}, and {unknown} cannot be told."
    )
