"""Annotations <-> RGB pictures: fixed, documented, invertible up to the rounding of 8 bits.

Pipelines draw by these conventions, and scores read predicted pictures back, which may be blurred.

ids: `palette(n)[id]`; back by the nearest colour.
masks, edges: white on black; back by which of the two is nearer.
keypoints: discs, one colour for each kind; back by the centres of regions of that colour.
depth: grey, 255 at `near` and 0 at `far` and beyond, linear in between; a level is (far - near) / 255.
normals: (n + 1) / 2 * 255 a channel; a point without a surface is mid grey.
flow: red is x, green is y, 127.5 (1 + v / largest), v the motion as a fraction of width or height, cut at `largest`;
  blue is 128. A level is 2 largest / 255: with 0.125, a hundredth of the side is 10 levels. Resizing keeps it valid.

Shape legend: H, W a picture in pixels; N colours or points; *shape any leading dimensions.
"""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, UInt8
from scipy import ndimage

from lvm_jax.errors import UserError
from lvm_jax.pictures.pixels import to_uint8

DEPTH_NEAR = 3.0
DEPTH_FAR = 10.0
FLOW_LARGEST = 0.125
MAX_IDS = 256
_LUMA = np.array([0.2989, 0.5870, 0.1140])

# 0 is background. The colours lie far apart in RGB: the closest two differ by 85 levels in some channel.
PALETTE: UInt8[np.ndarray, "17 3"] = np.array(
    [
        (0, 0, 0),
        (230, 30, 30),
        (30, 200, 40),
        (40, 60, 235),
        (245, 225, 40),
        (225, 50, 225),
        (40, 220, 230),
        (245, 135, 25),
        (125, 40, 160),
        (140, 145, 40),
        (30, 130, 130),
        (250, 165, 190),
        (130, 65, 20),
        (245, 245, 245),
        (130, 190, 255),
        (160, 255, 150),
        (125, 125, 125),
    ],
    np.uint8,
)

# Top (red), centre (green) and foot (blue) of a rendered body, and the colour of the lines between them.
LANDMARKS = ((230, 30, 30), (30, 200, 40), (40, 60, 235))
LANDMARK_LIMB = (110, 110, 110)


@functools.cache
def palette(n_ids: int) -> UInt8[np.ndarray, "N 3"]:
    """Colours of ids 0 .. n_ids - 1: `PALETTE`, then always the colour farthest in RGB from those before; read-only.

    A larger palette begins with the smaller ones. The closest two colours of 256 are 38 apart, those of 92 are 56.

    Raises:
      UserError: more than `MAX_IDS` colours, too many to tell apart, or fewer than 2.
    """
    if not 2 <= n_ids <= MAX_IDS:
        raise UserError(f"n_ids is {n_ids}: a palette has 2 to {MAX_IDS} colours")
    # Candidates on a grid of 16 levels a channel, 4096 instead of 16.7 million.
    levels = np.arange(0, 256, 17)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    colours = [colour.astype(np.int64) for colour in PALETTE]
    nearest = np.min([((candidates - c) ** 2).sum(-1) for c in colours], axis=0)
    while len(colours) < n_ids:
        colours.append(candidates[nearest.argmax()])
        nearest = np.minimum(nearest, ((candidates - colours[-1]) ** 2).sum(-1))
    chosen = np.array(colours[:n_ids], np.uint8)
    chosen.flags.writeable = False  # cached: every caller gets this very array
    return chosen


def ids_to_rgb(
    ids: Int[np.ndarray, "*shape"], n_ids: int = len(PALETTE)
) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours of ids 0 .. n_ids - 1; 0 is background.

    Raises:
      UserError: an id has no colour of its own. `cycled` makes ids fit that may share colours.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= n_ids):
        wrong = int(ids.min() if ids.min() < 0 else ids.max())
        raise UserError(
            f"id {wrong} has no colour: n_ids is {n_ids}, so ids go from 0 to {n_ids - 1}; set n_ids (at most "
            f"{MAX_IDS}), or number the ids anew"
        )
    return palette(n_ids)[ids]


def cycled(ids: Int[np.ndarray, "*shape"], n_ids: int = len(PALETTE)) -> Int[np.ndarray, "*shape"]:
    """Ids below `n_ids`: larger ones start over at 1, as 0 is background. For instances, which only have to differ."""
    return np.where(ids > 0, (ids - 1) % (n_ids - 1) + 1, 0)


def rgb_to_ids(
    rgb: UInt8[np.ndarray, "*shape 3"], n_ids: int = len(PALETTE)
) -> Int32[np.ndarray, "*shape"]:
    """The id below `n_ids` with the nearest colour (squared distance in RGB)."""
    return nearest(rgb, palette(n_ids))


