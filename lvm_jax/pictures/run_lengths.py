"""COCO's run-length encoding of masks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool


def decode_run_lengths(counts: Sequence[int] | str, size: Sequence[int]) -> Bool[np.ndarray, "H W"]:
    """The mask of alternating off and on runs, which go down the columns and begin with off.

    Args:
      counts: the lengths of the runs in pixels, or COCO's text of them. A number is written as characters of 6 bits
        from 48 up, the lowest first: 5 bits of the number, and the sixth set if another character follows. The fifth
        bit of the last character is the sign. From the fourth run on, the difference to the run two before is written.
      size: (height, width).

    Raises:
      ValueError: the runs do not fill the mask exactly.
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
