"""A small ray caster in NumPy: images of simple objects with exact annotations.

Every shape is a unit solid under an affine map, so a ray keeps its parameter t in the solid's own frame. `geometry` has
the solids, `ray_casting` finds the one that a ray meets, `shading` colours it.

Shape legend: H, W pixels of the picture, in suffixes of the supersampled one; N bodies; 3 coordinates or keypoints.
"""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from data_pipelines.synthetic.geometry import Camera, Scene, landmarks, place
from data_pipelines.synthetic.ray_casting import camera_rays, visibility
from data_pipelines.synthetic.shading import paint_background, paint_shadows, paint_surfaces

SUPERSAMPLING = 2  # rays per pixel and axis


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture and the truth about it.

    `segmentation`, `depth` and `normals` come from one ray per pixel, its upper left supersample: an average of ids or
    of depths across an edge would be false.

    Attributes:
      image: uint8 RGB.
      segmentation: instance ids; 0 is background, i + 1 is `scene.bodies[i]`.
      depth: along the viewing axis, in world units; inf where a ray meets nothing.
      normals: unit, in the camera's frame (x right, y up, z towards the viewer); 0 where a ray meets nothing.
      boxes: (x0, y0, x1, y1) in pixels, around each body's visible part; NaN if it is hidden.
      keypoints: top, centre and foot of each body as (x, y) in pixels, visible or not.
      kinds: class of each body.
    """

    image: UInt8[np.ndarray, "H W 3"]
    segmentation: Int32[np.ndarray, "H W"]
    depth: Float32[np.ndarray, "H W"]
    normals: Float32[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "N 4"]
    keypoints: Float32[np.ndarray, "N 3 2"]
    kinds: tuple[str, ...]


def render(scene: Scene, camera: Camera, size: int = 64) -> Frame:
    """Renders `scene` as a square picture of `size` pixels with all its annotations."""
    solids = [place(solid, body, i) for i, body in enumerate(scene.bodies) for solid in body.solids]
    origin = np.asarray(camera.position, np.float32)
    rays_HW3 = camera_rays(camera, size * SUPERSAMPLING)
    depth_HW, solid_HW = visibility(solids, camera, origin, rays_HW3)
    depth_HW, colour_HW3, normal_HW3 = paint_background(scene, origin, rays_HW3, depth_HW, solid_HW)
    paint_shadows(solids, scene, origin, rays_HW3, depth_HW, solid_HW, colour_HW3)
    paint_surfaces(solids, scene, origin, rays_HW3, depth_HW, solid_HW, colour_HW3, normal_HW3)

    body_of = np.array([0, *(solid.body + 1 for solid in solids)], np.int32)
    instance_HW = body_of[solid_HW + 1]  # -1, no solid, becomes 0, the background
    s = SUPERSAMPLING
    fine = np.clip(colour_HW3, 0, 1)
    small = sum(fine[i::s, j::s] for i in range(s) for j in range(s)) * np.float32(255 / s**2)
    # The third axis of a camera points forward, that of the normals towards the viewer.
    to_view = camera.axes.T * np.array([1, 1, -1], np.float32)
    return Frame(
        image=np.round(small).astype(np.uint8),
        # Copies, because a view would keep the supersampled array alive.
        segmentation=instance_HW[::s, ::s].copy(),
        depth=depth_HW[::s, ::s].copy(),
        normals=normal_HW3[::s, ::s] @ to_view,
        boxes=_boxes(instance_HW, len(scene.bodies)) / s,
        keypoints=np.array(
            [camera.project(landmarks(body), size) for body in scene.bodies], np.float32
        ).reshape(-1, 3, 2),
        kinds=tuple(body.kind for body in scene.bodies),
    )


def _boxes(instance_HW: np.ndarray, n_bodies: int) -> Float32[np.ndarray, "N 4"]:
    boxes = np.full((n_bodies, 4), np.nan, np.float32)
    for i in range(n_bodies):
        mask = instance_HW == i + 1
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