def nearest(
    rgb: UInt8[np.ndarray, "*shape 3"],
    colours: UInt8[np.ndarray, "N 3"] | Sequence[tuple[int, int, int]],
) -> Int32[np.ndarray, "*shape"]:
    """The number of the nearest colour, by squared distance in RGB; the first of equal ones."""
    # |x - p|^2 without |x|^2, which is the same for all p: one matrix product. Exact: integers below 2^24 in float32.
    of_n3 = np.asarray(colours, np.float32)
    score = rgb.astype(np.float32) @ (-2 * of_n3.T) + (of_n3**2).sum(-1)
    return score.argmin(-1).astype(np.int32)


def mask_to_rgb(mask: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Paints the mask white on black."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)


def rgb_to_mask(rgb: UInt8[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "H W"]:
    """Where a picture is nearer to white than to black, so brighter than mid grey."""
    return rgb.sum(-1, dtype=np.int32) * 2 > 3 * 255


def grey(rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The luma 0.2989 R + 0.5870 G + 0.1140 B in all channels."""
    return np.repeat(np.round(rgb @ _LUMA).astype(np.uint8)[..., None], 3, axis=-1)


def level_to_rgb(level: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Grey picture of levels from 0, black, to 1, white; clips the rest."""
    return np.repeat(to_uint8(level)[..., None], 3, axis=-1)


def depth_to_rgb(
    depth: Float[np.ndarray, "H W"], near: float = DEPTH_NEAR, far: float = DEPTH_FAR
) -> UInt8[np.ndarray, "H W 3"]:
    """Grey picture of depth in world units; inf is black."""
    nearness = np.clip((far - np.minimum(depth, far)) / (far - near), 0, 1)
    return level_to_rgb(nearness)


def rgb_to_depth(
    rgb: UInt8[np.ndarray, "H W 3"], near: float = DEPTH_NEAR, far: float = DEPTH_FAR
) -> Float32[np.ndarray, "H W"]:
    """Depth in [near, far] from a grey picture, off by at most half a level."""
    return (far - rgb.astype(np.float32).mean(-1) / 255 * (far - near)).astype(np.float32)


def normals_to_rgb(normals: Float[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Picture of unit normals; zero vectors give mid grey."""
    return np.round((normals + 1) * 127.5).astype(np.uint8)


def rgb_to_normals(rgb: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 3"]:
    """Unit normals; 0 where the picture is grey (a vector shorter than 0.5)."""
    normals = rgb.astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    # np.where computes both branches: the maximum keeps the unused one from dividing by 0.
    return np.where(length > 0.5, normals / np.maximum(length, 0.5), 0).astype(np.float32)


def flow_to_rgb(
    flow: Float[np.ndarray, "H W 2"], largest: float = FLOW_LARGEST
) -> UInt8[np.ndarray, "H W 3"]:
    """Picture of (x, y) motion in fractions of width and height, clipped to `largest`."""
    red_green = np.round((np.clip(flow / largest, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.concatenate([red_green, np.full((*flow.shape[:2], 1), 128, np.uint8)], axis=-1)


def rgb_to_flow(
    rgb: UInt8[np.ndarray, "H W 3"], largest: float = FLOW_LARGEST
) -> Float32[np.ndarray, "H W 2"]:
    """The (x, y) motion in fractions of width and height, off by at most largest / 255."""
    return ((rgb[..., :2].astype(np.float32) / 127.5 - 1) * largest).astype(np.float32)


class Region(NamedTuple):
    """A connected part of a mask.

    Attributes:
      area: in pixels.
      box: (x0, y0, x1, y1) around it; x1 and y1 lie outside.
      centre: (x, y), the mean of its pixels' centres.
    """

    area: int
    box: tuple[int, int, int, int]
    centre: tuple[float, float]


def regions(mask: Bool[np.ndarray, "H W"], neighbours: Literal[4, 8] = 8) -> list[Region]:
    """Connected regions, largest first; equal ones in raster order."""
    labels: np.ndarray = np.zeros(mask.shape, np.int32)
    structure = ndimage.generate_binary_structure(2, 1 if neighbours == 4 else 2)
    ndimage.label(mask, structure, output=labels)
    found = []
    for i, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        y_N, x_N = np.nonzero(labels[rows, columns] == i)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        centre = (float(x_N.mean()) + columns.start + 0.5, float(y_N.mean()) + rows.start + 0.5)
        found.append(Region(len(x_N), box, centre))
    return sorted(found, key=lambda region: -region.area)


def rgb_to_keypoints(
    rgb: UInt8[np.ndarray, "H W 3"],
    discs: Sequence[tuple[int, int, int]],
    others: Sequence[tuple[int, int, int]],
) -> list[Float64[np.ndarray, "N 2"]]:
    """Centres (x, y in pixels) of the discs of each kind, largest first; discs that touch give one centre.

    Args:
      rgb: the drawing; each pixel counts for the nearest of the colours below or black.
      discs: the colour of each kind.
      others: colours of whatever else is drawn on black.
    """
    kinds = nearest(rgb, [(0, 0, 0), *others, *discs]) - 1 - len(others)
    return [
        np.array([region.centre for region in regions(kinds == k)]).reshape(-1, 2)
        for k in range(len(discs))
    ]
