"""Canvases: pictures put together from pictures, their cells, as MAE-VQGAN and SegGPT read them.

    square   support | its mask        column   prompt
             query   | to be filled             query

A cell is a whole number of patches, so that the codes of a canvas are the codes of its cells. Pictures are floats in
[0, 1] and become normalised by ImageNet's mean and deviation of each colour.

Shapes: *B any leading dimensions, H W a picture in pixels, C channels, N of a cell.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.pictures.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN


def normalised(pictures: Float[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """Colours in [0, 1] as networks read them."""
    mean, deviation = _colours(pictures.ndim)
    return (pictures - mean) / deviation


def in_colours(normal: Float[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """The inverse of `normalised`, clipped to [0, 1]."""
    mean, deviation = _colours(normal.ndim)
    return jnp.clip(normal * deviation + mean, 0, 1)


def square(
    support: Float[Array, "*B H W C"],
    mask: Float[Array, "*B H W C"],
    query: Float[Array, "*B H W C"],
    answer: Float[Array, "*B H W C"],
) -> Float[Array, "*B H2 W2 C"]:
    """Four cells of one size as a normalised canvas."""
    rows = [jnp.concatenate(pair, axis=-2) for pair in ((support, mask), (query, answer))]
    return normalised(jnp.concatenate(rows, axis=-3))


def column(
    prompt: Float[Array, "*B H W C"], query: Float[Array, "*B H W C"]
) -> Float[Array, "*B H2 W C"]:
    """The prompt above its query as a normalised canvas."""
    return normalised(jnp.concatenate([prompt, query], axis=-3))


def cells(grid: tuple[int, int]) -> Int[np.ndarray, "4 N"]:
    """The patches of a square by cell, each in raster order: support, its mask, query, answer.

    Raises:
      UserError: the grid does not divide into four.
    """
    rows, columns = grid
    if rows % 2 or columns % 2:
        raise UserError(f"a square of {rows} x {columns} patches has no four cells: make both even")
    places_TT = np.arange(rows * columns).reshape(2, rows // 2, 2, columns // 2)
    return places_TT.transpose(0, 2, 1, 3).reshape(4, -1)


def _colours(dimensions: int) -> tuple[jax.Array, jax.Array]:
    shape = (1,) * (dimensions - 1) + (3,)
    mean, deviation = (
        jnp.asarray(x, jnp.float32).reshape(shape) for x in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return mean, deviation
