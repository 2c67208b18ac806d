"""Keypoints as pictures, and back: discs of one colour a kind, joined by limbs.

Shape legend: N bodies, K kinds of keypoints, 2 the (x, y) in pixels.
"""

import colorsys
import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8

from lvm_jax.pictures import annotation_maps as maps

Colour = tuple[int, int, int]
_SHIFT = 4  # OpenCV's fixed point: sixteenths of a pixel; its pixel centres are whole numbers


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """How the keypoints of a body are drawn.

    Attributes:
      colours: of the K discs.
      limbs: pairs of kinds that are joined.
      limb_colours: a colour a limb; distinct from the discs', so that these can be found again.
    """

    colours: tuple[Colour, ...]
    limbs: tuple[tuple[int, int], ...]
    limb_colours: tuple[Colour, ...]


# Top, centre and foot of a rendered body.
LANDMARKS = Skeleton(
    colours=maps.LANDMARKS, limbs=((0, 1), (1, 2)), limb_colours=(maps.LANDMARK_LIMB,) * 2
)


def _hue(i: int, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(i / 18, 1.0, value)
    return round(255 * r), round(255 * g), round(255 * b)


# The 18 joints of OpenPose, in its order: nose, neck, right shoulder, elbow, wrist, the left ones, right hip, knee,
# ankle, the left ones, right eye, left eye, right ear, left ear. Limbs have the colour of the hue wheel at 60 %.
_LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
OPENPOSE = Skeleton(
    colours=tuple(_hue(i, 1.0) for i in range(18)),
    limbs=_LIMBS,
    limb_colours=tuple(_hue(i, 0.6) for i in range(len(_LIMBS))),
)
# COCO's 17 keypoints: nose, then left before right of eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
_COCO_OF_OPENPOSE = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_SHOULDERS = (5, 6)


def openpose_from_coco(keypoints: Float[np.ndarray, "N 17 2"]) -> Float[np.ndarray, "N 18 2"]:
    """OpenPose's joints of COCO's keypoints; the neck is halfway between the shoulders. NaN stays NaN."""
    neck = keypoints[:, _SHOULDERS].mean(1)
    joints = [neck if i is None else keypoints[:, i] for i in _COCO_OF_OPENPOSE]
    return np.stack(joints, axis=1)


def draw_keypoints(
    keypoints: Float[np.ndarray, "N K 2"],
    size: int | tuple[int, int],
    skeleton: Skeleton = LANDMARKS,
    radius: float | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Discs and limbs on black; a keypoint of NaN is left out, with its limbs.

    Args:
      keypoints: in pixels, (0, 0) the upper left corner of the picture.
      size: of the picture, or its (height, width).
      skeleton: its colours and limbs.
      radius: of a disc; 1/28 of the picture's short side by default.
    """
    height, width = (size, size) if isinstance(size, int) else size
    short = min(height, width)
    radius = short / 28 if radius is None else radius
    picture = np.zeros((height, width, 3), np.uint8)
    shown_NK = ~np.isnan(keypoints.sum(axis=-1))
    fixed = np.round((np.where(shown_NK[..., None], keypoints, 0) - 0.5) * 2**_SHIFT).astype(int)
    for body, shown in zip(fixed, shown_NK, strict=True):
        for (a, b), colour in zip(skeleton.limbs, skeleton.limb_colours, strict=True):
            if shown[a] and shown[b]:
                ends = body[a].tolist(), body[b].tolist()
                cv2.line(picture, *ends, colour, max(1, short // 64), cv2.LINE_8, _SHIFT)
    # Discs of one kind after the other, above all limbs.
    for kind, colour in enumerate(skeleton.colours):
        for body, shown in zip(fixed, shown_NK, strict=True):
            if shown[kind]:
                r = round(radius * 2**_SHIFT)
                cv2.circle(picture, body[kind].tolist(), r, colour, -1, cv2.LINE_8, _SHIFT)
    return picture


def keypoints_from_drawing(
    picture: UInt8[np.ndarray, "H W 3"], skeleton: Skeleton = LANDMARKS
) -> list[Float64[np.ndarray, "N 2"]]:
    """See `rgb_to_keypoints`; within a pixel for discs that nothing covers."""
    return maps.rgb_to_keypoints(picture, skeleton.colours, skeleton.limb_colours)
