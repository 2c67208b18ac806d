"""Predictors without a network that a decoder must beat: code frequency, and copying the previous image.

I: images of a sentence, N: tokens per image, K: codes. All losses are in nats a code, since a baseline does not predict
BOS or EOS.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from lvm_jax.data.sentences.visual_sentence import VisualSentence

_FIT_STEPS = 60  # of expectation-maximisation


def count_codes(sentences: Sequence[VisualSentence], codebook_size: int) -> Int[np.ndarray, " K"]:
    """How often each code occurs."""
    counts = np.zeros(codebook_size, np.int64)
    for sentence in sentences:
        counts += np.bincount(sentence.codes.reshape(-1), minlength=codebook_size)
    return counts


def entropy(counts: Int[np.ndarray, " K"]) -> float:
    """Entropy of the empirical distribution, in nats.

    For held-out codes this is the loss of the best possible unigram model, one that has seen the answers.
    """
    probs = counts[counts > 0] / counts.sum()
    return float(-(probs * np.log(probs)).sum())


def smoothed(counts: Int[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """The unigram distribution with add-one smoothing, so that no code has probability 0."""
    return (counts + 1) / (counts.sum() + len(counts))


@dataclasses.dataclass(frozen=True)
class CopyBaseline:
    """Gives probability p to the code at the same place in the previous image, and 1 - p to the unigram distribution.

    The first image of a sentence has nothing to copy, so there p is 0.

    Attributes:
      unigram_K: the distribution of codes.
      p_of: category -> p.
    """

    unigram_K: Float[np.ndarray, " K"]
    p_of: dict[int, float]

    @classmethod
    def fit(
        cls, sentences: Sequence[VisualSentence], unigram_K: Float[np.ndarray, " K"]
    ) -> "CopyBaseline":
        """Finds the most likely p of each category by expectation-maximisation; the likelihood is concave in p."""
        p_of = {}
        for category in sorted({sentence.category for sentence in sentences}):
            pairs = [_match_and_unigram(s, unigram_K) for s in sentences if s.category == category]
            match = np.concatenate([m.reshape(-1) for m, _ in pairs])
            unigram = np.concatenate([u.reshape(-1) for _, u in pairs])
            p = 0.5
            for _ in range(_FIT_STEPS if match.size else 0):
                p = float(np.mean(match * p / (match * p + (1 - p) * unigram)))
                p = min(p, 1 - 1e-6)  # at 1, the loss of a code that changes would be infinite
            p_of[category] = p if match.size else 0.0
        return cls(unigram_K, p_of)

    def nll(self, sentence: VisualSentence) -> Float[np.ndarray, "I N"]:
        """Negative log-likelihood of each code."""
        p = self.p_of.get(sentence.category, 0.0)
        match, unigram = _match_and_unigram(sentence, self.unigram_K)
        first = -np.log(self.unigram_K[sentence.codes[:1]])
        return np.concatenate([first, -np.log(p * match + (1 - p) * unigram)])


def copied(sentence: VisualSentence) -> np.ndarray:
    """Whether each code equals the one at its place in the previous image; bool (I-1, N), from the second image on."""
    return sentence.codes[1:] == sentence.codes[:-1]


def _match_and_unigram(
    sentence: VisualSentence, unigram_K: Float[np.ndarray, " K"]
) -> tuple[np.ndarray, np.ndarray]:
    return copied(sentence), unigram_K[sentence.codes[1:]]
