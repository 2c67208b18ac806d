"""Draws simple scenes with exact annotations by the hundreds a second: flat things before a textured ground.

Things are outlines, filled far to near at twice the size. What a pixel shows decides its numbers; so depth, direction
and light of the whole picture are a few operations on arrays, whatever the number of things.

A thing is a shallow bowl, open side away from the viewer, tilted a little: its depth at (u, v), in world units from
its centre, is z + a u + b v + c (u^2 + v^2) / 2, and its normal follows exactly. The ground is a tilted plane.

World axes: x right, y down, z away from the viewer; the picture is `WORLD` units wide. Shape legend: H, W pixels, in
suffixes of the picture of twice the size; N things; 3 coordinates, channels or keypoints.
"""

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_pipelines.synthetic.outlines import OUTLINES, Contour
from data_pipelines.synthetic.renderer import Frame

SUPERSAMPLING = 2
WORLD = 2.0
NEAREST, FARTHEST = 3.4, 7.2  # depths of the centres of things
MIN_GAP = (
    0.6  # between the depths of two things' centres; more than any thing's own extent in depth
)
GROUND = (8.3, 9.7)  # depth of the ground at the picture's lower and upper edge
_HAZE = 0.55  # share of the haze in a colour at the far end
_AMBIENT, _BRIGHT = 0.5, 1.15  # light on a surface that faces away, and on one that faces the light
_SHADOW = 0.55  # what a shadow leaves of the ground's light
_SHIFT = 4  # fractional bits of OpenCV's fixed point

# 1 + the number of the thing that each pixel shows; 0 is the ground.
Instances = UInt8[np.ndarray, "H W"]


@dataclasses.dataclass(frozen=True)
class Thing:
    """A thing to draw.

    Attributes:
      kind: a key of `OUTLINES`.
      colour: RGB in [0, 1].
      x, y: its centre, as fractions of the picture's side.
      radius: of the unit circle of its outline, the same unit; see `outlines` for how far corners reach beyond.
      turn: radians, clockwise.
      depth: of its centre, in world units.
      tilt: (a, b), the slopes of its depth along x and y.
      rim: the slope of its depth at its rim, from bending.
      stripes: how much darker every other stripe is, in [0, 1].
    """

    kind: str
    colour: tuple[float, float, float]
    x: float
    y: float
    radius: float
    turn: float
    depth: float
    tilt: tuple[float, float] = (0.0, 0.0)
    rim: float = 0.0
    stripes: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """A scene to draw.

    Attributes:
      things: nearer ones cover farther ones.
      ground: what is behind them, at twice the picture's size.
      light: unit vector towards it: x right, y up, z towards the viewer.
      haze: the grey in [0, 1] to which far things fade; grey, so that it changes no hue.
      shadows: whether things darken the ground beside them.
    """

    things: tuple[Thing, ...]
    ground: UInt8[np.ndarray, "H W 3"]
    light: tuple[float, float, float]
    haze: float
    shadows: bool = True


def draw(drawing: Drawing, size: int) -> Frame:
    """The picture of `size` pixels with all its annotations; see `Frame`.

    Things are numbered in the order of `drawing.things`. Keypoints are the highest point of a thing's outline, its
    centre and its lowest point, visible or not.
    """
    things = drawing.things
    outlines = [_outline(thing, size * SUPERSAMPLING) for thing in things]
    seen_HW = _instances(things, outlines, size * SUPERSAMPLING)
    surface = _surfaces(things)
    fine = _at_pixels(surface, seen_HW)
    image_HW3 = _paint(drawing, surface, fine, seen_HW)
    s = SUPERSAMPLING
    # One sample a pixel: an average of ids or of depths across an edge would be false.
    few_HW = np.ascontiguousarray(seen_HW[::s, ::s])
    depth_HW = fine.depth_HW[::s, ::s].copy()
    normals_HW3 = np.stack([part[::s, ::s] for part in fine.normal_3HW], axis=-1)
    return Frame(
        image=cv2.resize(image_HW3, (size, size), interpolation=cv2.INTER_AREA),
        segmentation=few_HW.astype(np.int32),
        depth=depth_HW,
        normals=normals_HW3,
        boxes=_boxes(few_HW, len(things)),
        keypoints=np.array([_landmarks(t, o, size) for t, o in zip(things, outlines, strict=True)])
        .astype(np.float32)
        .reshape(-1, 3, 2),
        kinds=tuple(thing.kind for thing in things),
    )


