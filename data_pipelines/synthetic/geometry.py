"""What a scene is made of: solids, bodies, background, camera; and how solids are placed in the world.

World axes: x right, y away, z up; the floor is z = 0. Shape legend: P points; 3 coordinates, or 3 landmarks.
"""

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from data_pipelines.synthetic.shapes import INTERSECT, Shape

Pattern = Literal["solid", "stripes", "rings", "checker"]
Colour = tuple[float, float, float]  # RGB in [0, 1]
Vector = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Solid:
    """A solid: the unit shape in [-1, 1]^3, scaled, then turned about z, then moved.

    Attributes:
      shape: cylinder, cone and pyramid stand along z; the wedge is a gable roof along x.
      centre: in its object's frame.
      scale: half sizes along the shape's own three axes.
      colour, colour2: of the pattern's two phases.
      pattern: `stripes` run along z, `rings` around it, `checker` both.
      frequency: number of phases over the whole shape.
      axis: the object's axis along which the shape's own z lies.
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
    """An object: solids that share one instance id.

    Attributes:
      kind: its class, such as "tree".
      solids: in the object's frame; it stands on z = 0.
      position: of that frame's origin.
      yaw: rotation about z, radians.
      size: scale of the whole object.
    """

    kind: str
    solids: tuple[Solid, ...]
    position: Vector = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    size: float = 1.0


@dataclasses.dataclass(frozen=True)
class Background:
    """What is behind the objects.

    Attributes:
      kind: "outdoor" has a floor and a sky, "room" a floor and four walls, "plain" only a colour.
      floor, floor2: the two colours of the floor's tiles.
      wall, wall2: the sky at the horizon and above; the walls facing x and y; the plain colour below and above.
      tile: side of a floor tile.
      half_size: half the room's side.
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
    """A pinhole camera for square pictures; `field_of_view` is the full vertical angle in degrees."""

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


_AXES = {  # columns: where the shape's own x, y, z point in the object's frame
    "x": np.array([(0, 0, 1), (1, 0, 0), (0, 1, 0)], np.float32),
    "y": np.array([(0, 1, 0), (0, 0, 1), (1, 0, 0)], np.float32),
    "z": np.eye(3, dtype=np.float32),
}


@dataclasses.dataclass(frozen=True)
class PlacedSolid:
    """A solid placed in the world: local = (world - centre) @ to_local."""

    solid: Solid
    centre: np.ndarray
    to_local: np.ndarray
    normal_to_world: np.ndarray
    radius: float  # of a sphere around it
    body: int

    def rays(self, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rays in the solid's own frame. An affine map keeps their parameter t, so hits need no conversion back."""
        return (origin - self.centre) @ self.to_local, direction @ self.to_local

    def hits(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Ray parameter of the nearest surface, inf for a miss."""
        return INTERSECT[self.solid.shape](*self.rays(origin, direction))


def place(solid: Solid, body: Body, index: int) -> PlacedSolid:
    """A solid of the scene's body number `index`, placed in the world."""
    cos, sin = math.cos(body.yaw), math.sin(body.yaw)
    turn = np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)], np.float32)
    columns = turn @ _AXES[solid.axis]
    scale = np.asarray(solid.scale, np.float32) * body.size
    centre = np.asarray(body.position, np.float32) + body.size * (
        turn @ np.asarray(solid.centre, np.float32)
    )
    to_local = columns / scale  # x_local = ((x - c) . column) / scale
    # As far as the corner of its bounding box; a sphere reaches only as far as its longest half axis.
    bound = np.linalg.norm(scale) if solid.shape != "sphere" else scale.max()
    # Normals map by the inverse transpose of local-to-world, which is the transpose of to_local.
    return PlacedSolid(solid, centre, to_local, to_local.T.copy(), float(bound), index)


def body_height(body: Body) -> float:
    """Height of the body's top above its foot, in world units."""
    return body.size * max(solid.centre[2] + _extent_z(solid) for solid in body.solids)


def body_reach(body: Body) -> float:
    """Radius of the vertical cylinder around the body's axis that holds all of it, in world units."""
    return body.size * max(math.hypot(*solid.centre[:2]) + _reach(solid) for solid in body.solids)


def landmarks(body: Body) -> Float[np.ndarray, "3 3"]:
    """Top, centre and foot of a body, a row each, in world coordinates."""
    height = body_height(body)
    return np.asarray(body.position) + np.array([(0, 0, height), (0, 0, height / 2), (0, 0, 0)])


def _extent_z(solid: Solid) -> float:
    return solid.scale["xyz".index(_object_axis_of(solid.axis, 2))]


def _reach(solid: Solid) -> float:
    along = [solid.scale["xyz".index(_object_axis_of(solid.axis, i))] for i in range(2)]
    return math.hypot(*along) if solid.shape in ("box", "pyramid", "wedge") else max(along)


def _object_axis_of(axis: str, i: int) -> str:
    """The axis of the shape that points along the object's i-th axis."""
    return "xyz"[int(_AXES[axis][i].argmax())]
