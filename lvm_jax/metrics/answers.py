"""Scores of short answers: ANLS of DocVQA, relaxed accuracy of ChartQA, and the fields of a dict."""

import ast
import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.metrics.text import edit_distance

_NUMBER = re.compile(r"[-+]?[0-9][0-9,]*(\.[0-9]+)?\s*%?|[-+]?\.[0-9]+\s*%?")
_LONGEST_DICT = 100_000  # characters; a model in a loop writes more, and it is not worth reading

Path = tuple[str, ...]


def anls(predicted: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Normalised Levenshtein similarity to the nearest answer, in [0, 1]; averaged over questions it is ANLS.

    Biten et al., arXiv 1905.13648, section 5, as DocVQA's official script computes it: case and runs of white space do
    not count, and a similarity below `threshold` is 0.

    Raises:
      UserError: there is no answer to compare with.
    """
    if not answers:
        raise UserError("a question has 0 answers: give at least 1")
    nearest = max(1 - edit_distance(_folded(predicted), _folded(answer)) for answer in answers)
    return nearest if nearest >= threshold else 0.0


def relaxed_match(predicted: str, answer: str, tolerance: float = 0.05) -> bool:
    """Whether a chart's question is answered (ChartQA, Masry et al., arXiv 2203.10244, section 5.1).

    Numbers may be off by 5% of the answer; anything else, and an answer of 0, must be equal but for case. As in the
    public script, "12%" is 0.12, and "1,000" is no number.
    """
    ours, truth = _float(predicted), _float(answer)
    if ours is not None and truth:
        return abs(ours - truth) / abs(truth) <= tolerance
    return predicted.lower() == answer.lower()


@dataclasses.dataclass(frozen=True)
class Fields:
    """How many fields of dicts are right. Sums over dicts; a field is a path of keys with its value.

    Attributes:
      right: fields of the truth that the prediction has, with the right value.
      wanted: fields of the truth.
      given: fields of the prediction.
    """

    right: int = 0
    wanted: int = 0
    given: int = 0

    def merge(self, other: "Fields") -> "Fields":
        """The counts over both."""
        return Fields(
            self.right + other.right, self.wanted + other.wanted, self.given + other.given
        )

    @property
    def accuracy(self) -> float:
        """The share of the truth's fields that are right."""
        return self.right / self.wanted if self.wanted else 1.0

    @property
    def precision(self) -> float:
        """The share of the predicted fields that are right."""
        return self.right / self.given if self.given else 0.0


def compare_dicts(
    predicted: Mapping[Any, Any] | None, truth: Mapping[Any, Any], tolerance: float = 0.05
) -> Fields:
    """Compares a dict with the truth, such as what a chart says.

    Keys must be equal. Numbers, also as texts such as "1,200" and "45%", may be off by `tolerance` of the truth; other
    values must be equal but for runs of white space.

    Args:
      predicted: from `parse_dict`; None gives no field.
      truth: what it should be, with dicts and lists at any depth.
      tolerance: relative.
    """
    ours, wanted = dict(_leaves(predicted or {})), dict(_leaves(truth))
    right = sum(
        path in ours and _same(ours[path], value, tolerance) for path, value in wanted.items()
    )
    return Fields(right, len(wanted), len(ours))


def parse_dict(text: str) -> dict[Any, Any] | None:
    """The Python dict or JSON object that a text holds, perhaps after a sentence; None if there is none."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end - start > _LONGEST_DICT:
        return None
    for read in (ast.literal_eval, json.loads):
        # What a model writes may be anything, also nested too deeply or of keys that cannot be keys.
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found = read(text[start : end + 1])
            return found if isinstance(found, dict) else None
    return None


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _float(text: str) -> float | None:
    """A number as ChartQA's script reads it."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, _words(key)))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(place)))
    else:
        yield path, value


def _same(predicted: Any, truth: Any, tolerance: float) -> bool:
    ours, wanted = _number(predicted), _number(truth)
    if ours is not None and wanted is not None and math.isfinite(wanted):
        return abs(ours - wanted) <= tolerance * abs(wanted)
    return _words(predicted) == _words(truth)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:  # an int beyond all floats, as a model in a loop writes it
            return math.inf
    text = _words(value)
    return float(text.rstrip("% ").replace(",", "")) if _NUMBER.fullmatch(text) else None


def _words(value: Any) -> str:
    """What is written, with single spaces."""
    try:
        return " ".join(str(value).split())
    except ValueError:  # an int with more digits than Python writes
        return "\0"  # which nothing else is
