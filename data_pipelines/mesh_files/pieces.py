"""What a mesh file is read into, and its way to what the renderer draws.

Suffixes: F triangles, V vertices; 3 corners or coordinates, 2 texture coordinates, 4 RGBA or homogeneous coordinates.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.synthetic.mesh_renderer import AlphaMode, Surface
from data_pipelines.synthetic.textures import Wrap

_CREASE = 0.77  # a corner is sharp if the cosine between its normal and the face's is below this
# A quarter turn about x.
_FROM_Y_UP = np.array([(1, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)], np.float64)
_FARTHEST = 1e150  # coordinates whose squares are numbers too


class BadMesh(ValueError):
    """The file cannot be drawn."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What triangles look like before light falls on them.

    Attributes:
      colours_N4: RGBA in [0, 1], of each vertex, or of each face with `of_faces`.
      of_faces: see `colours_N4`.
      texture: rows from top to bottom, multiplied with the colours; a fourth channel is alpha.
      uv_V2: each vertex's place in the texture, (0, 0) its lower left.
      wrap: of `Surface`, as are `linear`, `alpha` and `cutoff`.
    """

    colours_N4: Float[np.ndarray, "N 4"]
    of_faces: bool = False
    texture: UInt8[np.ndarray, "H W C"] | None = None
    uv_V2: Float[np.ndarray, "V 2"] | None = None
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    linear: bool = False
    alpha: AlphaMode = "opaque"
    cutoff: float = 0.5


@dataclasses.dataclass(frozen=True)
class Piece:
    """Triangles of one look.

    Attributes:
      mesh: a `trimesh.Trimesh`, in its own coordinates.
      place_44: from there to the file's coordinates.
      look: of its vertices and faces.
      flat: whether each face has its own normal, whatever the vertices have.
    """

    mesh: Any
    place_44: Float[np.ndarray, "4 4"]
    look: Look
    flat: bool = False


def surfaces(pieces: list[Piece], up: Literal["y", "z"]) -> list[Surface]:
    """The pieces upright along z, centred, 1 along the longest side.

    All of it in float64 up to here: at the coordinates of a map, float32 has steps of half a metre.

    Raises:
      BadMesh: no triangle, an index or number that is none, or no extent.
    """
    pieces = [piece for piece in pieces if len(piece.mesh.faces)]
    if not pieces:
        raise BadMesh("holds no triangle")
    turn_44 = _FROM_Y_UP if up == "y" else np.eye(4)
    ends = [bounds(piece.mesh, turn_44 @ piece.place_44) for piece in pieces]
    low, high = np.min([e[0] for e in ends], 0), np.max([e[1] for e in ends], 0)
    side = float((high - low).max())
    if side <= 0:
        raise BadMesh("has no extent: all its triangles are in one point")
    to_unit_44 = np.diag((1 / side, 1 / side, 1 / side, 1.0))
    to_unit_44[:3, 3] = -(low / 2 + high / 2) / side
    return [_surface(piece, to_unit_44 @ turn_44 @ piece.place_44) for piece in pieces]


def bounds(
    mesh: Any, place_44: Float[np.ndarray, "4 4"] | None = None
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """The least and the greatest coordinates of a mesh's faces, once it is in its place.

    Raises:
      BadMesh: a face has a vertex that does not exist, or that is not finite.
    """
    faces_F3, count = mesh.faces, len(mesh.vertices)
    if faces_F3.min() < 0 or faces_F3.max() >= count:
        raise BadMesh(f"has a triangle at vertex {faces_F3.max()} of {count}")
    points_V3 = np.asarray(mesh.vertices, np.float64)[np.unique(faces_F3)]
    if place_44 is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            points_V3 = points_V3 @ place_44[:3, :3].T + place_44[:3, 3]
    if not (np.abs(points_V3) < _FARTHEST).all():
        raise BadMesh(f"has a vertex that is not finite, or beyond {_FARTHEST:g}")
    return points_V3.min(0), points_V3.max(0)


def _surface(piece: Piece, place_44: np.ndarray) -> Surface:
    placed, look = piece.mesh.copy(), piece.look
    placed.apply_transform(place_44)
    # Not the file's faces: a mirroring transform turns their corners round.
    faces_F3 = placed.faces
    normals_F33 = face_F13 = np.asarray(placed.face_normals, np.float32)[:, None]
    if not piece.flat:
        smooth_F33 = np.asarray(placed.vertex_normals, np.float32)[faces_F3]
        # Vertex normals would round off the edges of a box; face normals would show the facets of a ball.
        sharp = (smooth_F33 * face_F13).sum(-1, keepdims=True) < _CREASE
        normals_F33 = np.where(sharp, face_F13, smooth_F33)
    if look.of_faces:
        colours_F34 = np.broadcast_to(look.colours_N4[:, None], (len(faces_F3), 3, 4))
    else:
        colours_F34 = look.colours_N4[faces_F3]
    colours_F34 = np.nan_to_num(colours_F34).clip(0, 1).astype(np.float32)
    uv_F32 = None
    if look.uv_V2 is not None:
        uv_F32 = np.nan_to_num(look.uv_V2)[faces_F3].astype(np.float32)
    return Surface(
        np.asarray(placed.vertices)[faces_F3].astype(np.float32),
        np.nan_to_num(np.broadcast_to(normals_F33, (len(faces_F3), 3, 3))),
        colours_F34[..., :3],
        look.texture,
        uv_F32,
        look.wrap,
        look.linear,
        look.alpha,
        None if look.alpha == "opaque" else colours_F34[..., 3],
        look.cutoff,
    )
