"""A small ray caster in NumPy: images of simple objects with exact annotations.

Every shape is a unit solid under an affine map, so a ray keeps its parameter t in the solid's own frame. Camera rays
have unit length along the viewing axis: t *is* the depth. World axes: x right, y away, z up; the floor is z = 0.

Suffixes: H, W pixels of the (supersampled) picture; P points; 3 coordinates.
"""

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from data_pipelines.synthetic.shapes import INTERSECT, Shape, dot, local_normals, unit

Pattern = Literal["solid", "stripes", "rings", "checker"]
Colour = tuple[float, float, float]  # RGB in [0, 1]
Vector = tuple[float, float, float]
SUPERSAMPLING = 2  # rays a pixel and axis
_SHADOW = 0.6  # brightness of the floor where the sun does not reach it
_SHADOW_DEPTH = 14.0  # farther shadows are not looked for


@dataclasses.dataclass(frozen=True)
class Part:
    """A solid: the unit shape in [-1, 1]^3, scaled, then turned about z, then moved.

    Attributes:
      shape: the cylinder, the cone and the pyramid stand along z; the wedge is a gable roof along x.
      centre: in the frame of its object.
      scale: half sizes along the three axes.
      colour, colour2: of the pattern's two phases.
      pattern: `stripes` run along z, `rings` around it, `checker` both.
      frequency: phases over the whole shape.
      axis: which of the object's axes the shape's own z lies along.
    """

    shape: Shape
    centre: Vector
    scale: Vector
    colour: Colour
    colour2: Colour = (1.0, 1.0, 1.0)
    pattern: Pattern = "solid"
    frequency: float = 4.0
    axis: Literal["x", "y", "z"] = "z"


@dataclasses.dataclass(frozen=True)
class Body:
    """An object: parts that share one instance id.

    Attributes:
      kind: its class, such as "tree".
      parts: in the object's frame, which stands on z = 0.
      position: where that frame's origin is.
      yaw: turn about z, radians.
      size: scale of the whole object.
    """

    kind: str
    parts: tuple[Part, ...]
    position: Vector = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    size: float = 1.0


@dataclasses.dataclass(frozen=True)
class Background:
    """What is behind the objects.

    Attributes:
      kind: "outdoor" has a floor and a sky, "room" a floor and four walls, "plain" nothing but a colour.
      floor, floor2: the two colours of the floor's tiles.
      wall, wall2: the sky at the horizon and above; the walls facing x and y; the plain colour below and above.
      tile: side of a floor tile.
      half_size: of the room.
    """

    kind: Literal["outdoor", "room", "plain"]
    floor: Colour = (0.6, 0.6, 0.6)
    floor2: Colour = (0.5, 0.5, 0.5)
    wall: Colour = (0.8, 0.8, 0.8)
    wall2: Colour = (0.8, 0.8, 0.8)
    tile: float = 1.0
    half_size: float = 7.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects, background and the direction towards the sun (unit length, z > 0)."""

    bodies: tuple[Body, ...]
    background: Background
    sun: Vector = (0.43, -0.52, 0.74)


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera; `field_of_view` is the whole vertical angle in degrees. The picture is square."""

    position: Vector
    target: Vector
    field_of_view: float = 40.0

    @functools.cached_property
    def axes(self) -> Float32[np.ndarray, "3 3"]:
        """Rows: right, up, forward (world coordinates)."""
        forward = np.subtract(self.target, self.position)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(right, forward), forward]).astype(np.float32)

    def project(self, points: Float[np.ndarray, "P 3"], size: int) -> Float[np.ndarray, "P 2"]:
        """World points -> (x, y) in pixels of a picture of `size`; (0, 0) is its upper left corner."""
        x, y, z = ((points - np.asarray(self.position)) @ self.axes.T).T
        half = math.tan(math.radians(self.field_of_view) / 2)
        return np.stack([x / z / half + 1, 1 - y / z / half], axis=-1) * (size / 2)


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture and the truth about it.

    `segmentation`, `depth` and `normals` are those of one ray a pixel, the upper left of its supersamples.

    Attributes:
      image: uint8 RGB.
      segmentation: instance ids; 0 is background, i + 1 is `scene.bodies[i]`.
      depth: along the viewing axis, in world units; inf where a ray meets nothing.
      normals: unit, in the camera's frame (x right, y up, z towards the viewer); 0 where a ray meets nothing.
      boxes: x0, y0, x1, y1 in pixels of what is visible of each body; NaN where nothing is.
      keypoints: top, centre and foot of each body as (x, y) in pixels, whether visible or hidden.
      kinds: class of each body.
    """

    image: UInt8[np.ndarray, "H W 3"]
    segmentation: Int32[np.ndarray, "H W"]
    depth: Float32[np.ndarray, "H W"]
    normals: Float32[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "bodies 4"]
    keypoints: Float32[np.ndarray, "bodies 3 2"]
    kinds: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Solid:
    """A part placed in the world: local = (world - centre) @ to_local."""

    part: Part
    centre: np.ndarray
    to_local: np.ndarray
    normal_to_world: np.ndarray
    radius: float  # of a sphere around it
    body: int

    def rays(self, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (origin - self.centre) @ self.to_local, direction @ self.to_local

    def hits(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Ray parameter of the nearest surface, inf for a miss."""
        return INTERSECT[self.part.shape](*self.rays(origin, direction))


