"""Skeletons: keypoints as discs joined by limbs, and back from the picture.

Shape legend: N bodies, 2 the (x, y) in pixels; H, W the picture.
"""

import colorsys
import dataclasses

import numpy as np
from jaxtyping import Float, Float64, UInt8

from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """How to draw the keypoints of a body.

    Attributes:
      colours: of the discs, one for each kind of keypoint.
      limbs: pairs of kinds that a line joins.
      limb_colours: one for each limb; no disc has the same, so that discs can be found again.
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


# OpenPose's 18 joints in its order: nose, neck; right shoulder, elbow, wrist, then left; right hip, knee, ankle, then
# left; right eye, left eye, right ear, left ear. Limbs have 60% of a disc's brightness, which tells them apart.
_LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
OPENPOSE = Skeleton(
    colours=tuple(_hue(i, 1.0) for i in range(18)),
    limbs=_LIMBS,
    limb_colours=tuple(_hue(i, 0.6) for i in range(len(_LIMBS))),
)
COCO_KEYPOINTS = (
    "nose",
    *(
        f"{side}_{joint}"
        for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)
# The place of each of OpenPose's joints among COCO's 17 keypoints. COCO has no neck.
_COCO_OF_OPENPOSE = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_SHOULDERS = (5, 6)


def openpose_from_coco(keypoints: Float[np.ndarray, "N 17 2"]) -> Float[np.ndarray, "N 18 2"]:
    """Converts COCO's keypoints to OpenPose's joints, with the neck halfway between the shoulders. NaN stays NaN."""
    neck = keypoints[:, _SHOULDERS].mean(1)
    joints = [neck if i is None else keypoints[:, i] for i in _COCO_OF_OPENPOSE]
    return np.stack(joints, axis=1)


def of_limbs(kinds: int, limbs: tuple[tuple[int, int], ...]) -> Skeleton:
    """A skeleton of any kinds of keypoints, in the colours of ids 1 to `kinds`; limbs have the colour of the next id.

    Raises:
      UserError: there are more kinds than colours.
    """
    if kinds > maps.MAX_IDS - 2:
        raise UserError(
            f"{kinds} kinds of keypoints are too many to tell apart by colour: at most {maps.MAX_IDS - 2}"
        )
    *colours, limb = [(int(r), int(g), int(b)) for r, g, b in maps.palette(kinds + 2)[1:]]
    return Skeleton(tuple(colours), limbs, (limb,) * len(limbs))


def keypoints_from_drawing(
    picture: UInt8[np.ndarray, "H W 3"], skeleton: Skeleton = LANDMARKS
) -> list[Float64[np.ndarray, "N 2"]]:
    """The centres (x, y) of the discs of each kind, in pixels; off by a pixel at most if nothing covers the disc."""
    return maps.rgb_to_keypoints(picture, skeleton.colours, skeleton.limb_colours)
