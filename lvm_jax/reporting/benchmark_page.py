"""The page of a benchmark: its scores beside ceiling and baselines, and its best, middle and worst answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lvm_jax.reporting.html import Block, Picture, Section, Table, Words, page

# Predictors in the order of the page, and what each answers.
_PREDICTORS = {
    "model": "the decoder",
    "tokenizer_ceiling": "the truth, encoded and decoded",
    "copy": "the last answer of the support",
    "nearest": "the answer of the support image nearest to the query",
    "constant": "the mean colour of the support's answers",
    "control_other_query": "the decoder, asked with another question's query",
    "control_shuffled": "the decoder, after pairs with shuffled answers",
}

_FLAT = "Scores that stay the same when the question is spoilt, and so say nothing of what the decoder reads: {}."


@dataclasses.dataclass(frozen=True)
class ScoredAnswer:
    """The answers to one question, as a picture and with their scores.

    Attributes:
      group: "best", "middle" or "worst".
      key: where the question came from.
      strip: a PNG of support, query, answer, ceiling and truth.
      scores: PREDICTOR/METRIC -> value.
    """

    group: str
    key: str
    strip: epath.Path
    scores: Mapping[str, Any]


def task_page(task: str, results: Mapping[str, Any], cases: Sequence[ScoredAnswer]) -> str:
    """A self-contained page.

    Args:
      task: name of the benchmark.
      results: what evaluate_benchmarks writes as JSON: PREDICTOR/METRIC -> mean, and the settings.
      cases: answers to show under their groups, in order.
    """
    asked = [(name, value) for name, value in results.items() if "/" not in name]
    flat = Words(_FLAT.format(results["flat"])) if "flat" in results else None
    blocks: list[Block] = [Section("Scores", [flat, _scores(results), Table(("", ""), asked)])]
    for group in dict.fromkeys(case.group for case in cases):
        shown: list[Block] = []
        for case in (case for case in cases if case.group == group):
            shown += [Picture(case.strip, case.key), _scores_of_a_case(case.scores)]
        blocks.append(Section(f"The {group} answers", shown))
    subtitle = (
        "Answers are drawn greedily; best and worst are by the decoder's own score. All pictures are squares of the "
        "tokenizer's size."
    )
    return page(f"In context: {task.replace('_', ' ')}", subtitle, blocks)


def _scores(results: Mapping[str, Any]) -> Table:
    """One row per predictor, one column per metric."""
    metrics = _metrics(results)
    rows = [
        (_PREDICTORS[name], *(results.get(f"{name}/{metric}") for metric in metrics))
        for name in _predictors(results)
    ]
    return Table(("", *metrics), rows)


def _scores_of_a_case(scores: Mapping[str, Any]) -> Table:
    """One row per metric, one column per predictor."""
    predictors = _predictors(scores)
    rows = [
        (metric, *(scores.get(f"{name}/{metric}") for name in predictors))
        for metric in _metrics(scores)
    ]
    return Table(("", *(name.replace("_", " ") for name in predictors)), rows)


def _predictors(values: Mapping[str, Any]) -> list[str]:
    """Those that have a score, in the order of the page; controls are measured only on request."""
    scored = {name.split("/")[0] for name in values}
    return [name for name in _PREDICTORS if name in scored]


def _metrics(values: Mapping[str, Any]) -> list[str]:
    """Those of the decoder, which every other predictor shares but for the loss."""
    return [name.removeprefix("model/") for name in values if name.startswith("model/")]