def render(scene: Scene, camera: Camera, size: int = 64) -> Frame:
    """Renders `scene` as a square picture of `size` pixels with all its annotations."""
    solids = [_place(part, body, i) for i, body in enumerate(scene.bodies) for part in body.parts]
    origin = np.asarray(camera.position, np.float32)
    rays_HW3 = _camera_rays(camera, size * SUPERSAMPLING)
    depth_HW, solid_HW = _visibility(solids, camera, origin, rays_HW3)
    depth_HW, colour_HW3, normal_HW3 = _background(scene, origin, rays_HW3, depth_HW, solid_HW)
    _shadows(solids, scene, origin, rays_HW3, depth_HW, solid_HW, colour_HW3)
    _surfaces(solids, scene, origin, rays_HW3, depth_HW, solid_HW, colour_HW3, normal_HW3)

    body_of = np.array([0, *(solid.body + 1 for solid in solids)], np.int32)
    instance_HW = body_of[solid_HW + 1]
    s = SUPERSAMPLING
    fine = np.clip(colour_HW3, 0, 1)
    small = sum(fine[i::s, j::s] for i in range(s) for j in range(s)) * np.float32(255 / s**2)
    to_view = camera.axes.T * np.array([1, 1, -1], np.float32)
    return Frame(
        image=np.round(small).astype(np.uint8),
        segmentation=instance_HW[::s, ::s].copy(),
        depth=depth_HW[::s, ::s].copy(),
        normals=normal_HW3[::s, ::s] @ to_view,
        boxes=_boxes(instance_HW, len(scene.bodies)) / s,
        keypoints=np.array(
            [camera.project(_landmarks(body), size) for body in scene.bodies], np.float32
        ).reshape(-1, 3, 2),
        kinds=tuple(body.kind for body in scene.bodies),
    )


def body_height(body: Body) -> float:
    """Height of the body's top above its foot, world units."""
    return body.size * max(part.centre[2] + _extent_z(part) for part in body.parts)


def body_reach(body: Body) -> float:
    """Radius of a vertical cylinder around the body's axis that holds all of it, world units."""
    return body.size * max(math.hypot(*part.centre[:2]) + _reach(part) for part in body.parts)


# Placing, visibility, shading.

_AXES = {  # columns: where the shape's own x, y, z point in the object's frame
    "x": np.array([(0, 0, 1), (1, 0, 0), (0, 1, 0)], np.float32),
    "y": np.array([(0, 1, 0), (0, 0, 1), (1, 0, 0)], np.float32),
    "z": np.eye(3, dtype=np.float32),
}


