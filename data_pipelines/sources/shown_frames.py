"""Frames of a video as players show them: upright, not mirrored, opaque, RGB.

Shape legend: H, W of the picture as shown.
"""

import av
import numpy as np
from jaxtyping import UInt8

from data_pipelines.sources.video_frames import BadVideo

_UNIT = 1 << 16  # the first two columns of a display matrix are fixed-point numbers, 16.16


def to_rgb(frame: av.VideoFrame, short_side: int) -> UInt8[np.ndarray, "H W 3"]:
    """The frame with at most `short_side` pixels on the short side, its display matrix applied, alpha on white.

    Pixels that are not square stay as they are stored.

    Raises:
      BadVideo: the display matrix is neither a quarter turn nor a mirror.
    """
    orientation = _orientation(frame)
    if _has_alpha(frame):
        frame = _on_white(frame)
    scale = min(1.0, short_side / min(frame.width, frame.height))
    width, height = round(frame.width * scale), round(frame.height * scale)
    image = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
    (across, down), turned = orientation
    if turned:
        image = image.swapaxes(0, 1)
    return image[::down, ::across]


def _orientation(frame: av.VideoFrame) -> tuple[tuple[int, int], bool]:
    """The directions of columns and rows (1 or -1) after an exchange of the two, and whether they are exchanged.

    A matrix ((a, b, u), (c, d, v), (x, y, w)) shows the pixel (x, y) at (a x + c y, b x + d y), y downwards; see the
    track header (`tkhd`) in ISO/IEC 14496-12. Scale and shift do not change what is seen. Phones write the four turns,
    and mirrored turns for their front cameras.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (1, 1), False
    a, b, _, c, d, *_ = (np.frombuffer(bytes(data), np.int32, 9) / _UNIT).tolist()
    if not (a or b or c or d):  # left empty by its writer
        return (1, 1), False
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    # A degree off is still upright; FFmpeg's own tools draw the line there too.
    if max(abs(b), abs(c)) < 0.02 * straight:
        return (_sign(a), _sign(d)), False
    if max(abs(a), abs(d)) < 0.02 * crossed:
        return (_sign(c), _sign(b)), True
    raise BadVideo(
        f"has the display matrix ({a:.3g}, {b:.3g}; {c:.3g}, {d:.3g}), which is no quarter turn or mirror: encode the "
        "video again"
    )


def _sign(value: float) -> int:
    return 1 if value > 0 else -1


def _has_alpha(frame: av.VideoFrame) -> bool:
    # A palette has alpha too, which PyAV does not say.
    return frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)


def _on_white(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame composited on white, as `lvm_jax.pictures.decode` does it; opaque frames stay as they are."""
    rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
    alpha = rgba[..., 3:]
    if (alpha == 255).all():
        return frame
    mixed = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return av.VideoFrame.from_ndarray(mixed.astype(np.uint8), format="rgb24")
