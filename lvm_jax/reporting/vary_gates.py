"""What a run of Vary should reach, and whether it does: what it reads, two epochs, the frozen tower, two branches.

A score alone proves no reading, so the demands on texts and photographs name the same score with another picture.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lvm_jax.reporting.demands import Demand, missed_first
from lvm_jax.reporting.inputs import Metrics, column
from lvm_jax.reporting.numbers import apart, percent
from lvm_jax.reporting.vary_inputs import OLD, TINY, TWO, VaryFiles

CER = 0.10
CER_OF_ANOTHER = 0.9
FIELDS = 0.6
PHOTOGRAPHS, DRAWINGS = 0.8, 0.1
LINES, CHARTS, SHAPES, PHOTOS = "lines", "charts", "shapes", "photos"  # sets of the evaluation

_TINY, _TWO = "the new vocabulary", "both vocabularies"
_NO_SET = "the evaluation has no such set"
_NO_OTHER = "no other picture was shown"

Scores = Mapping[str, Any]


def gates(files: VaryFiles) -> list[Demand]:
    """All of them, those that are missed first, and of these the first stage's first."""
    scores = {name: found.scores for name, found in files.evaluated.items()}
    return missed_first(
        [
            *_reads(scores[TINY], _TINY),
            second_epoch(files.metrics[TINY], files.steps_of_an_epoch),
            _frozen(*files.changed),
            *_reads(scores[TWO], _TWO),
            _fields(scores[TWO].get(CHARTS, {})),
            _photographs(scores[TWO].get(PHOTOS, {})),
            *_beside_the_old(scores[TWO], scores.get(OLD)),
        ]
    )


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
    task, asked = f"{_TINY}'s training", "a second epoch with a lower loss than the first"
    if not seen:
        return Demand(task, asked, "no training loss was logged", None)
    if not first or not second or steps[-1] < 2 * epoch:
        return Demand(task, asked, f"it was trained for {steps[-1] / epoch:.1f} epochs", None)
    a, b = (math.fsum(losses) / len(losses) for losses in (first, second))
    return Demand(task, asked, f"{apart(a, b)}, then {apart(b, a)} nats a token", b < a)


def _frozen(changed: int, tensors: int) -> Demand:
    return Demand(
        "the tower in the second stage",
        "bit for bit as the first stage left it",
        f"{changed} of {tensors} tensors changed",
        changed == 0 if tensors else None,
    )


def _reads(sets: Mapping[str, Scores], who: str) -> Iterator[Demand]:
    """One demand for lines, and one for each other set of texts."""
    asked = f"held-out CER at most {CER}, with another picture at least {CER_OF_ANOTHER}"
    for part in dict.fromkeys((LINES, *sets)):
        if part in (CHARTS, SHAPES, PHOTOS):
            continue
        scores, task = sets.get(part, {}), f"{who} read{'s' if who == _TINY else ''} {part}"
        ours, other = scores.get("model/cer"), scores.get("other_page/cer")
        if ours is None:
            yield Demand(task, asked, _NO_SET, None)
        elif other is None:
            yield Demand(task, asked, f"{apart(ours, CER)}; {_NO_OTHER}", None)
        else:
            measured = f"{apart(ours, CER)}, with another picture {apart(other, CER_OF_ANOTHER)}"
            yield Demand(task, asked, measured, ours <= CER and other >= CER_OF_ANOTHER)


def _fields(scores: Scores) -> Demand:
    ours, other = scores.get("model/fields"), scores.get("other_page/fields")
    task, asked = f"{_TWO} read charts", f"at least {percent(FIELDS)} of the held-out fields"
    if ours is None:
        return Demand(task, asked, _NO_SET, None)
    beside = f"; {_NO_OTHER}" if other is None else f", with another picture {percent(other)}"
    return Demand(task, asked, percent(ours, FIELDS) + beside, ours >= FIELDS)


def _photographs(scores: Scores) -> Demand:
    """All photographs have one answer, so only what is said of other pictures shows that they are looked at."""
    ours, other = scores.get("model/exact"), scores.get("other_page/exact")
    task = f"{_TWO} tell photographs from drawings"
    asked = (
        f"at least {percent(PHOTOGRAPHS)} of held-out photographs are called so, and at most {percent(DRAWINGS)} of "
        "drawings"
    )
    if ours is None:
        return Demand(task, asked, _NO_SET, None)
    if other is None:
        return Demand(task, asked, f"{percent(ours, PHOTOGRAPHS)}; {_NO_OTHER}", None)
    measured = f"{percent(ours, PHOTOGRAPHS)}, of drawings {percent(other, DRAWINGS)}"
    return Demand(task, asked, measured, ours >= PHOTOGRAPHS and other <= DRAWINGS)


def _beside_the_old(
    both: Mapping[str, Scores], old: Mapping[str, Scores] | None
) -> Iterator[Demand]:
    task = f"{_TWO} beside the old one alone"
    absent = "the old one alone was not trained" if old is None else _NO_SET
    ours, alone = (found.get(LINES, {}).get("model/cer") for found in (both, old or {}))
    asked = "a lower CER on lines"
    if ours is None or alone is None:
        yield Demand(task, asked, absent, None)
    else:
        yield Demand(task, asked, f"{apart(ours, alone)}, alone {apart(alone, ours)}", ours < alone)
    ours, alone = (found.get(SHAPES, {}).get("model/exact") for found in (both, old or {}))
    asked = "on shapes no worse than by two standard errors"
    if ours is None or alone is None:
        yield Demand(task, asked, absent, None)
        return
    count = both[SHAPES]["questions"]
    error = math.sqrt((ours * (1 - ours) + alone * (1 - alone)) / count)
    measured = f"{percent(ours)} right, alone {percent(alone)} (± {percent(error)})"
    yield Demand(task, asked, measured, ours >= alone - 2 * error)
