"""What the probe learns: (query, answer) pairs that follow from any picture, so that it needs no annotated data.

H, W: pixels of a picture.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import ndimage

from lvm_jax.pictures import annotation_maps as maps

Picture = np.ndarray  # uint8 RGB, H x W x 3
Pair = tuple[Picture, Picture]

_EDGE_STEP = 12.0  # levels a pixel, after smoothing by a pixel


def _colorization(picture: Picture) -> Pair:
    return maps.grey(picture), picture


def _negative(picture: Picture) -> Pair:
    return picture, 255 - picture


def _shift(picture: Picture) -> Pair:
    """A quarter to the right, wrapped around: on every grid of 4 codes a side or more, a move by whole cells."""
    return picture, np.roll(picture, picture.shape[1] // 4, axis=1)


def _bright(picture: Picture) -> Pair:
    """White where the picture is brighter than its median."""
    level = _level(picture)
    return picture, maps.mask_to_rgb(level > np.median(level))


def _edges(picture: Picture) -> Pair:
    """White where the brightness changes steeply."""
    return picture, maps.mask_to_rgb(
        ndimage.gaussian_gradient_magnitude(_level(picture), 1.0) > _EDGE_STEP
    )


def _level(picture: Picture) -> np.ndarray:
    return maps.grey(picture)[..., 0].astype(np.float32)


TASKS: Mapping[str, Callable[[Picture], Pair]] = {
    "colorization": _colorization,
    "negative": _negative,
    "shift": _shift,
    "bright": _bright,
    "edges": _edges,
}
