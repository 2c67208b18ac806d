"""Scores of captions: CIDEr-D, METEOR 1.5, and BLEU-4 by `lvm_jax.metrics.text.bleu`.

A caption is a text whose words stand between spaces. The public scores lower the case and cut off punctuation first:
`plain` does.

Shape legend: M captions.
"""

import collections
import contextlib
import math
import shutil
import string
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from lvm_jax.errors import UserError

_ORDERS = 4  # of n-grams
_SIGMA = 6.0  # of the penalty for another length

Counts = collections.Counter[tuple[str, ...]]


def plain(caption: str) -> str:
    """A caption in lower case, without the punctuation around its words, which stand between single spaces.

    Hyphens and apostrophes inside words stay. The public scores read captions by the tokenizer of the Penn Treebank,
    for which "man's" is two words.
    """
    words = (word.strip(string.punctuation) for word in caption.lower().split())
    return " ".join(filter(None, words))


def cider_d(
    predicted: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, " M"]:
    """CIDEr-D of each caption, in [0, 10]; their mean is the corpus's (Vedantam et al., arXiv 1411.5726, section 5).

    As in the public script, "length" in the penalty is the number of bigrams, and how telling an n-gram is follows from
    the references alone: captions can only be scored as a whole set.

    Args:
      predicted: the captions.
      references: the true captions of each.

    Raises:
      UserError: a caption has no reference.
    """
    _check_references(references)
    shown = [[_counts(text) for text in texts] for texts in references]
    documents = collections.Counter(ngram for texts in shown for ngram in set().union(*texts))
    scores = []
    for text, truths in zip(predicted, shown, strict=True):
        ours = _Weighed(_counts(text), documents, len(shown))
        similar = [ours.similarity(_Weighed(truth, documents, len(shown))) for truth in truths]
        scores.append(10 * sum(similar) / len(similar))
    return np.array(scores)


def missing_meteor() -> str:
    """Why `meteor_1_5` cannot be computed here; "" if it can."""
    try:
        import pycocoevalcap.meteor.meteor  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "METEOR 1.5 is not installed: pip install pycocoevalcap, which has its jar"
    return "" if shutil.which("java") else "METEOR 1.5 needs Java, and there is no java on the path"


def meteor_1_5(
    predicted: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, " M"]:
    """METEOR 1.5 of each caption, in [0, 1], by the authors' jar (Denkowski and Lavie 2014).

    Seconds pass before the first caption: it loads its paraphrases. A caption without words has 0.

    Raises:
      UserError: see `missing_meteor`; or a caption has no reference.
    """
    _check_references(references)
    if why := missing_meteor():
        raise UserError(f"no METEOR 1.5: {why}")
    # A line of the jar is a caption, and it reads no empty one.
    lines = [" ".join(text.split()) for text in predicted]
    said = [place for place, line in enumerate(lines) if line]
    scores = np.zeros(len(lines))
    if said:
        shown = [[" ".join(text.split()) for text in references[place]] for place in said]
        scores[said] = _by_the_jar([lines[place] for place in said], shown)
    return scores


def _by_the_jar(lines: Sequence[str], references: Sequence[list[str]]) -> list[float]:
    from pycocoevalcap.meteor.meteor import Meteor  # pyright: ignore[reportMissingImports]

    scorer = Meteor()
    try:
        _, scores = scorer.compute_score(
            dict(enumerate(references)), {place: [line] for place, line in enumerate(lines)}
        )
    finally:
        process = scorer.meteor_p
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                pipe.close()
    return scores


class _Weighed:
    """The n-grams of a caption, each weighed by its count and by how few documents have it."""

    def __init__(self, counts: Counts, documents: Counts, size: int) -> None:
        self._orders: list[dict[tuple[str, ...], float]] = [{} for _ in range(_ORDERS)]
        for ngram, count in counts.items():
            telling = math.log(size) - math.log(max(1, documents[ngram]))
            self._orders[len(ngram) - 1][ngram] = count * telling
        self._norms = [math.sqrt(sum(w * w for w in order.values())) for order in self._orders]
        self._bigrams = sum(count for ngram, count in counts.items() if len(ngram) == 2)

    def similarity(self, truth: "_Weighed") -> float:
        """The mean over the orders of n-grams, in [0, 1]."""
        shorter = self._bigrams - truth._bigrams
        penalty = math.exp(-(shorter**2) / (2 * _SIGMA**2))
        norms = [ours * theirs for ours, theirs in zip(self._norms, truth._norms)]
        products = (
            _clipped(ours, theirs) / norm if norm else 0.0
            for ours, theirs, norm in zip(self._orders, truth._orders, norms)
        )
        return penalty * sum(products) / _ORDERS


def _clipped(
    ours: Mapping[tuple[str, ...], float], truth: Mapping[tuple[str, ...], float]
) -> float:
    """The product of two vectors, in which saying a word more often than the truth wins nothing."""
    return sum(min(weight, truth.get(n, 0.0)) * truth.get(n, 0.0) for n, weight in ours.items())


def _counts(text: str) -> Counts:
    words = text.split()
    return collections.Counter(
        tuple(words[i : i + n]) for n in range(1, _ORDERS + 1) for i in range(len(words) - n + 1)
    )


def _check_references(references: Sequence[Sequence[str]]) -> None:
    for place, texts in enumerate(references):
        if not texts:
            raise UserError(f"caption {place} has 0 references: give at least 1 to each")
