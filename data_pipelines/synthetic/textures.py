"""Looks colours up in textures, in the colour space that the file's format multiplies in.

Shape legend: P places, C channels, H, W of a texture.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8

Wrap = Literal["repeat", "clamp", "mirror"]  # beyond the texture's edges


def to_linear(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Values in [0, 1] of sRGB (IEC 61966-2-1) as linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Linear light in [0, 1] as sRGB; the inverse of `to_linear`."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


_LINEAR_256 = to_linear(np.arange(256) / 255).astype(np.float32)
_PLAIN_256 = np.arange(256, dtype=np.float32)  # divided by 255 after the sum


def sample(
    texture: UInt8[np.ndarray, "H W C"],
    uv_P2: Float[np.ndarray, "P 2"],
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat"),
    linear: bool = False,
) -> Float[np.ndarray, "P C"]:
    """The texture at (u, v), bilinear, in [0, 1]; (0, 0) is its lower left corner.

    Args:
      texture: rows from top to bottom; RGB in sRGB, perhaps alpha.
      uv_P2: the places.
      wrap: what lies beyond the edges, in u and in v.
      linear: decodes RGB to linear light before it is averaged. Alpha is linear always.
    """
    height, width = texture.shape[:2]
    x = _within(uv_P2[:, 0], wrap[0]) * width - 0.5
    y = (1 - _within(uv_P2[:, 1], wrap[1])) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    f_x, f_y = (x - left)[:, None], (y - top)[:, None]
    columns = [_index(left + i, width, wrap[0]) for i in (0, 1)]
    rows = [_index(top + i, height, wrap[1]) for i in (0, 1)]

    def texel(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        values = texture[row, column]
        if not linear:
            return _PLAIN_256[values]
        decoded = _LINEAR_256[values]
        decoded[:, 3:] = values[:, 3:] / np.float32(255)
        return decoded

    upper = texel(rows[0], columns[0]) * (1 - f_x) + texel(rows[0], columns[1]) * f_x
    lower = texel(rows[1], columns[0]) * (1 - f_x) + texel(rows[1], columns[1]) * f_x
    mixed = upper * (1 - f_y) + lower * f_y
    return mixed if linear else mixed / 255


def _within(place: Float32[np.ndarray, " P"], wrap: Wrap) -> Float32[np.ndarray, " P"]:
    """A coordinate brought into [0, 1]."""
    if wrap == "repeat":
        return place % 1
    if wrap == "clamp":
        return np.clip(place, 0, 1)
    return 1 - np.abs(place % 2 - 1)


def _index(index: np.ndarray, size: int, wrap: Wrap) -> np.ndarray:
    return index % size if wrap == "repeat" else np.clip(index, 0, size - 1)
