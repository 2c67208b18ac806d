"""Boxes, keypoints and edges as pictures, and back."""

import itertools

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8

from data_pipelines.annotators import mappings

# Top, centre and foot of a body: ids into the palette.
KEYPOINT_IDS = (1, 2, 3)
_LIMB = (110, 110, 110)
_CREASE = 0.8  # cosine between neighbouring normals below which the surface has an edge
_DEPTH_JUMP = 0.06  # relative


def draw_boxes(
    boxes: Float[np.ndarray, "N 4"],
    ids: Int[np.ndarray, "N"],
    size: int,
    canvas: UInt8[np.ndarray, "H W 3"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Boxes (x0, y0, x1, y1 in pixels) in the colours of `ids`, the last on top; rows with NaN are left out.

    On black they are filled; on a `canvas` they are outlines, over a copy of it.
    """
    picture = np.zeros((size, size, 3), np.uint8) if canvas is None else canvas.copy()
    for box, colour in zip(boxes, mappings.ids_to_rgb(ids), strict=True):
        if np.isnan(box).any():
            continue
        x0, y0, x1, y1 = (int(v) for v in np.round(box))
        if canvas is None:
            picture[y0:y1, x0:x1] = colour
        else:
            for rows, columns in (
                (slice(y0, y1), [x0, x1 - 1]),
                ([y0, y1 - 1], slice(x0, x1)),
            ):
                picture[rows, columns] = colour
    return picture


def boxes_from_drawing(
    picture: UInt8[np.ndarray, "H W 3"], n_ids: int, min_pixels: int = 4
) -> tuple[Float32[np.ndarray, "N 4"], Int32[np.ndarray, "N"]]:
    """Bounding boxes and ids of the connected regions of each colour, at least `min_pixels` large.

    Exact for filled boxes that no other box covers.
    """
    boxes, found = [], []
    ids_HW = mappings.rgb_to_ids(picture, n_ids)
    for i in range(1, n_ids):
        for x, y, width, height, area in _regions(ids_HW == i)[0]:
            if area >= min_pixels:
                boxes.append((x, y, x + width, y + height))
                found.append(i)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(found, np.int32)


def draw_keypoints(
    keypoints: Float[np.ndarray, "N 3 2"], size: int, radius: float | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Discs for top (red), centre (green) and foot (blue) of each body on black, joined by a grey limb.

    `radius` is 1/28 of the picture by default.
    """
    radius = size / 28 if radius is None else radius
    picture = np.zeros((size, size, 3), np.uint8)
    shift = 4  # OpenCV's fixed point: sixteenths of a pixel; its pixel centres are whole numbers
    fixed = np.round((keypoints - 0.5) * 2**shift).astype(int)
    for body in fixed:
        for a, b in itertools.pairwise(body):
            cv2.line(picture, a.tolist(), b.tolist(), _LIMB, max(1, size // 64), cv2.LINE_8, shift)
    for i in range(len(KEYPOINT_IDS)):  # discs of one kind after the other, above all limbs
        colour = mappings.PALETTE[KEYPOINT_IDS[i]].tolist()
        for body in fixed:
            r = round(radius * 2**shift)
            cv2.circle(picture, body[i].tolist(), r, colour, -1, cv2.LINE_8, shift)
    return picture


def keypoints_from_drawing(
    picture: UInt8[np.ndarray, "H W 3"],
) -> list[Float32[np.ndarray, "N 2"]]:
    """Centres (x, y in pixels) of the discs of each kind; discs that touch give one centre."""
    palette = [(0, 0, 0), _LIMB, *(mappings.PALETTE[i] for i in KEYPOINT_IDS)]
    distance = ((picture[..., None, :].astype(np.float32) - np.array(palette)) ** 2).sum(-1)
    nearest = distance.argmin(-1)
    return [
        _regions(nearest == 2 + i)[1].astype(np.float32) + 0.5 for i in range(len(KEYPOINT_IDS))
    ]


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
    return np.repeat(np.where(edge, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions: rows (x, y, width, height, area), and centres (x, y)."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return stats[1:], centres[1:]
