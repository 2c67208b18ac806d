"""Boxes and exact edges as pictures, and back."""

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8

from lvm_jax.pictures import annotation_maps as maps

_CREASE = 0.8  # cosine between neighbouring normals below which the surface has an edge
_DEPTH_JUMP = 0.06  # relative


def draw_boxes(
    boxes: Float[np.ndarray, "N 4"],
    ids: Int[np.ndarray, "N"],
    size: int | tuple[int, int],
    canvas: UInt8[np.ndarray, "H W 3"] | None = None,
    *,
    n_ids: int = len(maps.PALETTE),
    thickness: int = 1,
) -> UInt8[np.ndarray, "H W 3"]:
    """Boxes (x0, y0, x1, y1 in pixels) in the colours of `ids`, the last on top; rows with NaN are left out.

    On black they are filled; on a `canvas` they are outlines, over a copy of it.

    Args:
      boxes: in pixels.
      ids: of their colours, see `annotation_maps.ids_to_rgb`.
      size: of the picture without a canvas, or its (height, width).
      canvas: what outlines are drawn on.
      n_ids: colours that are told apart.
      thickness: of outlines; they grow inwards.
    """
    height, width = (size, size) if isinstance(size, int) else size
    picture = np.zeros((height, width, 3), np.uint8) if canvas is None else canvas.copy()
    for box, colour in zip(boxes, maps.ids_to_rgb(ids, n_ids), strict=True):
        if np.isnan(box).any():
            continue
        x0, y0, x1, y1 = (max(0, int(v)) for v in np.round(box))
        rows, columns = (
            slice(a + thickness, max(a, b - thickness)) for a, b in ((y0, y1), (x0, x1))
        )
        inside = picture[rows, columns].copy()
        picture[y0:y1, x0:x1] = colour
        if canvas is not None:
            picture[rows, columns] = inside
    return picture


def boxes_from_drawing(
    picture: UInt8[np.ndarray, "H W 3"], n_ids: int, min_pixels: int = 4
) -> tuple[Float32[np.ndarray, "N 4"], Int32[np.ndarray, "N"]]:
    """Bounding boxes and ids of the connected regions of each colour of at least `min_pixels`, largest first.

    Exact for filled boxes that no other box covers.
    """
    ids_HW = maps.rgb_to_ids(picture, n_ids)
    found = [
        (region, i)
        for i in np.unique(ids_HW[ids_HW > 0]).tolist()
        for region in maps.regions(ids_HW == i, neighbours=4)
        if region.area >= min_pixels
    ]
    found.sort(key=lambda region_and_id: -region_and_id[0].area)
    boxes_N4 = np.array([region.box for region, _ in found], np.float32).reshape(-1, 4)
    return boxes_N4, np.array([i for _, i in found], np.int32)


def true_edges(
    segmentation: Int[np.ndarray, "H W"],
    depth: Float[np.ndarray, "H W"],
    normals: Float[np.ndarray, "H W 3"],
) -> UInt8[np.ndarray, "H W 3"]:
    """White lines on black where the instance, the depth or the surface's direction changes."""
    edge = np.zeros(segmentation.shape, bool)
    for axis in (0, 1):
        here = [slice(None), slice(None)]
        there = list(here)
        here[axis], there[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(here), tuple(there)
        both = np.isfinite(depth[a]) & np.isfinite(depth[b])
        near, far = np.minimum(depth[a], depth[b]), np.maximum(depth[a], depth[b])
        jump = np.where(both, far, 0) > np.where(both, near, 0) * (1 + _DEPTH_JUMP)
        # The floor recedes by any amount: depth counts on objects only, and where a surface ends.
        jump &= (segmentation[a] > 0) & (segmentation[b] > 0)
        ends = np.isfinite(depth[a]) != np.isfinite(depth[b])
        crease = both & ((normals[a] * normals[b]).sum(-1) < _CREASE)
        edge[a] |= (segmentation[a] != segmentation[b]) | jump | ends | crease
    return maps.mask_to_rgb(edge)
