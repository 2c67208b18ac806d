"""Positions of patches: fixed waves, and learned ones of another grid.

Shapes: h w the grid wanted, P Q the grid of the table, T = h * w, D width.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

Grid = tuple[int, int]  # rows, columns

_LONGEST = 10_000.0  # wavelength, over 2 pi patches
_BEND = -0.75  # of the cubic kernel, as PyTorch has it; others take -0.5


def waves(grid: Grid, width: int) -> Float32[np.ndarray, "T D"]:
    """Sines and cosines of each patch's column, then of its row (He et al., MAE, arXiv 2111.06377, appendix A).

    The authors' code has columns first, and so have all published weights.
    """
    count = width // 4
    frequencies = _LONGEST ** -(np.arange(count) / count)
    rows, columns = np.indices(grid)
    angles = [place.reshape(-1, 1) * frequencies[None] for place in (columns, rows)]
    halves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(halves, axis=1).astype(np.float32)


def resampled(table_PQD: Float[Array, "P Q D"], grid: Grid) -> Float[Array, "h w D"]:
    """Learned positions for another grid, by bicubic interpolation; those of the same grid as they are."""
    if table_PQD.shape[:2] == grid:
        return table_PQD
    rows, columns = (_bicubic(*sizes) for sizes in zip(table_PQD.shape[:2], grid))
    return jnp.einsum("hP,wQ,PQD->hwD", rows, columns, table_PQD)


@functools.cache
def _bicubic(size: int, wanted: int) -> Float32[np.ndarray, "w Q"]:
    """How much each of `size` points counts for each of `wanted` between them; pixels are areas, edges repeat."""
    centre = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    first = np.floor(centre).astype(int) - 1
    weights = np.zeros((wanted, size))
    for tap in range(4):
        place = np.clip(first + tap, 0, size - 1)
        np.add.at(weights, (np.arange(wanted), place), _cubic(np.abs(centre - first - tap)))
    return weights.astype(np.float32)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The kernel of Keys (1981) with the parameter `_BEND`, at distances from 0 to 2."""
    a, d = _BEND, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    return np.where(d <= 1, near, a * (d**3 - 5 * d**2 + 8 * d - 4))
