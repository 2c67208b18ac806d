"""Keypoints as discs on black, one colour for each kind, and back.

Shape legend: K kinds of keypoints, 2 the (x, y) in pixels; H, W the picture.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from lvm_jax.pictures import annotation_maps as maps

# Of the longer side: a disc is 18 pixels wide at 256, so it reaches into two codes of 16.
_RADIUS = 0.035


@dataclasses.dataclass(frozen=True)
class Joints:
    """The keypoints of one object.

    Attributes:
      points_K2: (x, y) in pixels of its picture; NaN for a kind that is not marked.
      size: the longer side of the object's box in the same pixels, for PCK.
    """

    points_K2: Float[np.ndarray, "K 2"]
    size: float


def draw_joints(joints: Joints, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """Draws the discs; where two overlap, the later kind lies on top."""
    canvas = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(canvas)
    radius = max(1.0, _RADIUS * max(height, width))
    for (x, y), colour in zip(joints.points_K2, _colours(len(joints.points_K2))):
        if np.isfinite((x, y)).all():
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return np.asarray(canvas)


def joints_of(picture: UInt8[np.ndarray, "H W 3"], kinds: int) -> Float[np.ndarray, "K 2"]:
    """The centre of the largest disc of each kind; NaN if there is none."""
    found = maps.rgb_to_keypoints(picture, _colours(kinds), ())
    return np.array([discs[0] if len(discs) else (np.nan, np.nan) for discs in found])


def _colours(kinds: int) -> list[tuple[int, int, int]]:
    """One colour for each kind, as for ids, without black."""
    return [(int(r), int(g), int(b)) for r, g, b in maps.palette(kinds + 1)[1:]]
