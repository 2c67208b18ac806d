"""How close a text is to another: edit distance, shared words, BLEU and METEOR of whole pages.

The definitions are those of the public page benchmarks (Fox, GOT-OCR2.0), which Vary's tables follow (arXiv 2312.06109,
Table 1); where ours differs, the docstring says so. rapidfuzz, sacrebleu, nltk and jieba do the work and are imported
when they are needed: `pip install 'lvm_jax[text-metrics]'`.

Shape legend: M texts.
"""

import functools
import importlib.util
import logging
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from lvm_jax.errors import UserError

_HAN = re.compile(r"[\u4e00-\u9fa5]")  # the range of the public benchmarks


class WordSets(NamedTuple):
    """Precision, recall and F1 of the different words of a text, in [0, 1]; their order and number do not count."""

    precision: float
    recall: float
    f1: float


def edit_distance(predicted: str, truth: str) -> float:
    """Levenshtein distance of characters over the length of the longer text, in [0, 1]; 0 for equal texts."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_distance(predicted, truth)


def character_error_rate(predicted: Sequence[str], truths: Sequence[str]) -> float:
    """Edits of all texts together over the characters of all truths; above 1 if the predictions are too long.

    Raises:
      UserError: the truths have no characters.
    """
    from rapidfuzz.distance import Levenshtein

    characters = sum(map(len, truths))
    if not characters:
        raise UserError(f"{len(truths)} truths have 0 characters: give texts that say something")
    edits = (
        Levenshtein.distance(ours, truth) for ours, truth in zip(predicted, truths, strict=True)
    )
    return sum(edits) / characters


def word_lists(predicted: str, truth: str) -> tuple[list[str], list[str]]:
    """The words of both texts: by jieba if either has Han characters, else between white space."""
    if _HAN.search(predicted) or _HAN.search(truth):
        cut = _jieba().lcut
        return [w for w in cut(predicted) if w.strip()], [w for w in cut(truth) if w.strip()]
    return predicted.split(), truth.split()


def word_sets(predicted: Sequence[str], truth: Sequence[str]) -> WordSets:
    """Compares the sets of words of two texts.

    A text without words shares none with another, so all three are 0; two of them are equal, so all three are 1.
    """
    ours, theirs = set(predicted), set(truth)
    if not ours and not theirs:
        return WordSets(1.0, 1.0, 1.0)
    both = len(ours & theirs)
    return WordSets(
        both / len(ours) if ours else 0.0,
        both / len(theirs) if theirs else 0.0,
        2 * both / (len(ours) + len(theirs)),
    )


def missing_sacrebleu() -> str:
    """Why `bleu` cannot be computed here; "" if it can."""
    known = importlib.util.find_spec("sacrebleu") is not None
    return "" if known else "sacrebleu is not installed: pip install 'lvm_jax[text-metrics]'"


def bleu(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of a corpus without smoothing, in [0, 1] (Papineni et al. 2002), by sacrebleu.

    The public page benchmarks average a BLEU of each page instead, for which short pages weigh as much as long ones.

    Args:
      predicted: texts whose words stand between spaces.
      references: one or more such texts for each.
    """
    return bleu_of(bleu_counts(predicted, references))


def bleu_counts(
    predicted: Sequence[str], references: Sequence[Sequence[str]]
) -> Int[np.ndarray, "M 10"]:
    """What BLEU-4 sums over texts: n-grams that agree and all of them, for n of 1 to 4, then both lengths in words."""
    import sacrebleu

    def of_text(text: str, shown: Sequence[str]) -> list[int]:
        # A stream has the i-th reference of each text.
        streams = [[reference] for reference in shown]
        score = sacrebleu.corpus_bleu([text], streams, tokenize="none", force=True)
        return [*score.counts, *score.totals, score.sys_len, score.ref_len]

    counts = [of_text(text, shown) for text, shown in zip(predicted, references, strict=True)]
    return np.array(counts, np.int64).reshape(-1, 10)


def bleu_of(counts_M10: Int[np.ndarray, "M 10"]) -> float:
    """BLEU-4 of the corpus of some texts, from their `bleu_counts`."""
    from sacrebleu.metrics.bleu import BLEU

    *counts, length, wanted = counts_M10.sum(axis=0).tolist()
    score = BLEU.compute_bleu(counts[:4], counts[4:], length, wanted, smooth_method="none")
    return score.score / 100


def missing_wordnet() -> str:
    """Why `meteor` cannot be computed here; "" if it can."""
    try:
        from nltk.corpus import wordnet

        wordnet.ensure_loaded()
    except ImportError:
        return "nltk is not installed: pip install 'lvm_jax[text-metrics]'"
    except LookupError:
        return "WordNet is not installed: python -m nltk.downloader wordnet"
    return ""


def meteor(predicted: Sequence[str], truth: Sequence[str]) -> float:
    """nltk's METEOR of two lists of words, in [0, 1], as the public page benchmarks compute it.

    Captions are scored by METEOR 1.5, which gives other numbers; see `lvm_jax.metrics.captions.meteor_1_5`.

    Raises:
      UserError: see `missing_wordnet`. Without synonyms it would be another score, so there is none.
    """
    if why := missing_wordnet():
        raise UserError(f"no METEOR: {why}")
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(truth, predicted))


@functools.cache
def _jieba() -> Any:
    with warnings.catch_warnings():
        # Its patterns are spelt in a way that newer Pythons warn of.
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.WARNING)  # it reports its dictionary on stderr
    return jieba
