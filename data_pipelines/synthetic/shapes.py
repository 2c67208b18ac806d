"""Unit solids: where rays meet them, and the surface normals there.

A ray is o + t d in the solid's own frame; `o` and `d` end in an axis of 3 and broadcast. The origin is outside.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Shape = Literal["sphere", "box", "cylinder", "cone", "pyramid", "wedge"]
_NEAR_DEPTH = 1e-3


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product along the last axis, by einsum because NumPy is slow at reducing an axis of 3."""
    return np.einsum("...i,...i->...", a, b)


def unit(a: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, scaled to length 1."""
    return a / np.sqrt(dot(a, a))[..., None]


def _solve_quadratic(
    a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots t0 <= t1 of a t^2 + 2 b t + c, and whether they are real."""
    discriminant = b * b - a * c
    real = discriminant > 0
    root = np.sqrt(np.where(real, discriminant, 0))
    a = np.where(
        np.abs(a) < 1e-9, 1e-9, a
    )  # not 0: a ray along the axis gets far roots, and the caps decide
    t0, t1 = (-b - root) / a, (-b + root) / a
    return np.minimum(t0, t1), np.maximum(t0, t1), real


def _slab(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two t between which a ray is within -1 and 1 along one coordinate."""
    inverse = 1 / np.where(np.abs(d) < 1e-9, 1e-9, d)
    t0, t1 = (-1 - o) * inverse, (1 - o) * inverse
    return np.minimum(t0, t1), np.maximum(t0, t1)


def _first(enter: np.ndarray, leave: np.ndarray) -> np.ndarray:
    return np.where((enter < leave) & (enter > _NEAR_DEPTH), enter, np.inf)


def _hit_sphere(o: np.ndarray, d: np.ndarray) -> np.ndarray:
    t0, t1, real = _solve_quadratic(dot(d, d), dot(o, d), dot(o, o) - 1)
    return _first(np.where(real, t0, np.inf), t1)


def _hit_box(o: np.ndarray, d: np.ndarray) -> np.ndarray:
    (x0, x1), (y0, y1), (z0, z1) = (_slab(o[..., i], d[..., i]) for i in range(3))
    return _first(np.maximum(np.maximum(x0, y0), z0), np.minimum(np.minimum(x1, y1), z1))


def _hit_cylinder(o: np.ndarray, d: np.ndarray) -> np.ndarray:
    ox, oy, dx, dy = o[..., 0], o[..., 1], d[..., 0], d[..., 1]
    t0, t1, real = _solve_quadratic(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1)
    z0, z1 = _slab(o[..., 2], d[..., 2])
    return _first(np.where(real, np.maximum(t0, z0), np.inf), np.minimum(t1, z1))


def _hit_cone(o: np.ndarray, d: np.ndarray) -> np.ndarray:
    """x^2 + y^2 <= ((1 - z) / 2)^2 between z = -1 and the apex at z = 1."""
    (ox, oy), (dx, dy) = (o[..., 0], o[..., 1]), (d[..., 0], d[..., 1])
    r, dr = (1 - o[..., 2]) / 2, -d[..., 2] / 2
    a, b, c = dx * dx + dy * dy - dr * dr, ox * dx + oy * dy - r * dr, ox * ox + oy * oy - r * r
    t0, t1, real = _solve_quadratic(a, b, c)
    z0, z1 = _slab(o[..., 2], d[..., 2])
    between = _first(np.maximum(t0, z0), np.minimum(t1, z1))
    # A steep ray (a < 0) is inside before t0 and after t1, in the two halves of the double cone.
    outside = _first(np.where(z0 < t0, z0, np.maximum(z0, t1)), z1)
    return np.where(real, np.where(a > 0, between, outside), np.inf)


def _hit_polytope(o: np.ndarray, d: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """A point x is inside if normal . x <= offset for all rows (normal, offset) of `planes`."""
    distance = planes[:, 3] - o @ planes[:, :3].T
    speed = d @ planes[:, :3].T
    t = distance / np.where(np.abs(speed) < 1e-9, 1e-9, speed)
    enter = np.where(speed < 0, t, -np.inf).max(-1)
    leave = np.where(speed >= 0, t, np.inf).min(-1)
    return _first(enter, leave)


# Faces of a solid of height 2 over a half base of 1 have the normal (2, 0, 1) / sqrt 5.
_SLOPE = 1 / math.sqrt(5)
PYRAMID = np.array(
    [(2, 0, 1, 1), (-2, 0, 1, 1), (0, 2, 1, 1), (0, -2, 1, 1), (0, 0, -1 / _SLOPE, 1 / _SLOPE)],
    np.float32,
) * np.float32(_SLOPE)
WEDGE = np.array(
    [
        (0, 2 * _SLOPE, _SLOPE, _SLOPE),
        (0, -2 * _SLOPE, _SLOPE, _SLOPE),
        (1, 0, 0, 1),
        (-1, 0, 0, 1),
        (0, 0, -1, 1),
    ],
    np.float32,
)

INTERSECT: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sphere": _hit_sphere,
    "box": _hit_box,
    "cylinder": _hit_cylinder,
    "cone": _hit_cone,
    "pyramid": functools.partial(_hit_polytope, planes=PYRAMID),
    "wedge": functools.partial(_hit_polytope, planes=WEDGE),
}


def local_normals(shape: Shape, p: np.ndarray) -> np.ndarray:
    """Outward normals, not of unit length, at points on the unit solid's surface."""
    if shape == "sphere":
        return p
    if shape == "box":
        axis = np.abs(p).argmax(-1)
        return np.eye(3, dtype=np.float32)[axis] * np.sign(p)
    if shape in ("pyramid", "wedge"):
        planes = PYRAMID if shape == "pyramid" else WEDGE
        return planes[(p @ planes[:, :3].T - planes[:, 3]).argmax(-1), :3]
    side = p.copy()
    # Half the gradient of x^2 + y^2 - r^2, where the cone has r = (1 - z) / 2.
    side[:, 2] = 0 if shape == "cylinder" else (1 - p[:, 2]) / 4
    on_cap = np.abs(p[:, 2]) > 1 - 1e-4 if shape == "cylinder" else p[:, 2] < -1 + 1e-4
    cap = np.zeros_like(p)
    cap[:, 2] = np.sign(p[:, 2])
    return np.where(on_cap[:, None], cap, side)
