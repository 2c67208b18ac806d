"""Meshes that trimesh reads: OBJ, PLY, STL and OFF.

| format | colours that are drawn |
|---|---|
| OBJ | Kd times map_Kd times the colours of vertices; d, Tr and map_d are not drawn: glass is opaque |
| PLY | of vertices or of faces, or a texture; alpha is not drawn |
| STL | none: its two bytes of colour have two contradictory meanings |
| OFF | none |
"""

from typing import Any

import numpy as np
import trimesh
from etils import epath
from PIL import Image as PILImage

from data_pipelines.mesh_files.pieces import BadMesh, Look, Piece, bounds

_PLAIN = (170, 170, 170, 255)  # of meshes that have no colour
TEXTURE_SIDE = 512  # larger textures are shrunk: they would only flicker


def read(path: epath.PathLike, max_faces: int) -> list[Piece]:
    """The pieces of a file.

    Raises:
      BadMesh: too many triangles.
      Exception: whatever trimesh's parsers raise; they share no base error.
    """
    # Unprocessed: trimesh would drop vertices that are no numbers, and merge what lies 1e-8 apart in any unit.
    scene = trimesh.load_scene(str(path), process=False)
    # By node, not by geometry: a scene may show one geometry several times, each placed differently.
    placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
    meshes = [
        (scene.geometry[name], np.asarray(transform))
        for transform, name in placed
        if isinstance(scene.geometry[name], trimesh.Trimesh)
    ]
    refuse_too_many(sum(len(mesh.faces) for mesh, _ in meshes), max_faces)
    merged = [(_merged(mesh), transform) for mesh, transform in meshes if len(mesh.faces)]
    return [
        Piece(mesh, np.asarray(transform) @ back_44, _look(mesh))
        for (mesh, back_44), transform in merged
    ]


def _merged(mesh: Any) -> tuple[Any, np.ndarray]:
    """The mesh in a box of side 1 with equal vertices made one, so that it can be smooth, and the way back.

    Raises:
      BadMesh: a vertex of a face is absent, or no number.
    """
    low, high = bounds(mesh)
    side = float((high - low).max()) or 1.0
    to_box_44 = np.diag((1 / side, 1 / side, 1 / side, 1.0))
    to_box_44[:3, 3] = -(low / 2 + high / 2) / side
    mesh = mesh.copy()
    mesh.apply_transform(to_box_44)
    mesh.merge_vertices()
    back_44 = np.diag((side, side, side, 1.0))
    back_44[:3, 3] = low / 2 + high / 2
    return mesh, back_44


def refuse_too_many(faces: int, max_faces: int) -> None:
    """Raises `BadMesh` if there are more triangles than a recipe allows."""
    if faces > max_faces:
        raise BadMesh(f"has {faces} triangles, more than max_faces {max_faces}")


def shrunk(image: PILImage.Image) -> np.ndarray:
    """A picture as a texture of at most `TEXTURE_SIDE` pixels a side."""
    image.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE), PILImage.Resampling.BOX)
    return np.asarray(image)


def _look(mesh: Any) -> Look:
    visual, shape = mesh.visual, (len(mesh.vertices), 4)
    if visual.kind == "vertex":
        return Look(_fractions(visual.vertex_colors))
    if visual.kind == "face":
        return Look(_fractions(visual.face_colors), of_faces=True)
    if visual.kind != "texture":
        return Look(_fractions(np.broadcast_to(_PLAIN, shape)))
    material = visual.material
    material = material.to_simple() if hasattr(material, "to_simple") else material
    # trimesh would give a texture without a Kd a dark one.
    factor = material.main_color if _has_factor(material) else (255, 255, 255, 255)
    colours_V4 = np.broadcast_to(_fractions(factor), shape)
    # Where an OBJ has materials, trimesh keeps the colours of its vertices as an attribute.
    tint_VC = mesh.vertex_attributes.get("color")
    if tint_VC is not None and np.shape(tint_VC) == (len(mesh.vertices), 3):
        colours_V4 = colours_V4 * np.pad(tint_VC, ((0, 0), (0, 1)), constant_values=1)
    if material.image is None or visual.uv is None:
        return Look(colours_V4)
    texture = shrunk(material.image.convert("RGB"))
    return Look(colours_V4, texture=texture, uv_V2=np.asarray(visual.uv))


def _has_factor(material: Any) -> bool:
    return material.image is None or "kd" in material.kwargs


def _fractions(colours: Any) -> np.ndarray:
    # By way of float32, as pictures are everywhere.
    return np.asarray(colours).astype(np.uint8).astype(np.float32) / 255
