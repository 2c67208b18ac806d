"""The scores of answers from examples as tables: a row for the decoder, for each control, and for each baseline.

The numbers are those of `lvm_jax.evaluation.in_context`: NAME/SCORE and NAME/SCORE_error.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting import markdown
from lvm_jax.reporting.controls import is_flat
from lvm_jax.reporting.numbers import hundredths, number

# What a control puts in the place of what it takes away.
CONTROLS = {
    "no_examples": "no example at all",
    "other_examples": "an example of another class",
    "other_object": "an example of another thing in the picture",
    "shuffled_answers": "another answer in the example",
    "other_query": "another query",
    "class_only": "the name of the class alone",
}
_BASELINES = {
    "copy": "baseline: copy of the example's answer",
    "nearest": "baseline: the answer of the nearest example",
    "mean_mask": "baseline: the mean mask",
    "frequent": "baseline: the most frequent words",
    "ceiling": "the truth, encoded and decoded",
}
_ROWS = {"model": "the decoder", "turned": "turned", **CONTROLS, **_BASELINES}
_QUESTIONS = ("segmentation", "captioning")
LEAST = 0.02  # of a score: a smaller difference is flat, however small its error
EXPLAINED = (
    "Each control takes one thing away and scores the answer against the same truth. Where that costs nothing, nobody "
    "looked at it. 'turned' is the answer to an example of another thing in the picture, scored against that thing."
)

Grid = tuple[tuple[str, ...], list[tuple[Any, ...]]]
Scores = Mapping[str, Any]


def grids(results: Mapping[str, Scores], *, errors: bool = False) -> dict[str, Grid]:
    """Question -> (header, rows), of those that were asked.

    Args:
      results: of an evaluation: "segmentation", "captioning", and their losses in "QUESTION_controls".
      errors: whether a cell is a text with its standard error, and not a number.
    """
    # A single example is the last one and the nearest.
    rows = {k: v for k, v in _ROWS.items() if k != "nearest" or results.get("examples") != 1}
    return {
        question: _grid(
            question, results[question], results.get(f"{question}_controls", {}), rows, errors
        )
        for question in _QUESTIONS
        if results.get(question)
    }


def control_words(results: Scores, score: str = "miou", name: str = "IoU") -> list[str]:
    """A sentence for each control that was measured.

    Args:
      results: of one question.
      score: what it costs is counted in.
      name: of the score, in words.
    """
    found = []
    for control, instead in CONTROLS.items():
        if known := cost_of(results, control, score):
            cost, error = known
            verdict = " (flat)" if is_flat(cost, error, LEAST) else ""
            difference = f"{hundredths(cost)} ± {error:.2f}"
            found.append(f"{instead} costs {difference} of {name}{verdict}.")
    return found


def cost_of(results: Scores, control: str, score: str) -> tuple[float, float] | None:
    """What a control costs a question's answers, and the standard error; None if that was not measured."""
    cost, error = (results.get(f"uses_{control}/{score}{end}") for end in ("", "_error"))
    return None if cost is None or error is None else (cost, error)


def missing(results: Mapping[str, Scores]) -> list[str]:
    """Scores that were not measured, and why; those of one reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for question in _QUESTIONS:
        for name, why in results.get(question, {}).items():
            if isinstance(why, str) and why.startswith("not measured"):
                found.setdefault((question, why), []).append(name)
    return [
        f"{' and '.join(names)} of {question}: {why}" for (question, why), names in found.items()
    ]


def as_markdown(results: Mapping[str, Any]) -> str:
    """All results: tables of the answers, then what was asked, and other numbers as lists."""
    tables = [
        f"## {question}\n\n{markdown.table(header, [tuple(map(number, row)) for row in rows])}"
        for question, (header, rows) in grids(results, errors=True).items()
    ]
    notes = "".join(f"- {sentence}\n" for sentence in [EXPLAINED, *missing(results)])
    tabled = {*_QUESTIONS, *(f"{question}_controls" for question in _QUESTIONS)}
    rest = markdown.as_markdown({k: v for k, v in results.items() if k not in tabled})
    return "\n".join([rest, *tables, notes])


def _grid(
    question: str, drawn: Scores, nats: Scores, named: Mapping[str, str], errors: bool
) -> Grid:
    kinds = [
        key.removeprefix("model/")
        for key in drawn
        if key.startswith("model/") and not key.endswith("_error")
    ]
    fewer = sorted({key.partition("/")[0] for key in drawn if key.startswith("examples_")})
    of_some = {name: f"{name.removeprefix('examples_')} of the examples" for name in fewer}
    rows = []
    for name, words in {**named, **of_some}.items():
        loss = "right" if name == "model" else name
        cells = [_cell(drawn, f"{name}/{kind}", errors) for kind in kinds]
        cells.append(_cell(nats, f"{loss}/loss", errors))
        if any(cell is not None for cell in cells):
            rows.append((words, *cells))
    header = (f"{question}: {drawn.get('episodes', '?')} queries", *kinds, "nats a token")
    return header, rows


def _cell(scores: Scores, name: str, errors: bool) -> Any:
    value, error = scores.get(name), scores.get(f"{name}_error")
    if value is None or error is None or not errors:
        return value
    return f"{number(value)} ± {number(error, 2)}"
