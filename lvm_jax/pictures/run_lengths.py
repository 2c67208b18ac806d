"""COCO's run-length encoding of masks.

Shape legend: H, W the mask in pixels.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool


def decode_run_lengths(counts: Sequence[int] | str, size: Sequence[int]) -> Bool[np.ndarray, "H W"]:
    """Decodes alternating off and on runs, which go down the columns and begin with off.

    Args:
      counts: the lengths of the runs in pixels, or COCO's text of them. The text writes a number as characters of 6
        bits from 48 up, lowest bits first: 5 bits of the number, and the sixth is set if another character follows.
        The fifth bit of the last character is the sign. From the fourth run on, the number is the difference from the
        run two before.
      size: (height, width).

    Raises:
      ValueError: the runs do not fill the mask exactly.
    """
    lengths = _from_text(counts) if isinstance(counts, str) else list(counts)
    height, width = size
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(f"runs of {sum(lengths)} pixels do not fill {height}x{width}")
    on = np.arange(len(lengths)) % 2 == 1
    return np.repeat(on, lengths).reshape(width, height).T  # runs go down the columns


def _from_text(text: str) -> list[int]:
    lengths: list[int] = []
    value = shift = 0  # of the number that is being read
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:  # negative: extend the sign, as in two's complement
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths
