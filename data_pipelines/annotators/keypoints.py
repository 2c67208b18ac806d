"""Draws keypoints as discs and limbs; `lvm_jax.pictures.skeletons` has the colours and the way back.

The drawing is here because it needs OpenCV, which the pipelines have and the library does without.

Shape legend: N bodies, K keypoints of each; H, W of the picture.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from lvm_jax.pictures.skeletons import LANDMARKS, Skeleton

# Fractional bits of OpenCV's fixed point, so sixteenths of a pixel; its pixel centres are whole numbers.
_SHIFT = 4


def draw_keypoints(
    keypoints: Float[np.ndarray, "N K 2"],
    size: int | tuple[int, int],
    skeleton: Skeleton = LANDMARKS,
    radius: float | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Discs and limbs on black; a keypoint that is NaN is left out, with its limbs.

    Args:
      keypoints: in pixels; (0, 0) is the upper left corner of the picture.
      size: the picture's side, or its (height, width).
      skeleton: its colours and limbs.
      radius: of a disc, pixels; by default 1/28 of the picture's short side.
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
    # Discs cover all limbs, and later kinds cover earlier ones, so that a reader finds whole discs.
    for kind, colour in enumerate(skeleton.colours):
        for body, shown in zip(fixed, shown_NK, strict=True):
            if shown[kind]:
                r = round(radius * 2**_SHIFT)
                cv2.circle(picture, body[kind].tolist(), r, colour, -1, cv2.LINE_8, _SHIFT)
    return picture
