"""Folders of meshes, rendered as turntables.

Suffixes: F triangles; 3 corners or coordinates.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from etils import epath
from PIL import Image as PILImage

from data_pipelines.chance import hash64
from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem
from data_pipelines.synthetic.geometry import Camera
from data_pipelines.synthetic.mesh_renderer import Surface, render_mesh
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import list_files
from lvm_jax.pictures.pixels import to_float

EXTENSIONS = (".obj", ".glb", ".gltf", ".stl", ".ply", ".off")
FIELD_OF_VIEW = 49.0  # degrees
_PLAIN = (170, 170, 170)  # colour of meshes that have none
_CREASE = 0.77  # a corner is sharp if the cosine between its normal and the face's is below this
_TEXTURE_SIDE = 512  # larger textures are shrunk: they would only flicker


@dataclasses.dataclass(frozen=True)
class MeshFolder:
    """Every mesh below `root`, seen once around: `{"view": [v0, v1, ...]}`. Keys are relative paths.

    A mesh is centred and scaled to 1 along its longest side. Its key decides one distance and one elevation; view i is
    from i * 360 / n_views degrees. The paper has 24 views 15 degrees apart, a radius of 1.5 to 2.2 and one elevation
    from -45 to 45 degrees. Textures, vertex colours and face colours are drawn if the mesh has them. Files are local,
    with their materials and textures beside them; trimesh reads them.

    Attributes:
      n_views: once around.
      size: of a view, pixels.
      radius: range of the camera's distance from the centre.
      elevation: range of its angle above the horizon, degrees.
      up: the mesh's own upright axis.
      max_faces: a mesh with more triangles is a bad item.
      seed: of radius and elevation.
    """

    root: str
    n_views: int = 24
    size: int = 256
    radius: tuple[float, ...] = (1.5, 2.2)
    elevation: tuple[float, ...] = (-45.0, 45.0)
    up: Literal["y", "z"] = "y"
    max_faces: int = 1_000_000
    seed: int = 0
    name: str = "meshes"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.OBJECT_3D

    def __post_init__(self):
        if min(self.n_views, self.size) < 1:
            raise UserError(
                f"n_views is {self.n_views} and size {self.size}: they must be at least 1"
            )
        ranges = {"radius": (self.radius, 1.0, 100.0), "elevation": (self.elevation, -89.0, 89.0)}
        for name, (ends, least, most) in ranges.items():
            if len(ends) != 2 or not least <= ends[0] <= ends[1] <= most:
                raise UserError(f"{name} is {ends}: it must be (low, high), from {least} to {most}")

    def keys(self) -> list[str]:
        """Relative paths of the meshes; see `Source`."""
        # Materials and textures lie beside the meshes: they are read with them, not skipped.
        return list_files(self.root, EXTENSIONS, "meshes", others=False)

    def load(self, key: str) -> PictureItem:
        """All views of one mesh; see `Source`."""
        surfaces = _normalised(
            _load(str(epath.Path(self.root) / key), key, self.max_faces), self.up, key
        )
        rng = np.random.default_rng([self.seed, hash64(key)])
        radius = rng.uniform(self.radius[0], self.radius[1])
        elevation = math.radians(rng.uniform(self.elevation[0], self.elevation[1]))
        views = []
        for i in range(self.n_views):
            turn = 2 * math.pi * i / self.n_views
            across = radius * math.cos(elevation)
            position = (
                across * math.sin(turn),
                -across * math.cos(turn),
                radius * math.sin(elevation),
            )
            camera = Camera(position, (0.0, 0.0, 0.0), FIELD_OF_VIEW)
            views.append(render_mesh(surfaces, camera, self.size))
        return {"view": views}


def _load(path: str, key: str, max_faces: int) -> list[Surface]:
    """The surfaces of a file, in the file's coordinates."""
    try:
        import trimesh
    except ImportError as error:
        raise UserError("trimesh is not installed: pip install 'lvm_jax[meshes]'") from error
    try:
        scene = trimesh.load_scene(path)
        # By node, not by geometry: a scene may show one geometry several times, each placed differently.
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        meshes = [
            (scene.geometry[name], np.asarray(transform))
            for transform, name in placed
            if isinstance(scene.geometry[name], trimesh.Trimesh)
        ]
        faces = sum(len(mesh.faces) for mesh, _ in meshes)
        if faces > max_faces:
            raise BadItem(key, f"has {faces} triangles, more than max_faces {max_faces}")
        surfaces = [_surface(mesh, transform) for mesh, transform in meshes if len(mesh.faces)]
    except BadItem:
        raise
    except Exception as error:  # parsers of six formats share no base error
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadItem(key, f"cannot be read ({why[:200]})") from error
    if not surfaces:
        raise BadItem(key, "holds no triangle")
    return surfaces


def _surface(mesh: Any, transform: np.ndarray) -> Surface:
    """One `trimesh.Trimesh` in its place."""
    placed = mesh.copy()
    placed.apply_transform(transform)
    face_F13 = np.asarray(placed.face_normals, np.float32)[:, None]
    smooth_F33 = np.asarray(placed.vertex_normals, np.float32)[placed.faces]
    # Vertex normals would round off the edges of a box; face normals would show the facets of a ball.
    sharp = (smooth_F33 * face_F13).sum(-1, keepdims=True) < _CREASE
    colours_F33, texture, uv_F32 = _look(mesh)
    return Surface(
        np.asarray(placed.vertices, np.float32)[placed.faces],
        np.where(sharp, face_F13, smooth_F33),
        colours_F33,
        texture,
        uv_F32,
    )


def _look(mesh: Any) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Colours at the corners, and the texture with its coordinates."""
    visual, shape = mesh.visual, (len(mesh.faces), 3, 3)
    texture = uv_F32 = None
    if visual.kind == "texture":
        material = visual.material
        material = material.to_simple() if hasattr(material, "to_simple") else material
        if material.image is not None and visual.uv is not None:
            image = material.image.convert("RGB")
            image.thumbnail((_TEXTURE_SIDE, _TEXTURE_SIDE), PILImage.Resampling.BOX)
            texture, uv_F32 = np.asarray(image), np.asarray(visual.uv, np.float32)[mesh.faces]
            colours = np.full(shape, 255)  # white: the texture is multiplied by them
        else:
            colours = np.broadcast_to(material.main_color[:3], shape)
    elif visual.kind == "vertex":
        colours = np.asarray(visual.vertex_colors)[:, :3][mesh.faces]
    elif visual.kind == "face":
        colours = np.broadcast_to(np.asarray(visual.face_colors)[:, None, :3], shape)
    else:
        colours = np.broadcast_to(_PLAIN, shape)
    return to_float(colours.astype(np.uint8)), texture, uv_F32


def _normalised(surfaces: list[Surface], up: str, key: str) -> list[Surface]:
    """The surfaces upright along z, centred, 1 along the longest side."""
    # From y up to z up is a quarter turn about x.
    turn = np.eye(3) if up == "z" else np.array([(1, 0, 0), (0, 0, 1), (0, -1, 0)])
    turn = turn.astype(np.float32)
    points = np.concatenate([s.corners_F33.reshape(-1, 3) @ turn for s in surfaces])
    low, high = points.min(0), points.max(0)
    side = float((high - low).max())
    if not np.isfinite(side) or side <= 0:
        raise BadItem(key, f"has no extent ({side})")
    return [
        dataclasses.replace(
            s,
            corners_F33=((s.corners_F33 @ turn - (low + high) / 2) / side).astype(np.float32),
            normals_F33=s.normals_F33 @ turn,
        )
        for s in surfaces
    ]