def _outline(thing: Thing, side: int) -> list[Contour]:
    """Its contours in pixels of a picture of `side`; (0, 0) is the upper left corner."""
    cosine, sine = math.cos(thing.turn), math.sin(thing.turn)
    turned = np.array([[cosine, sine], [-sine, cosine]], np.float32) * np.float32(
        thing.radius * side
    )
    centre = np.array([thing.x * side, thing.y * side], np.float32)
    return [contour @ turned + centre for contour in OUTLINES[thing.kind]]


def _instances(things: tuple[Thing, ...], outlines: list[list[Contour]], side: int) -> Instances:
    seen_HW = np.zeros((side, side), np.uint8)
    for i in sorted(range(len(things)), key=lambda i: -things[i].depth):
        # OpenCV's pixel centres are whole numbers.
        fixed = [np.round((c - 0.5) * (1 << _SHIFT)).astype(np.int32) for c in outlines[i]]
        cv2.fillPoly(seen_HW, fixed, i + 1, cv2.LINE_8, _SHIFT)
    return seen_HW


class _Surfaces(NamedTuple):
    """The numbers of each surface, the ground first.

    Attributes:
      x, y, depth: of its centre, in world units.
      a, b, c: see the module.
      stripes: as in `Thing`; `fx`, `fy` turn (u, v) into a phase.
    """

    x: Float32[np.ndarray, " N"]
    y: Float32[np.ndarray, " N"]
    depth: Float32[np.ndarray, " N"]
    a: Float32[np.ndarray, " N"]
    b: Float32[np.ndarray, " N"]
    c: Float32[np.ndarray, " N"]
    fx: Float32[np.ndarray, " N"]
    fy: Float32[np.ndarray, " N"]
    stripes: Float32[np.ndarray, " N"]


def _surfaces(things: tuple[Thing, ...]) -> _Surfaces:
    low, high = GROUND
    rows = [(WORLD / 2, WORLD / 2, (low + high) / 2, 0.0, (low - high) / WORLD, *(0.0,) * 4)]
    for thing in things:
        reach = thing.radius * WORLD
        # Two and a half periods across the thing.
        waves = 2.5 * math.pi / reach
        rows.append(
            (
                *(thing.x * WORLD, thing.y * WORLD, thing.depth, *thing.tilt, thing.rim / reach),
                *(waves * math.cos(thing.turn), waves * math.sin(thing.turn), thing.stripes),
            )
        )
    return _Surfaces(*np.array(rows, np.float32).T)


class _Pixels(NamedTuple):
    """What each pixel's surface has there; normals as in `Frame`."""

    depth_HW: Float32[np.ndarray, "H W"]
    normal_3HW: tuple[np.ndarray, np.ndarray, np.ndarray]
    u_HW: Float32[np.ndarray, "H W"]
    v_HW: Float32[np.ndarray, "H W"]


def _of(numbers_N: Float32[np.ndarray, " N"], seen_HW: Instances) -> Float32[np.ndarray, "H W"]:
    """The number of the surface that each pixel shows."""
    # OpenCV's table of all 256 values of a byte is three times as fast as NumPy's indexing.
    table = np.zeros(256, np.float32)
    table[: len(numbers_N)] = numbers_N
    return cv2.LUT(seen_HW, table)


