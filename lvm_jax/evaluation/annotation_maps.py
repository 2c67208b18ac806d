"""From pictures of annotations back to annotations, as far as scores need it.

`data_pipelines.annotators` draws these pictures; evaluation may not import it, so the inverse of each convention stands
here, and a test compares the two.

ids: the nearest colour of a palette. depth: grey, 255 at `near` and 0 at `far`. normals: (n + 1) / 2 * 255 a channel.
edges: bright lines on black. keypoints: a disc in the colour of its kind.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8
from scipy import ndimage

DEPTH_NEAR, DEPTH_FAR = 3.0, 10.0
BLACK_AND_WHITE = ((0, 0, 0), (255, 255, 255))
# 0 is background; ids of classes.
CLASS_COLOURS = (
    (0, 0, 0), (230, 30, 30), (30, 200, 40), (40, 60, 235), (245, 225, 40), (225, 50, 225), (40, 220, 230),
    (245, 135, 25), (125, 40, 160), (140, 145, 40), (30, 130, 130), (250, 165, 190), (130, 65, 20), (245, 245, 245),
    (130, 190, 255), (160, 255, 150), (125, 125, 125),
)  # fmt: skip
# Black, the limbs' grey, and the discs of top, centre and foot.
KEYPOINT_COLOURS = ((0, 0, 0), (110, 110, 110), (230, 30, 30), (30, 200, 40), (40, 60, 235))

Colours = Sequence[tuple[int, int, int]]


def snap(rgb: UInt8[np.ndarray, "h w 3"], colours: Colours) -> Int32[np.ndarray, "h w"]:
    """The index of the nearest colour at each pixel, by squared distance in RGB; of equal ones the first."""
    palette = np.asarray(colours, np.float32)
    distance = ((rgb[..., None, :].astype(np.float32) - palette) ** 2).sum(-1)
    return distance.argmin(-1).astype(np.int32)


def foreground(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where a picture is nearer to white than to black."""
    return snap(rgb, BLACK_AND_WHITE) == 1


def rectangle_of_largest(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The filled bounding rectangle of the largest connected region (of eight neighbours); empty if there is none."""
    largest = _largest_region(mask)
    filled = np.zeros_like(mask)
    if largest.any():
        (y0, x0), (y1, x1) = (edge(np.argwhere(largest), axis=0) for edge in (np.min, np.max))
        filled[y0 : y1 + 1, x0 : x1 + 1] = True
    return filled


def depth(
    rgb: UInt8[np.ndarray, "h w 3"], near: float = DEPTH_NEAR, far: float = DEPTH_FAR
) -> Float32[np.ndarray, "h w"]:
    """Depth in [near, far]; black is `far`."""
    return (far - rgb.astype(np.float32).mean(-1) / 255 * (far - near)).astype(np.float32)


def normals(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals; 0 where the picture is grey (a vector shorter than a half)."""
    vectors = rgb.astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 0.5, vectors / np.maximum(length, 0.5), 0).astype(np.float32)


def edges(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where a picture is brighter than mid grey."""
    return rgb.astype(np.float32).mean(-1) > 127.5


def keypoints(
    rgb: UInt8[np.ndarray, "h w 3"], colours: Colours = KEYPOINT_COLOURS, first: int = 2
) -> Float[np.ndarray, "k 2"]:
    """The centre (x, y in pixels) of the largest disc of each kind; NaN where there is none.

    Args:
      rgb: the drawing.
      colours: all colours of such drawings.
      first: the kinds are `colours[first:]`.
    """
    nearest = snap(rgb, colours)
    centres = np.full((len(colours) - first, 2), np.nan)
    for kind in range(len(centres)):
        disc = _largest_region(nearest == first + kind)
        if disc.any():
            centres[kind] = np.argwhere(disc).mean(axis=0)[::-1] + 0.5
    return centres


def _largest_region(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest connected region, of eight neighbours; of equal ones the first in raster order."""
    regions = np.zeros(mask.shape, np.int32)
    count = ndimage.label(mask, structure=np.ones((3, 3)), output=regions)
    if not count:
        return np.zeros_like(mask)
    return regions == np.bincount(regions.reshape(-1))[1:].argmax() + 1