def _place(part: Part, body: Body, index: int) -> _Solid:
    cos, sin = math.cos(body.yaw), math.sin(body.yaw)
    turn = np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)], np.float32)
    columns = turn @ _AXES[part.axis]
    scale = np.asarray(part.scale, np.float32) * body.size
    centre = np.asarray(body.position, np.float32) + body.size * (
        turn @ np.asarray(part.centre, np.float32)
    )
    to_local = columns / scale  # x_local = ((x - c) . column) / scale
    bound = np.linalg.norm(scale) if part.shape != "sphere" else scale.max()
    return _Solid(part, centre, to_local, to_local.T.copy(), float(bound), index)


def _camera_rays(camera: Camera, size: int) -> Float32[np.ndarray, "H W 3"]:
    half = math.tan(math.radians(camera.field_of_view) / 2)
    at = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * np.float32(half)
    right, up, forward = camera.axes
    return forward + at[None, :, None] * right - at[:, None, None] * up


def _visibility(
    solids: list[_Solid], camera: Camera, origin: np.ndarray, rays_HW3: np.ndarray
) -> tuple[Float32[np.ndarray, "H W"], Int32[np.ndarray, "H W"]]:
    """Depth and index of the nearest solid at each ray; inf and -1 where there is none."""
    size = rays_HW3.shape[0]
    depth_HW = np.full((size, size), np.inf, np.float32)
    solid_HW = np.full((size, size), -1, np.int32)
    for index, solid in enumerate(solids):
        window = _window(solid, camera, size)
        t = solid.hits(origin, rays_HW3[window])
        nearer = t < depth_HW[window]
        depth_HW[window][nearer] = t[nearer]
        solid_HW[window][nearer] = index
    return depth_HW, solid_HW


def _window(solid: _Solid, camera: Camera, size: int) -> tuple[slice, slice]:
    """Rows and columns that the solid's bounding sphere can cover; all of them when the camera is close."""
    x, y, z = camera.axes @ (solid.centre - np.asarray(camera.position, np.float32))
    if z <= solid.radius * 1.05:
        return slice(0, size), slice(0, size)
    half = math.tan(math.radians(camera.field_of_view) / 2)
    slices = []
    for across in (-y, x):
        # The sphere's two tangents in the plane of this axis and the viewing axis.
        angle = math.atan2(across, z)
        spread = math.asin(min(1.0, solid.radius / math.hypot(across, z)))
        low, high = (
            (math.tan(angle + sign * spread) / half + 1) * size / 2
            if abs(angle + sign * spread) < 1.5
            else sign * size * 10.0
            for sign in (-1, 1)
        )
        slices.append(slice(max(0, math.floor(low)), max(0, min(size, math.ceil(high) + 1))))
    return slices[0], slices[1]


