"""Grounds of drawn scenes: flat, a gradient, stripes, checks or clouds.

Colours are pale: things are saturated, so that a ground never looks like one.

Shape legend: H, W pixels.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_pipelines.hues import rgb_of

Colours = tuple[Float32[np.ndarray, " 3"], Float32[np.ndarray, " 3"]]


def random_ground(rng: np.random.Generator, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """A square ground of `side` pixels."""
    one, other = _two_colours(rng)
    pattern = _PATTERNS[int(rng.integers(len(_PATTERNS)))]
    share_HW = pattern(rng, side)
    # Three planes: broadcasting over a last axis of 3 takes several times as long.
    planes = [share_HW * (other[i] - one[i]) + one[i] for i in range(3)]
    return cv2.merge(planes).astype(np.uint8)


def _two_colours(rng: np.random.Generator) -> Colours:
    hue, turn, saturation, value, change = rng.random(5)
    value = 0.3 + 0.6 * value
    value2 = value + (0.1 + 0.15 * change) * (1 if value < 0.6 else -1)
    one = rgb_of(360 * hue, 0.3 * saturation, value)
    other = rgb_of(360 * hue + 90 * turn, 0.3 * saturation, value2)
    return np.array(one, np.float32) * 255, np.array(other, np.float32) * 255


def _flat(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "H W"]:
    del rng
    return np.zeros((side, side), np.float32)


def _gradient(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "H W"]:
    across = _across(rng, side)
    return (across - across.min()) / (across.max() - across.min())


def _stripes(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "H W"]:
    waves = rng.uniform(3, 7)
    return (np.sin(2 * math.pi * waves * _across(rng, side)) > 0).astype(np.float32)


def _checks(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "H W"]:
    cells = int(rng.integers(3, 8))
    along = np.arange(side) * cells // side
    return ((along[:, None] + along) % 2).astype(np.float32)


def _clouds(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "H W"]:
    cells = int(rng.integers(4, 12))
    coarse = rng.random((cells, cells), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)


def _across(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "H W"]:
    """How far each pixel lies along a random direction, in sides of the picture."""
    angle = rng.uniform(0, 2 * math.pi)
    along = np.arange(side, dtype=np.float32) / side
    return along[None, :] * np.float32(math.cos(angle)) + along[:, None] * np.float32(
        math.sin(angle)
    )


_PATTERNS = (_flat, _gradient, _stripes, _checks, _clouds)
