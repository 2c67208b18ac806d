"""Folders of meshes, rendered as turntables."""

import dataclasses
import math
from typing import Literal

import numpy as np
from etils import epath

from data_pipelines.chance import hash64
from data_pipelines.items import PictureItem
from data_pipelines.mesh_files.pieces import BadMesh, surfaces
from data_pipelines.sources.base import BadItem
from data_pipelines.synthetic.geometry import Camera
from data_pipelines.synthetic.mesh_renderer import Surface, render_mesh
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import list_files

EXTENSIONS = (".obj", ".glb", ".gltf", ".stl", ".ply", ".off")
FIELD_OF_VIEW = 49.0  # degrees


@dataclasses.dataclass(frozen=True)
class MeshFolder:
    """Every mesh below `root`, seen once around: `{"view": [v0, v1, ...]}`. Keys are relative paths.

    A mesh is centred and scaled to 1 along its longest side. Its key decides one distance and one elevation; view i is
    from i * 360 / n_views degrees. The paper has 24 views 15 degrees apart, a radius of 1.5 to 2.2 and one elevation
    from -45 to 45 degrees. Textures, vertex colours and face colours are drawn if the mesh has them: see
    `trimesh_files` and, for glTF, `gltf_scene` and `gltf_materials`. Materials and textures lie beside the file.

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
        shown = _surfaces(epath.Path(self.root) / key, key, self.max_faces, self.up)
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
            views.append(render_mesh(shown, camera, self.size))
        if all((view == view[0, 0]).all() for view in views):
            raise BadItem(key, "shows nothing: its surfaces are transparent or have no area")
        return {"view": views}


def _surfaces(path: epath.Path, key: str, max_faces: int, up: Literal["y", "z"]) -> list[Surface]:
    """What a file shows, upright along z, centred, 1 along the longest side."""
    try:
        from data_pipelines.mesh_files import gltf_scene, trimesh_files
    except ImportError as error:
        raise UserError("trimesh is not installed: pip install 'lvm_jax[meshes]'") from error
    gltf = path.name.lower().endswith((".gltf", ".glb"))
    try:
        return surfaces((gltf_scene if gltf else trimesh_files).read(path, max_faces), up)
    except BadMesh as error:
        raise BadItem(key, str(error)) from error
    except Exception as error:  # parsers of six formats share no base error
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadItem(key, f"cannot be read ({why[:200]})") from error
