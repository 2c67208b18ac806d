"""Boxes as pictures, and back.

Shape legend: N boxes, 4 their (x0, y0, x1, y1) in pixels; H, W the picture.
"""

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8

from lvm_jax.pictures import annotation_maps as maps


def draw_boxes(
    boxes: Float[np.ndarray, "N 4"],
    ids: Int[np.ndarray, " N"],
    size: int | tuple[int, int],
    canvas: UInt8[np.ndarray, "H W 3"] | None = None,
    *,
    n_ids: int = len(maps.PALETTE),
    thickness: int = 1,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws boxes in the colours of `ids`, later ones on top; skips a box with NaN.

    Fills them on black, or draws outlines on a copy of the canvas if there is one.

    Args:
      boxes: (x0, y0, x1, y1), the ends excluded, cut off at the picture's edges.
      ids: the boxes' ids; `annotation_maps.ids_to_rgb` gives each its colour.
      size: the picture's side, or its (height, width); unused with a canvas.
      canvas: the picture to draw outlines on.
      n_ids: number of colours.
      thickness: of an outline in pixels; it grows inwards.
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
        # An outline is a filled box with its inside put back.
        inside = picture[rows, columns].copy()
        picture[y0:y1, x0:x1] = colour
        if canvas is not None:
            picture[rows, columns] = inside
    return picture


def boxes_from_drawing(
    picture: UInt8[np.ndarray, "H W 3"], n_ids: int, min_pixels: int = 4
) -> tuple[Float32[np.ndarray, "N 4"], Int32[np.ndarray, " N"]]:
    """Bounding boxes and ids of the connected regions of one colour, largest first.

    Exact for filled boxes that no other box covers.

    Args:
      picture: the drawing.
      n_ids: as in `draw_boxes`.
      min_pixels: smaller regions count as noise.
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
