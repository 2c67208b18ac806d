"""What a released model should reach, and whether it does: for its card, what is missed first."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from lvm_jax.reporting import answers, markdown
from lvm_jax.reporting.controls import Tasks, by_task
from lvm_jax.reporting.numbers import apart, number

USES_QUERY = 0.5  # nats a code, on every annotation
USES_PAIRS = 0.1  # nats a code, on some tasks
PAIRED_TASKS = 3  # how many of them
AHEAD_ON_MASKS = 0.15  # mIoU

HEADER = ("", "what", "asked", "measured")
_VERDICTS = {True: "met", False: "missed", None: "not measured"}
_MASKS = ("mask", "class_mask", "attribute")
_BEATEN_ON_MAPS = ("copy", "nearest", "mean")
_BEATEN_ON_PICTURES = ("query", "mean")


@dataclasses.dataclass(frozen=True)
class Demand:
    """One thing that is asked of a model.

    Attributes:
      task: where.
      asked: what, in words.
      measured: the numbers, in words.
      met: None if it was not measured.
    """

    task: str
    asked: str
    measured: str
    met: bool | None


def demands(results: Mapping[str, Any]) -> list[Demand]:
    """All demands on a run's results; what is missed comes first, then what was not measured.

    Args:
      results: evaluation/results.json, of which `controls` and `answers` count.
    """
    controls, drawn = (by_task(results.get(name) or {}) for name in ("controls", "answers"))
    tasks = sorted({*controls, *drawn})
    found = [demand for task in tasks for demand in _of_task(task, controls, drawn)]
    if tasks:
        found.append(_paired(controls, drawn))
    return missed_first(found)


def missed_first(found: list[Demand]) -> list[Demand]:
    """What is missed, then what was not measured, then what is met; by task within each."""
    order = {False: 0, None: 1, True: 2}
    return sorted(found, key=lambda demand: order[demand.met])


def headline(found: list[Demand]) -> str:
    """How many demands are met, and of how many."""
    met = sum(demand.met is True for demand in found)
    unknown = sum(demand.met is None for demand in found)
    rest = f"; {unknown} were not measured" if unknown else ""
    return f"Met: {met} of {len(found)}{rest}. What is missed comes first."


def rows(found: list[Demand]) -> list[tuple[str, ...]]:
    """A row for each, under `HEADER`."""
    return [(_VERDICTS[d.met], d.task, d.asked, d.measured) for d in found]


def as_markdown(found: list[Demand]) -> str:
    """Headline and table."""
    missed = _VERDICTS[False]
    told = [(f"**{v}**" if v == missed else v, *rest) for v, *rest in rows(found)]
    return f"{headline(found)}\n\n{markdown.table(HEADER, told)}"


def _of_task(task: str, controls: Tasks, drawn: Tasks) -> Iterator[Demand]:
    values, role = drawn.get(task, {}), answers.asked_role(task)
    if ": next " in task:
        yield _beats(task, values, "copy")
        return
    if role == "image":  # a restoration: the query is a picture of the same
        yield from (_beats(task, values, other) for other in _BEATEN_ON_PICTURES)
        return
    if (
        values.get("metric") == "psnr"
    ):  # a picture under a rule: it counts among those that use their pairs
        return
    cost = controls.get(task, {}).get("uses_query")
    met = None if cost is None else cost >= USES_QUERY
    measured = number(None) if cost is None else apart(cost, USES_QUERY)
    yield Demand(task, f"uses_query at least {USES_QUERY} nats a code", measured, met)
    for other in _BEATEN_ON_MAPS:
        yield _beats(task, values, other, AHEAD_ON_MASKS if role in _MASKS else 0.0)


def _beats(task: str, values: Mapping[str, Any], other: str, ahead: float = 0.0) -> Demand:
    """The decoder's score is better than another predictor's, by `ahead` at least."""
    metric = values.get("metric", "score")
    by = f" by {ahead:g}" if ahead else ""
    asked, met = f"{metric} better than {other}{by}", answers.beats(values, other)
    if met is None:
        measured = f"{number(values.get('model'))}, {other} {number(values.get(other))}"
        return Demand(task, asked, measured, None)
    ours, theirs = values["model"], values[other]
    measured = f"{apart(ours, theirs)}, {other} {apart(theirs, ours)}"
    if met and ahead:
        met = abs(ours - theirs) >= ahead
        measured += f", better by {apart(abs(ours - theirs), ahead)}"
    return Demand(task, asked, measured, met)


def _paired(controls: Tasks, drawn: Tasks) -> Demand:
    """Some tasks use their pairs, in nats and in the score."""
    asked = (
        f"uses_pairs at least {USES_PAIRS} nats a code, and a score that falls after shuffled answers, in "
        f"{PAIRED_TASKS} tasks"
    )
    costs = {t: v["uses_pairs"] for t, v in controls.items() if "uses_pairs" in v}
    falls = {t: answers.beats(v, "control_shuffled") for t, v in drawn.items()}
    if not costs or not any(verdict is not None for verdict in falls.values()):
        return Demand("all tasks", asked, number(None), None)
    reached = [task for task, cost in costs.items() if cost >= USES_PAIRS and falls.get(task)]
    measured = "; ".join(f"{task} {number(costs[task])}" for task in reached) or "none"
    return Demand("all tasks", asked, measured, len(reached) >= PAIRED_TASKS)
