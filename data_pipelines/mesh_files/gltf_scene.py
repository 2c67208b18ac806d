"""The triangles of a glTF 2.0 scene, in their places.

| of the specification | here |
|---|---|
| the scene named by `scene`, else the first, else all nodes | drawn at rest; animations are not played |
| nodes: matrix, or translation, rotation and scale | as specified |
| triangles, strips, fans; with and without indices and normals | drawn; points and lines are not |
| accessors: strides, normalised integers, sparse, without a buffer | as specified |
| skins, morph targets with their default weights | as specified |
| compressed geometry (Draco, meshopt), any other required extension | `BadGltf` |

Suffixes: F triangles, V vertices, J joints; 3 corners or coordinates, 4 homogeneous coordinates.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import trimesh
from etils import epath
from jaxtyping import Float, Int

from data_pipelines.mesh_files.gltf_file import BadGltf, GltfFile
from data_pipelines.mesh_files.gltf_materials import Materials
from data_pipelines.mesh_files.pieces import Piece
from data_pipelines.mesh_files.trimesh_files import refuse_too_many

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MAX_NODES = 100_000


def read(path: epath.PathLike, max_faces: int) -> list[Piece]:
    """The pieces of a .gltf or .glb file.

    Raises:
      BadGltf: see there; other errors are those of a broken JSON.
      BadMesh: too many triangles.
    """
    file = GltfFile(path)
    places, materials = _places(file), Materials(file)
    pieces, faces = [], 0
    for number, place_44 in places.items():
        node = file.get("nodes", number)
        if "mesh" not in node:
            continue
        mesh = file.get("meshes", node["mesh"])
        for primitive in mesh["primitives"]:
            if primitive.get("mode", _TRIANGLES) not in (_TRIANGLES, _STRIP, _FAN):
                continue
            piece = _piece(file, primitive, materials, node.get("weights", mesh.get("weights")))
            faces += len(piece.mesh.faces)
            refuse_too_many(faces, max_faces)
            if "skin" in node:
                piece.mesh.vertices = _skinned(file, primitive, node["skin"], piece, places)
                # A skinned mesh stands where its joints are, not where its node is.
                place_44 = np.eye(4)
            pieces.append(Piece(piece.mesh, place_44, piece.look, piece.flat))
    return pieces


def _places(file: GltfFile) -> dict[int, Float[np.ndarray, "4 4"]]:
    """Each node of the scene, and where it stands."""
    scenes, nodes = file.tree.get("scenes", []), file.tree.get("nodes", [])
    if scenes:
        roots = file.get("scenes", file.tree.get("scene", 0)).get("nodes", [])
    else:
        roots = sorted(set(range(len(nodes))) - {c for n in nodes for c in n.get("children", ())})
    places: dict[int, np.ndarray] = {}
    waiting = [(root, np.eye(4)) for root in reversed(roots)]
    while waiting:
        number, parent_44 = waiting.pop()
        if number in places or len(places) > _MAX_NODES:
            raise BadGltf(f"node {number} has two parents, or its nodes are above {_MAX_NODES}")
        node = file.get("nodes", number)
        places[number] = parent_44 @ _matrix(node)
        waiting += [(child, places[number]) for child in reversed(node.get("children", ()))]
    return places


def _matrix(node: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
    if "matrix" in node:
        return np.reshape(np.array(node["matrix"], np.float64), (4, 4)).T  # by columns
    matrix_44 = np.eye(4)
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    matrix_44[:3, :3] = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    matrix_44[:3, :3] *= np.reshape(node.get("scale", (1, 1, 1)), (1, 3))
    matrix_44[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix_44


def _piece(
    file: GltfFile,
    primitive: dict[str, Any],
    materials: Materials,
    weights: list[float] | None,
) -> Piece:
    attributes = primitive["attributes"]
    for name in primitive.get("extensions", {}):
        if not file.has_data(attributes["POSITION"]):
            raise BadGltf(f"has vertices only in the extension {name}: export it without")
    vertices_V3 = file.numbers(attributes["POSITION"])
    normals_V3 = file.numbers(attributes["NORMAL"]) if "NORMAL" in attributes else None
    for weight, target in zip(weights or (), primitive.get("targets", ()), strict=False):
        if weight and "POSITION" in target:
            vertices_V3 = vertices_V3 + weight * file.numbers(target["POSITION"])
    faces_F3 = _faces(file, primitive, len(vertices_V3))
    mesh = trimesh.Trimesh(
        vertices_V3,
        faces_F3,
        # Zero normals would become NaN; the renderer takes the face's there.
        vertex_normals=None if normals_V3 is None else np.nan_to_num(normals_V3),
        process=False,
    )
    look = materials.look(primitive, len(vertices_V3))
    return Piece(mesh, np.eye(4), look, flat=normals_V3 is None)


def _faces(file: GltfFile, primitive: dict[str, Any], vertices: int) -> Int[np.ndarray, "F 3"]:
    if "indices" in primitive:
        index = file.integers(primitive["indices"])[:, 0]
    else:
        index = np.arange(vertices)
    mode = primitive.get("mode", _TRIANGLES)
    if mode == _TRIANGLES:
        return index[: len(index) // 3 * 3].reshape(-1, 3)
    if mode == _FAN:
        return np.stack([np.full(max(len(index) - 2, 0), index[0]), index[1:-1], index[2:]], -1)
    faces_F3 = np.stack([index[:-2], index[1:-1], index[2:]], -1)
    faces_F3[1::2] = faces_F3[1::2, [0, 2, 1]]  # every other triangle of a strip runs backwards
    return faces_F3


def _skinned(
    file: GltfFile,
    primitive: dict[str, Any],
    skin: int,
    piece: Piece,
    places: dict[int, np.ndarray],
) -> Float[np.ndarray, "V 3"]:
    """The vertices where their joints carry them."""
    joints = file.get("skins", skin)["joints"]
    inverse_J44 = np.broadcast_to(np.eye(4), (len(joints), 4, 4))
    if (bind := file.get("skins", skin).get("inverseBindMatrices")) is not None:
        inverse_J44 = file.numbers(bind).reshape(-1, 4, 4).swapaxes(1, 2)
    carry_J44 = np.stack([places[joint] for joint in joints]) @ inverse_J44[: len(joints)]
    moved_V3, total_V1 = np.zeros(piece.mesh.vertices.shape), 0.0
    homogeneous_V4 = np.pad(piece.mesh.vertices, ((0, 0), (0, 1)), constant_values=1)
    for which_V, weight_V in _influences(file, primitive["attributes"]):
        moved_V3 += weight_V[:, None] * np.einsum(
            "vij,vj->vi", carry_J44[which_V, :3], homogeneous_V4
        )
        total_V1 = total_V1 + weight_V[:, None]
    return moved_V3 / np.where(total_V1 == 0, 1, total_V1)


def _influences(
    file: GltfFile, attributes: dict[str, int]
) -> Iterator[tuple[Int[np.ndarray, " V"], Float[np.ndarray, " V"]]]:
    """A joint and its weight for each vertex, four times for each set of joints."""
    number = 0
    while f"JOINTS_{number}" in attributes:
        joints_V4 = file.integers(attributes[f"JOINTS_{number}"])
        weights_V4 = file.numbers(attributes[f"WEIGHTS_{number}"])
        yield from zip(joints_V4.T, weights_V4.T, strict=True)
        number += 1
