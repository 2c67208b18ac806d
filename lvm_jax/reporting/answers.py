"""Answers to held-out sentences in plain words and as a table: how near to the truth, and what is as near for free.

The numbers are those of `lvm_jax.evaluation.lvm.sentence_answers`: TASK/PREDICTOR -> score, TASK/metric, TASK/better.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting import markdown
from lvm_jax.reporting.controls import Grid, Tasks, by_task
from lvm_jax.reporting.numbers import number

NOT_MEASURED = (
    "Nothing here says whether the answers are nearer to the truth than a copy is: experiments/evaluate.py measures it "
    "with --answer_sentences."
)
CAPTION = (
    "Scores against the truth as the tokenizer shows it. Copy: the last answer of the pairs, or the image before. "
    "Nearest: the answer of the pair whose query is nearest. Mean: of the pairs' answers, or of the images before, "
    "pixel by pixel. Ceiling: the true map, encoded and decoded. Less absrel (relative error of depth) and mean_angle "
    "(degrees) is better, and more of all others; psnr is in dB."
)
# Result -> heading.
_COLUMNS = {
    "sentences": "sentences",
    "metric": "score",
    "model": "decoder",
    "copy": "copy",
    "nearest": "nearest",
    "mean": "mean",
    "query": "the query itself",
    "control_other_query": "with another query",
    "control_shuffled": "after shuffled answers",
    "nearer_than_copy": "better than the copy in",
}


def beats(values: Mapping[str, Any], other: str) -> bool | None:
    """Whether the decoder's score of a task is better than another predictor's; None if one of them is missing."""
    if "model" not in values or other not in values:
        return None
    more = values["better"] == "more"
    return values["model"] > values[other] if more else values["model"] < values[other]


def headline(results: Mapping[str, Any] | None) -> str:
    """In how many tasks the answers are better than a copy, and in which they are not."""
    if not results:
        return NOT_MEASURED
    verdicts = {task: beats(values, "copy") for task, values in by_task(results).items()}
    known = [task for task, verdict in verdicts.items() if verdict is not None]
    worse = [task for task in known if not verdicts[task]]
    which = f" Not in: {'; '.join(worse)}." if worse else ""
    return (
        f"Its answers score better than a copy of the last answer, or of the image before, in "
        f"{len(known) - len(worse)} of {len(known)} tasks.{which}"
    )


def table(results: Mapping[str, Any], ceilings: Mapping[str, Any]) -> Grid:
    """A row for each task; columns that no task has are left out."""
    tasks = by_task(results)
    shown = [name for name in _COLUMNS if any(name in values for values in tasks.values())]
    rows = [
        (task, *(values.get(name) for name in shown), ceiling(task, values, ceilings))
        for task, values in tasks.items()
    ]
    return ("task", *(_COLUMNS[name] for name in shown), "ceiling"), rows


def ceiling(task: str, values: Mapping[str, Any], ceilings: Mapping[str, Any]) -> Any:
    """The tokenizer's ceiling of a task's score; None if its role was not measured."""
    return ceilings.get(f"{asked_role(task)}/{values['metric']}")


def asked_role(task: str) -> str:
    """The role of the answer: `depth` of `scenes: image -> depth`, `frame` of `walks: next frame`."""
    return task.rsplit(" ", 1)[-1]


def examples(results: Mapping[str, Any], limit: int) -> Tasks:
    """Tasks with a picture of their answers, at most `limit`: first one for each score, then the others."""
    drawn = {task: values for task, values in by_task(results).items() if "shown" in values}
    first: dict[tuple[str, bool], str] = {}
    for task, values in drawn.items():
        first.setdefault((values["metric"], ": next " in task), task)
    chosen = list(dict.fromkeys([*first.values(), *drawn]))[:limit]
    return {task: drawn[task] for task in drawn if task in chosen}


def words_of(task: str, values: Mapping[str, Any]) -> str:
    """The scores of a task's best, median and worst answer, and what is to be had for free."""
    best, median, worst = (number(values[name]) for name in ("best", "median", "worst"))
    ours, copy = number(values.get("model")), number(values.get("copy"))
    return (
        f"{task} · {values['metric']} {best} at best, {median} in the middle, {worst} at worst; over "
        f"{values['sentences']} sentences {ours}, a copy {copy}"
    )


def as_markdown(results: Mapping[str, Any], ceilings: Mapping[str, Any]) -> str:
    """Headline and table."""
    header, rows = table(results, ceilings)
    grid = markdown.table(header, [tuple(map(number, row)) for row in rows])
    return f"{headline(results)}\n\n{grid}\n{CAPTION}\n"