def _at_pixels(surface: _Surfaces, seen_HW: Instances) -> _Pixels:
    side = len(seen_HW)
    # Centres of the pixels.
    along = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(WORLD / side)
    u_HW = along[None, :] - _of(surface.x, seen_HW)
    v_HW = along[:, None] - _of(surface.y, seen_HW)
    a_HW, b_HW, c_HW = (_of(part, seen_HW) for part in (surface.a, surface.b, surface.c))
    bend_u, bend_v = c_HW * u_HW, c_HW * v_HW
    depth_HW = u_HW * (a_HW + 0.5 * bend_u) + v_HW * (b_HW + 0.5 * bend_v)
    depth_HW += _of(surface.depth, seen_HW)
    slope_u, slope_v = a_HW + bend_u, b_HW + bend_v
    z_HW = 1 / np.sqrt(slope_u * slope_u + slope_v * slope_v + 1)
    # The frame of normals has y up.
    return _Pixels(depth_HW, (slope_u * z_HW, -slope_v * z_HW, z_HW), u_HW, v_HW)


def _paint(
    drawing: Drawing, surface: _Surfaces, pixels: _Pixels, seen_HW: Instances
) -> UInt8[np.ndarray, "H W 3"]:
    x, y, z = (np.float32(part) for part in drawing.light)
    n_x, n_y, n_z = pixels.normal_3HW
    light_HW = _AMBIENT + (_BRIGHT - _AMBIENT) * np.maximum(x * n_x + y * n_y + z * n_z, 0)
    if surface.stripes.any():
        phase_HW = _of(surface.fx, seen_HW) * pixels.u_HW + _of(surface.fy, seen_HW) * pixels.v_HW
        light_HW *= 1 - _of(surface.stripes, seen_HW) * (np.sin(phase_HW) > 0)
    # A thing fades as a whole: its colour is a sum of its own, lit, and of the haze.
    share_N = (surface.depth - NEAREST) / (GROUND[1] - NEAREST) * _HAZE
    own_3N = np.array([(0, 0, 0), *(thing.colour for thing in drawing.things)], np.float32).T
    own_3N *= 255 * (1 - share_N)
    haze_HW = _of(share_N * np.float32(255 * drawing.haze), seen_HW)
    planes = [_of(own_N, seen_HW) * light_HW + haze_HW for own_N in own_3N]
    image_HW3 = cv2.convertScaleAbs(cv2.merge(planes))
    is_ground_HW = (seen_HW == 0).view(np.uint8)
    ground_HW3 = _shaded(drawing, is_ground_HW) if drawing.shadows else drawing.ground
    return cv2.copyTo(ground_HW3, is_ground_HW, image_HW3)


def _shaded(drawing: Drawing, is_ground_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """The ground under the soft shadow of all things; `is_ground_HW` is 1 or 0."""
    side = len(is_ground_HW)
    shadow_HW = (1 - is_ground_HW) * np.uint8(round(255 * (1 - _SHADOW)))
    # Away from the light.
    x, y = 0.06 * side * drawing.light[0], 0.06 * side * drawing.light[1]
    along = np.array([[1, 0, -x], [0, 1, y]], np.float32)
    shadow_HW = cv2.warpAffine(shadow_HW, along, (side, side))
    blur = max(3, side // 16 * 2 + 1)
    shadow_HW = cv2.blur(shadow_HW, (blur, blur))
    return cv2.multiply(drawing.ground, cv2.merge([255 - shadow_HW] * 3), scale=1 / 255)


def _boxes(seen_HW: Instances, n_things: int) -> Float32[np.ndarray, "N 4"]:
    """(x0, y0, x1, y1) around each thing's visible part; NaN if it is hidden."""
    boxes_N4 = np.full((n_things, 4), np.nan, np.float32)
    for i in range(n_things):
        x, y, width, height = cv2.boundingRect((seen_HW == i + 1).view(np.uint8))
        if width:
            boxes_N4[i] = x, y, x + width, y + height
    return boxes_N4


def _landmarks(thing: Thing, outline: list[Contour], size: int) -> list[tuple[float, float]]:
    points = outline[0]
    top, foot = points[points[:, 1].argmin()], points[points[:, 1].argmax()]
    return [
        tuple(top / SUPERSAMPLING),
        (thing.x * size, thing.y * size),
        tuple(foot / SUPERSAMPLING),
    ]
