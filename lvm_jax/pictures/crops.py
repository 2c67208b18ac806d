"""A large page as several pictures: crops in reading order, and the whole page behind them.

H, W: pixels of the page; H2, W2: of a crop.
"""

import itertools

import numpy as np
from jaxtyping import UInt8

from lvm_jax.errors import UserError


def crops_of(
    picture: UInt8[np.ndarray, "H W 3"], most: int, *, height: int, width: int
) -> list[UInt8[np.ndarray, "H2 W2 3"]]:
    """Cuts a page into a grid of crops of about the shape that the model sees, and adds the whole page.

    The grid is the one whose crops are least out of shape; of equal ones the finest that does not enlarge the page.

    Args:
      picture: the page.
      most: crops at most, without the whole page; 1 gives the page alone.
      height, width: of what the model sees.

    Raises:
      UserError: `most` is below 1.
    """
    if most < 1:
        raise UserError(f"crops is {most}: it must be at least 1, the page alone")
    rows, columns = _grid(picture.shape[0], picture.shape[1], most, height, width)
    if rows * columns == 1:
        return [picture]
    tops = np.linspace(0, picture.shape[0], rows + 1).round().astype(int)
    lefts = np.linspace(0, picture.shape[1], columns + 1).round().astype(int)
    crops = [
        np.ascontiguousarray(picture[top:bottom, left:right])
        for top, bottom in itertools.pairwise(tops)
        for left, right in itertools.pairwise(lefts)
    ]
    return [*crops, picture]


def _grid(tall: int, wide: int, most: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns."""
    grids = [(r, c) for r in range(1, most + 1) for c in range(1, most // r + 1)]

    def cost(grid: tuple[int, int]) -> tuple[bool, float, int]:
        rows, columns = grid
        # How far a crop's ratio of height to width is from the model's, the same whichever is the greater.
        out_of_shape = abs(np.log((tall / rows * width) / (wide / columns * height)))
        enlarged = rows * columns > 1 and (tall < rows * height or wide < columns * width)
        return enlarged, round(float(out_of_shape), 6), -rows * columns

    return min(grids, key=cost)