def _background(
    scene: Scene,
    origin: np.ndarray,
    rays_HW3: np.ndarray,
    depth_HW: np.ndarray,
    solid_HW: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns depth, colour and normals with the background filled in behind the solids."""
    background = scene.background
    empty = solid_HW < 0
    depth_HW, normal_HW3 = depth_HW.copy(), np.zeros_like(rays_HW3)
    low, high = (np.asarray(c, np.float32) for c in (background.wall, background.wall2))
    if background.kind == "plain":
        height_HW = np.linspace(1, 0, rays_HW3.shape[0], dtype=np.float32)[:, None]
    else:
        height_HW = np.clip(rays_HW3[..., 2] * 2.2, 0, 1)
    colour_HW3 = low + height_HW[..., None] * (high - low) + np.zeros_like(rays_HW3)
    if background.kind == "room":
        walls_t, walls_normal, walls_colour = _walls(background, origin, rays_HW3[empty])
        depth_HW[empty], normal_HW3[empty], colour_HW3[empty] = walls_t, walls_normal, walls_colour
    if background.kind == "plain" or origin[2] <= 0:
        return depth_HW, colour_HW3, normal_HW3

    rows, columns = np.nonzero(empty & (rays_HW3[..., 2] < -1e-4))
    rays_P3 = rays_HW3[rows, columns]
    t = -origin[2] / rays_P3[:, 2]
    nearer = t < depth_HW[rows, columns]
    rows, columns, t, rays_P3 = rows[nearer], columns[nearer], t[nearer], rays_P3[nearer]
    colour_HW3[rows, columns] = _floor(background, origin[:2] + t[:, None] * rays_P3[:, :2], t)
    normal_HW3[rows, columns] = (0, 0, 1)
    depth_HW[rows, columns] = t
    return depth_HW, colour_HW3, normal_HW3


def _walls(
    background: Background, origin: np.ndarray, rays_P3: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, normal and colour of the room's walls at each ray."""
    xy = np.where(np.abs(rays_P3[:, :2]) < 1e-6, np.float32(1e-6), rays_P3[:, :2])
    t_x, t_y = ((np.copysign(background.half_size, xy) - origin[:2]) / xy).astype(np.float32).T
    faces_y = t_y < t_x
    normal_P3 = np.zeros_like(rays_P3)
    normal_P3[:, 0] = np.where(faces_y, 0, -np.sign(xy[:, 0]))
    normal_P3[:, 1] = np.where(faces_y, -np.sign(xy[:, 1]), 0)
    colour_P3 = np.where(faces_y[:, None], background.wall2, background.wall)
    return np.minimum(t_x, t_y), normal_P3, colour_P3


def _floor(background: Background, at_P2: np.ndarray, depth_P: np.ndarray) -> np.ndarray:
    """Colour of the tiles at points of the floor; far tiles, smaller than a pixel, take their mean."""
    tile = np.floor(at_P2 / background.tile).astype(np.int32)
    odd = ((tile[:, 0] + tile[:, 1]) & 1).astype(np.float32)
    contrast = np.clip(1.6 - depth_P / 8, 0, 1)
    floor, floor2, horizon = (
        np.asarray(c, np.float32) for c in (background.floor, background.floor2, background.wall)
    )
    colour_P3 = floor + (0.5 + (odd - 0.5) * contrast)[:, None] * (floor2 - floor)
    if background.kind == "outdoor":
        colour_P3 += np.clip((depth_P - 9) / 22, 0, 1)[:, None] * (horizon - colour_P3)  # haze
    return colour_P3


def _shadows(
    solids: list[_Solid],
    scene: Scene,
    origin: np.ndarray,
    rays_HW3: np.ndarray,
    depth_HW: np.ndarray,
    solid_HW: np.ndarray,
    colour_HW3: np.ndarray,
) -> None:
    """Darkens the floor where a solid stands between it and the sun."""
    if scene.background.kind == "plain":
        return
    sun = np.asarray(scene.sun, np.float32)
    floor_HW = (solid_HW < 0) & (depth_HW < _SHADOW_DEPTH) & (rays_HW3[..., 2] < -1e-4)
    rows, columns = np.nonzero(floor_HW)
    x, y, z = (origin + depth_HW[rows, columns][:, None] * rays_HW3[rows, columns]).T
    dark = np.abs(z) > 1e-3  # a wall: not the floor
    on_wall = dark.copy()
    for solid in solids:
        # Only points of the floor in the shadow of the solid's bounding sphere are worth a ray.
        foot = solid.centre - sun * (solid.centre[2] / sun[2])
        near = np.abs(x - foot[0]) < solid.radius / sun[2]
        near &= (np.abs(y - foot[1]) < solid.radius / sun[2]) & ~dark
        points_P3 = np.stack([x[near], y[near], z[near]], -1)
        dark[near] = np.isfinite(solid.hits(points_P3, sun))
    dark &= ~on_wall
    colour_HW3[rows[dark], columns[dark]] *= _SHADOW


def _surfaces(
    solids: list[_Solid],
    scene: Scene,
    origin: np.ndarray,
    rays_HW3: np.ndarray,
    depth_HW: np.ndarray,
    solid_HW: np.ndarray,
    colour_HW3: np.ndarray,
    normal_HW3: np.ndarray,
) -> None:
    """Shades the visible points of each solid: pattern, sky light, sun, a small highlight."""
    sun = np.asarray(scene.sun, np.float32)
    # A plain background is a studio: softer light, so that the far side of a turntable is not dark.
    ambient, sunlight = (0.62, 0.46) if scene.background.kind == "plain" else (0.46, 0.62)
    for index in np.unique(solid_HW[solid_HW >= 0]):
        solid = solids[index]
        rows, columns = np.nonzero(solid_HW == index)
        rays_P3 = rays_HW3[rows, columns]
        o, d = solid.rays(origin, rays_P3)
        local_P3 = o + depth_HW[rows, columns][:, None] * d
        normal_P3 = local_normals(solid.part.shape, local_P3) @ solid.normal_to_world
        normal_P3 = unit(normal_P3)
        half_P3 = unit(sun - unit(rays_P3))
        direct = np.clip(normal_P3 @ sun, 0, 1)
        sky = ambient + 0.14 * normal_P3[:, 2]
        shine = 0.28 * np.clip(dot(normal_P3, half_P3), 0, 1) ** 24 * (direct > 0)
        albedo_P3 = _pattern(solid.part, local_P3)
        colour_HW3[rows, columns] = albedo_P3 * (sky + sunlight * direct)[:, None] + shine[:, None]
        normal_HW3[rows, columns] = normal_P3


def _pattern(part: Part, local_P3: np.ndarray) -> np.ndarray:
    first, second = np.asarray(part.colour, np.float32), np.asarray(part.colour2, np.float32)
    if part.pattern == "solid":
        return np.broadcast_to(first, local_P3.shape)
    rings = np.floor((local_P3[:, 2] * 0.999 + 1) / 2 * part.frequency)
    if part.shape in ("box", "wedge", "pyramid"):
        stripes = np.floor((local_P3[:, 0] * 0.999 + 1) / 2 * part.frequency)
        stripes += np.floor((local_P3[:, 1] * 0.999 + 1) / 2 * part.frequency)
    else:
        turn = np.arctan2(local_P3[:, 1], local_P3[:, 0]) / (2 * np.pi) + 0.5
        stripes = np.floor(turn * 0.9999 * 2 * round(part.frequency))
    phase = {"rings": rings, "stripes": stripes, "checker": rings + stripes}[part.pattern]
    odd = phase.astype(np.int32) & 1 == 1
    return np.where(odd[:, None], second, first)


def _boxes(instance_HW: np.ndarray, n_bodies: int) -> Float32[np.ndarray, "bodies 4"]:
    boxes = np.full((n_bodies, 4), np.nan, np.float32)
    for i in range(n_bodies):
        mask = instance_HW == i + 1
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _landmarks(body: Body) -> Float[np.ndarray, "3 3"]:
    height = body_height(body)
    return np.asarray(body.position) + np.array([(0, 0, height), (0, 0, height / 2), (0, 0, 0)])


def _extent_z(part: Part) -> float:
    return part.scale["xyz".index(_object_axis_of(part.axis, 2))]


def _reach(part: Part) -> float:
    along = [part.scale["xyz".index(_object_axis_of(part.axis, i))] for i in range(2)]
    return math.hypot(*along) if part.shape in ("box", "pyramid", "wedge") else max(along)


def _object_axis_of(axis: str, i: int) -> str:
    """Which of the shape's axes points along the object's i-th axis."""
    return "xyz"[int(_AXES[axis][i].argmax())]
