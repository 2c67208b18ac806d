"""Tiles that a line cuts, as the edges of things do: what is learnt on tiles then holds for things.

Shape legend: C tiles along a side, H, W sides of the picture.
"""

import math

import numpy as np
from jaxtyping import Bool

_WHOLE = 0.5  # share of tiles that no line cuts


def covered(rng: np.random.Generator, cells: int, side: int) -> Bool[np.ndarray, "H W"]:
    """Where a tile shows its colour: everywhere, or on one side of a line through it.

    Args:
      rng: draws which tiles are cut, and where.
      cells: C.
      side: of a tile, in pixels.
    """
    angle_CC, offset_CC, whole_CC = rng.random((3, cells, cells))
    angle_CC = 2 * math.pi * angle_CC
    offset_CC = np.where(whole_CC < _WHOLE, 1.0, 0.7 * offset_CC - 0.35)
    along = np.tile((np.arange(side) + 0.5) / side - 0.5, cells)
    cosine, sine, offset = (
        values.repeat(side, 0).repeat(side, 1)
        for values in (np.cos(angle_CC), np.sin(angle_CC), offset_CC)
    )
    return cosine * along + sine * along[:, None] < offset
