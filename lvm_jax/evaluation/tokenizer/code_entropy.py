"""How well the codes beside a code foretell it: held-out cross-entropies of count models.

Three models, from what they read: nothing (how often each code occurs), the code to the left, the codes to the left and
above. What a neighbour saves is redundancy that any decoder learns first; what is left is the picture, or noise of the
tokenizer. Each image is scored by counts of other images.

A model backs off by Witten and Bell (1991, method C): p(c | x) = (n(x, c) + t(x) q(c)) / (n(x) + t(x)), with t(x) the
number of different codes seen in context x, and q the next simpler model.

The bias: a cross-entropy is never below the entropy in the mean, and counts of few images are far above it, the more so
the larger the codebook and the context. So compare tokenizers on the same images, and read a small gain of "left and
upper" over "left" as too little data before you read it as independence.

M: images, G: codes a side, K: codes of the codebook, n: any number of codes.
"""

import numpy as np
from jaxtyping import Float, Int, Integer

_FOLDS = 8


def code_entropies(codes_MGG: Integer[np.ndarray, "M G G"], codebook_size: int) -> dict[str, float]:
    """Nats a code of the three models: "unigram", "left", "left_and_upper".

    Args:
      codes_MGG: at least 2 images. Alike images should be neighbours in the order: the folds are runs of images, so
        that a film or a scene is on one side.
      codebook_size: K.
    """
    folds = min(_FOLDS, len(codes_MGG))
    fold_M = np.arange(len(codes_MGG)) * folds // len(codes_MGG)
    totals = np.zeros(3)
    for fold in range(folds):
        fitted = _Models(codes_MGG[fold_M != fold], codebook_size)
        totals += fitted.nll(codes_MGG[fold_M == fold])
    mean = totals / codes_MGG.size
    return dict(zip(("unigram", "left", "left_and_upper"), mean.tolist()))


class _Models:
    """The three models, fitted on some images."""

    def __init__(self, codes_MGG: Integer[np.ndarray, "M G G"], codebook_size: int) -> None:
        self._size = codebook_size
        code, left, upper = _neighbourhoods(codes_MGG, codebook_size)
        self._any = _Counts(np.zeros_like(code), code, codebook_size)
        self._left = _Counts(left, code, codebook_size)
        self._upper = _Counts(upper, code, codebook_size)
        self._both = _Counts(self._pair(left, upper), code, codebook_size)

    def nll(self, codes_MGG: Integer[np.ndarray, "M G G"]) -> Float[np.ndarray, " 3"]:
        """The summed negative log-likelihood under each model, in nats."""
        code, left, upper = _neighbourhoods(codes_MGG, self._size)
        uniform = np.full(len(code), 1 / self._size)
        unigram = self._any.probability(np.zeros_like(code), code, uniform)
        of_left = self._left.probability(left, code, unigram)
        of_upper = self._upper.probability(upper, code, unigram)
        # Where the pair is new, either neighbour may be the one that tells: their mean loses ln 2 at most.
        both = self._both.probability(self._pair(left, upper), code, (of_left + of_upper) / 2)
        return np.array([-np.log(p).sum() for p in (unigram, of_left, both)])

    def _pair(
        self, left: Int[np.ndarray, " n"], upper: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        return left * (self._size + 1) + upper


class _Counts:
    """How often each code followed each context."""

    def __init__(
        self, contexts: Int[np.ndarray, " n"], codes: Int[np.ndarray, " n"], codebook_size: int
    ) -> None:
        self._size = codebook_size
        self._pairs, self._of_pair = np.unique(contexts * codebook_size + codes, return_counts=True)
        self._contexts, of_pair, self._kinds = np.unique(
            self._pairs // codebook_size, return_inverse=True, return_counts=True
        )
        self._of_context = np.bincount(of_pair, weights=self._of_pair)

    def probability(
        self,
        contexts: Int[np.ndarray, " n"],
        codes: Int[np.ndarray, " n"],
        simpler: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """The probability of each code in its context; `simpler` is that of the model to back off to."""
        seen = _look_up(self._pairs, self._of_pair, contexts * self._size + codes)
        total = _look_up(self._contexts, self._of_context, contexts)
        kinds = _look_up(self._contexts, self._kinds, contexts)
        smoothed = (seen + kinds * simpler) / np.maximum(total + kinds, 1)
        return np.where(total > 0, smoothed, simpler)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key; 0 for one that is not there. `keys` are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def _neighbourhoods(
    codes_MGG: Integer[np.ndarray, "M G G"], outside: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each code, the one to its left and the one above, flat int64; beyond the border the neighbour is `outside`."""
    padded = np.pad(codes_MGG.astype(np.int64), ((0, 0), (1, 0), (1, 0)), constant_values=outside)
    views = padded[:, 1:, 1:], padded[:, 1:, :-1], padded[:, :-1, 1:]
    code, left, upper = (view.reshape(-1) for view in views)
    return code, left, upper
