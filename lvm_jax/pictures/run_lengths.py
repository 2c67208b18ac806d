"""COCO's run-length encoding of masks: alternating off and on runs, which go down the columns and begin with off.

Legend: R runs; H, W the mask in pixels.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

_LARGEST_SHIFT = 60  # of the text's bits: 65 bits are more than any number of pixels


def read_run_lengths(counts: Any, size: tuple[int, int]) -> Int64[np.ndarray, " R"]:
    """The lengths of the runs in pixels, checked before anything of their size is made.

    Args:
      counts: a list of lengths, or COCO's text of them. The text writes a number as characters of 6 bits from 48 up,
        lowest bits first: 5 bits of the number, and the sixth is set if another character follows. The fifth bit of the
        last character is the sign. From the fourth run on, the number is the difference from the run two before.
      size: (height, width) of the mask.

    Raises:
      ValueError: they are no run lengths, or do not fill the mask exactly.
    """
    lengths = _from_text(counts) if isinstance(counts, str) else counts
    # By type: true and 3.0 are no counts.
    if not isinstance(lengths, list) or not all(type(length) is int for length in lengths):
        raise ValueError(
            f"counts is {reprlib.repr(counts)}: it must be a list of whole numbers, or COCO's text of one"
        )
    height, width = size
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        least = f", the shortest of {min(lengths)}," if min(lengths, default=0) < 0 else ""
        raise ValueError(f"runs of {sum(lengths)} pixels{least} do not fill {height}x{width}")
    return np.array(lengths, np.int64)


def fill_runs(lengths: Int64[np.ndarray, " R"], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The mask of size (height, width) that the runs fill."""
    height, width = size
    on = np.arange(len(lengths)) % 2 == 1
    return np.repeat(on, lengths).reshape(width, height).T  # runs go down the columns


def decode_run_lengths(counts: Any, size: Sequence[int]) -> Bool[np.ndarray, "H W"]:
    """`read_run_lengths`, filled; whoever calls it has checked `size`."""
    height, width = size
    return fill_runs(read_run_lengths(counts, (height, width)), (height, width))


def _from_text(text: str) -> list[int]:
    lengths: list[int] = []
    value = shift = 0  # of the number that is being read
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > _LARGEST_SHIFT:
            raise ValueError(f"counts is {reprlib.repr(text)}, which is no text of run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:  # negative: extend the sign, as in two's complement
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError(f"counts is {reprlib.repr(text)}, which ends inside a number")
    return lengths
