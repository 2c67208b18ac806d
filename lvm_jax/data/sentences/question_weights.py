"""Loss weights of questions: images that a sentence shows so that others can answer them.

A sentence of (image, depth, image, depth) has the period 2, and the last image of each period answers. With a question
weight below 1, the loss counts the codes of the other images less. EOS and all codes of sentences without a repeated
period weigh 1: videos, single images, and a group of roles that is shown only once, except for a single pair.

Shape legend: N sentences, B rows, T tokens of a row.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Float32, Int64

from lvm_jax.data.sentences.row_assembly import Row
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionWeights:
    """Weighs the rows of a corpus.

    Attributes:
      weight: of a question's codes, relative to an answer's.
      tokens_per_image: codes of an image.
      periods: images of each sentence's period, of which the last is the answer; 0 for sentences without questions.
    """

    weight: float
    tokens_per_image: int
    periods: Int64[np.ndarray, " N"]

    @classmethod
    def of(cls, store: SentenceStore, weight: float) -> Self:
        """The weights of a store that has been opened with periods.

        Raises:
          UserError: the weight is negative or not a number.
        """
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(
                f"question_weight is {weight}: it must be a number, 0 (questions do not count) or more"
            )
        assert store.periods is not None
        per_image = store.manifest.tokens_per_image
        images, periods = store.lengths // per_image, store.periods
        asks = (periods > 1) & ((periods < images) | (images == 2))
        return cls(weight, per_image, np.where(asks, periods, 0).astype(np.int64))

    def apply(self, rows: Sequence[Row], loss_weights_BT: Float32[np.ndarray, "B T"]) -> None:
        """Multiplies, in place, the loss weights of assembled rows: what weighs 0 still does."""
        for row, weights_T in zip(rows, loss_weights_BT, strict=True):
            begin = 0
            periods = self.periods[row.sentences].tolist()
            for piece, period in zip(row.template.pieces, periods, strict=True):
                if period:
                    first, count = begin + piece.bos, piece.stop - piece.start
                    weights_T[first : first + count] *= _weights(
                        piece.start, piece.stop, period, self.tokens_per_image, self.weight
                    )
                begin += piece.tokens


# Packed rows have few different pieces; those of `concat` are cut anywhere, and push each other out.
@functools.lru_cache(maxsize=1024)
def _weights(start: int, stop: int, period: int, per_image: int, weight: float) -> np.ndarray:
    """Weights of the codes start .. stop - 1 of a sentence."""
    answers = np.arange(start, stop) // per_image % period == period - 1
    return np.where(answers, np.float32(1), np.float32(weight))
