"""Outlines of the kinds of drawn things, about as large as the unit circle, with x to the right and y down.

The corners of an hourglass lie 1.18 from the centre, those of a cross 1.07, and a heart reaches 1.05.

Chosen to be told apart at 15 pixels, whatever way they are turned.

Shape legend: P points of a contour, 2 their (x, y).
"""

import math

import numpy as np
from jaxtyping import Float32

Contour = Float32[np.ndarray, "P 2"]


def _points(*points: tuple[float, float]) -> Contour:
    return np.array(points, np.float32)


def _polar(radii: list[float], start: float = -math.pi / 2) -> Contour:
    """A polygon whose corners have these distances from the centre, at equal angles."""
    angles = start + 2 * math.pi * np.arange(len(radii)) / len(radii)
    return (np.stack([np.cos(angles), np.sin(angles)], -1) * np.array(radii)[:, None]).astype(
        np.float32
    )


def _circle(radius: float) -> Contour:
    return _polar([radius] * 40)


def _moon() -> Contour:
    """What a circle leaves of another one when it covers its right side."""
    # Both pass through (c, +-s), the tips; the inner one's centre lies to the right by d.
    tip, d = math.radians(52), 0.62
    c, s = math.cos(tip), math.sin(tip)
    inner = math.hypot(c - d, s)
    outer_angles = np.linspace(tip, 2 * math.pi - tip, 30)
    inner_tip = math.atan2(s, c - d)
    inner_angles = np.linspace(2 * math.pi - inner_tip, inner_tip, 24)
    outer = np.stack([np.cos(outer_angles), np.sin(outer_angles)], -1)
    hollow = np.stack([d + inner * np.cos(inner_angles), inner * np.sin(inner_angles)], -1)
    return np.concatenate([outer, hollow]).astype(np.float32)


def _heart() -> Contour:
    t = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return (np.stack([x, y - 2], -1) / 17).astype(np.float32)


_A = 0.36  # half the width of a cross's arm

# Where contours of one kind overlap there is a hole. The order gives the class ids; the first is 1.
OUTLINES: dict[str, tuple[Contour, ...]] = {
    "disc": (_circle(0.9),),
    "square": (_polar([1.0] * 4, -math.pi / 4) * np.float32(0.95),),
    "triangle": (_polar([1.0] * 3),),
    "star": (_polar([1.0, 0.42] * 5),),
    "ring": (_circle(0.95), _circle(0.5)),
    "cross": (
        _points(
            *((-_A, -1), (_A, -1), (_A, -_A), (1, -_A), (1, _A), (_A, _A)),
            *((_A, 1), (-_A, 1), (-_A, _A), (-1, _A), (-1, -_A), (-_A, -_A)),
        ),
    ),
    "moon": (_moon(),),
    "arrow": (
        _points(
            *((0, -1), (0.8, -0.1), (0.3, -0.1), (0.3, 0.95), (-0.3, 0.95), (-0.3, -0.1)),
            (-0.8, -0.1),
        ),
    ),
    "heart": (_heart(),),
    "hourglass": (
        _points((-0.75, -0.9), (0.75, -0.9), (0.16, 0), (0.75, 0.9), (-0.75, 0.9), (-0.16, 0)),
    ),
}
CLASS_IDS = {kind: i + 1 for i, kind in enumerate(OUTLINES)}
