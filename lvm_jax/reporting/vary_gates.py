"""What a run of Vary should reach, and whether it does: what it reads, two epochs, the frozen tower, two branches.

A score alone proves no reading, so the demands on lines and photographs name the same score with another picture.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lvm_jax.reporting.demands import Demand, missed_first
from lvm_jax.reporting.inputs import Metrics, column
from lvm_jax.reporting.numbers import number, percent
from lvm_jax.reporting.vary_inputs import OLD, TINY, TWO, VaryFiles

CER = 0.10
CER_OF_ANOTHER = 0.9
FIELDS = 0.6
PHOTOGRAPHS, DRAWINGS = 0.8, 0.1
LINES, CHARTS, SHAPES, PHOTOS = "lines", "charts", "shapes", "photos"  # sets of the evaluation

Scores = Mapping[str, Any]


def gates(files: VaryFiles) -> list[Demand]:
    """All of them, those that are missed first."""
    scores = {name: found.scores for name, found in files.evaluated.items()}
    changed, tensors = files.changed
    found = [
        *_reads(scores[TINY], "the new vocabulary reads"),
        *_reads(scores[TWO], "both vocabularies read"),
        _fields(scores[TWO].get(CHARTS, {})),
        _photographs(scores[TWO].get(PHOTOS, {})),
        second_epoch(files.metrics[TINY], files.steps_of_an_epoch),
        Demand(
            "frozen tower",
            "bit for bit as the first stage left it",
            f"{changed} of {tensors} tensors changed",
            changed == 0 if tensors else None,
        ),
        *_beside_the_old(scores[TWO], scores.get(OLD, {})),
    ]
    return missed_first(found)


def second_epoch(metrics: Metrics, epoch: float) -> Demand:
    """The mean training loss of the second epoch is below that of the first.

    Args:
      metrics: of the training.
      epoch: its steps.
    """
    steps, losses = column(metrics, "train/loss")
    seen = list(zip(steps, losses, strict=True))
    first = [loss for step, loss in seen if step <= epoch]
    second = [loss for step, loss in seen if epoch < step <= 2 * epoch]
    asked = "a second epoch with a lower loss than the first"
    if not first or not second or steps[-1] < 2 * epoch:
        return Demand("training", asked, f"{steps[-1] / epoch:.1f} epochs", None)
    a, b = (math.fsum(losses) / len(losses) for losses in (first, second))
    return Demand("training", asked, f"{number(a)}, then {number(b)} nats a token", b < a)


def _reads(sets: Mapping[str, Scores], who: str) -> Iterator[Demand]:
    """One demand for lines, and one for each other set of texts."""
    asked = f"held-out CER at most {CER}, with another picture at least {CER_OF_ANOTHER}"
    for part in dict.fromkeys((LINES, *sets)):
        if part in (CHARTS, SHAPES, PHOTOS):
            continue
        scores = sets.get(part, {})
        ours, other = scores.get("model/cer"), scores.get("other_page/cer")
        if ours is None or other is None:
            yield Demand(f"{who} {part}", asked, "", None)
            continue
        measured = f"{number(ours)}, with another picture {number(other)}"
        met = ours <= CER and other >= CER_OF_ANOTHER
        yield Demand(f"{who} {part}", asked, measured, met)


def _fields(scores: Scores) -> Demand:
    ours, other = scores.get("model/fields"), scores.get("other_page/fields")
    asked = f"at least {percent(FIELDS)} of the fields of held-out charts"
    if ours is None:
        return Demand("charts", asked, "", None)
    measured = f"{percent(ours)}, with another picture {percent(other or 0.0)}"
    return Demand("charts", asked, measured, ours >= FIELDS)


def _photographs(scores: Scores) -> Demand:
    """All photographs have one answer, so only what is said of other pictures shows that they are looked at."""
    ours, other = scores.get("model/exact"), scores.get("other_page/exact")
    asked = (
        f"at least {percent(PHOTOGRAPHS)} of held-out photographs are called so, and of drawings at most "
        f"{percent(DRAWINGS)}"
    )
    if ours is None or other is None:
        return Demand("photographs", asked, "", None)
    measured = f"{percent(ours)}, of drawings {percent(other)}"
    return Demand("photographs", asked, measured, ours >= PHOTOGRAPHS and other <= DRAWINGS)


def _beside_the_old(both: Mapping[str, Scores], old: Mapping[str, Scores]) -> Iterator[Demand]:
    task = "both vocabularies beside the old one alone"
    ours, alone = (found.get(LINES, {}).get("model/cer") for found in (both, old))
    measured = f"CER {number(ours)}, alone {number(alone)}"
    met = None if ours is None or alone is None else ours < alone
    yield Demand(task, "better on lines", measured, met)
    ours, alone = (found.get(SHAPES, {}).get("model/exact") for found in (both, old))
    asked = "on shapes no worse than by two standard errors"
    if ours is None or alone is None:
        yield Demand(task, asked, "", None)
        return
    count = both[SHAPES]["questions"]
    error = math.sqrt((ours * (1 - ours) + alone * (1 - alone)) / count)
    measured = f"{percent(ours)} right, alone {percent(alone)} (± {percent(error)})"
    yield Demand(task, asked, measured, ours >= alone - 2 * error)
