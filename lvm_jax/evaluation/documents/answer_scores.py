"""Scores of the answers to a set of questions about pages, by the kind of answer."""

import enum
import importlib.util
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.metrics import text
from lvm_jax.metrics.answers import Fields, anls, compare_dicts, parse_dict, relaxed_match
from lvm_jax.metrics.repetition import ending_loop


class Kind(enum.Enum):
    """What is asked, and so what counts.

    Attributes:
      TEXT: all that a page says.
      FIELDS: a Python dict, such as what a chart says.
      PHRASE: a short answer, DocVQA's way.
      NUMBER: a short answer, often a number, ChartQA's way.
    """

    TEXT = "text"
    FIELDS = "fields"
    PHRASE = "phrase"
    NUMBER = "number"


# Of the extra "text-metrics".
_PACKAGES = {Kind.TEXT: ("rapidfuzz", "sacrebleu", "jieba"), Kind.PHRASE: ("rapidfuzz",)}

Scores = Callable[[Sequence[str], Sequence[Sequence[str]]], Result]


def check_installed(kind: Kind) -> None:
    """Requires the packages that a kind's scores need, before hours of answers wait for them.

    Raises:
      UserError: one is missing.
    """
    for package in _PACKAGES.get(kind, ()):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{package} is not installed, which scores of {kind.value} need: pip install 'lvm_jax[text-metrics]'"
            )


def score(kind: Kind, predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> Result:
    """Scores answers to questions of a kind.

    Args:
      kind: see `Kind`.
      predicted: an answer to each question.
      answers: the true ones; of TEXT and FIELDS the first counts.

    Returns:
      means over the questions unless said otherwise, all in [0, 1] but `cer`:
      of every kind `exact` (equal to a true answer but for white space) and `loops` (ending in one passage said over
      and over); of TEXT `edit_distance`, `cer` (over all characters), `precision`, `recall` and `f1` of words, `bleu`
      (of the corpus) and `meteor`; of FIELDS `fields` and `fields_precision` (over all fields), `unreadable` (no dict);
      of PHRASE `anls`; of NUMBER `relaxed`. A string says why a number is missing.
    """
    exact = [_is_one_of(ours, truths) for ours, truths in zip(predicted, answers, strict=True)]
    loops = [ending_loop(ours) > 0 for ours in predicted]
    result: Result = {"exact": float(np.mean(exact)), "loops": float(np.mean(loops))}
    return result | SCORES[kind](predicted, answers)


def _text(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> Result:
    truths = [first for first, *_ in answers]
    words = [text.word_lists(ours, truth) for ours, truth in zip(predicted, truths)]
    sets = np.array([text.word_sets(ours, truth) for ours, truth in words])
    missing = text.missing_wordnet()
    meteor = missing or float(np.mean([text.meteor(ours, truth) for ours, truth in words]))
    return {
        "edit_distance": float(
            np.mean([text.edit_distance(ours, truth) for ours, truth in zip(predicted, truths)])
        ),
        "cer": text.character_error_rate(predicted, truths),
        **dict(zip(("precision", "recall", "f1"), sets.mean(0).tolist())),
        "bleu": text.bleu([" ".join(o) for o, _ in words], [[" ".join(t)] for _, t in words]),
        "meteor": meteor,
    }


def _fields(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> Result:
    total, unreadable = Fields(), 0
    for ours, (truth, *_) in zip(predicted, answers):
        found, wanted = parse_dict(ours), parse_dict(truth)
        assert wanted is not None  # the reader has looked
        unreadable += found is None
        total = total.merge(compare_dicts(found, wanted))
    return {
        "fields": total.accuracy,
        "fields_precision": total.precision,
        "unreadable": unreadable / len(predicted),
    }


def _phrase(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> Result:
    return {"anls": float(np.mean([anls(o, truths) for o, truths in zip(predicted, answers)]))}


def _number(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> Result:
    right = [
        any(relaxed_match(ours.strip(), truth) for truth in truths)
        for ours, truths in zip(predicted, answers)
    ]
    return {"relaxed": float(np.mean(right))}


SCORES: Mapping[Kind, Scores] = {
    Kind.TEXT: _text,
    Kind.FIELDS: _fields,
    Kind.PHRASE: _phrase,
    Kind.NUMBER: _number,
}


def _is_one_of(ours: str, truths: Sequence[str]) -> bool:
    return " ".join(ours.split()) in {" ".join(truth.split()) for truth in truths}
