"""COCO's run-length encoding of masks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool


def decode_run_lengths(
    counts: Sequence[int] | str, size: Sequence[int]
) -> Bool[np.ndarray, "height width"]:
    """The mask of runs, off and on in turn, down the columns.

    Args:
      counts: lengths, or COCO's text of them: groups of 5 bits from 48 on, the sixth bit for "more follows", the fifth
        of the last group for a sign; from the fourth run on the difference to the run two before.
      size: (height, width).

    Raises:
      ValueError: the runs do not fill the mask.
    """
    lengths = _from_text(counts) if isinstance(counts, str) else list(counts)
    height, width = size
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(f"runs of {sum(lengths)} pixels do not fill {height}x{width}")
    on = np.arange(len(lengths)) % 2 == 1
    return np.repeat(on, lengths).reshape(width, height).T


def _from_text(text: str) -> list[int]:
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths
