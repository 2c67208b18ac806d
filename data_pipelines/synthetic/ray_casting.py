"""Rays through the pixels of a picture, and the solid that each one meets first.

Camera rays have length 1 along the viewing axis, so a ray's parameter t *is* the depth.

Shape legend: H, W pixels of the (supersampled) picture; 3 coordinates.
"""

import math

import numpy as np
from jaxtyping import Float32, Int32

from data_pipelines.synthetic.geometry import Camera, PlacedSolid


def camera_rays(camera: Camera, size: int) -> Float32[np.ndarray, "H W 3"]:
    """The world direction of each pixel's ray, of length 1 along the viewing axis."""
    half = math.tan(math.radians(camera.field_of_view) / 2)
    at = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * np.float32(half)
    right, up, forward = camera.axes
    return forward + at[None, :, None] * right - at[:, None, None] * up


def visibility(
    solids: list[PlacedSolid], camera: Camera, origin: np.ndarray, rays_HW3: np.ndarray
) -> tuple[Float32[np.ndarray, "H W"], Int32[np.ndarray, "H W"]]:
    """Depth and index of the nearest solid on each ray; inf and -1 if there is none."""
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


def _window(solid: PlacedSolid, camera: Camera, size: int) -> tuple[slice, slice]:
    """Rows and columns that the solid's bounding sphere can cover; all of them if the camera is close."""
    x, y, z = camera.axes @ (solid.centre - np.asarray(camera.position, np.float32))
    if z <= solid.radius * 1.05:
        return slice(0, size), slice(0, size)
    half = math.tan(math.radians(camera.field_of_view) / 2)
    slices = []
    for across in (-y, x):
        # The sphere's two tangents in the plane of this axis and the viewing axis. Near 90 degrees (1.5 radians) the
        # tangent explodes, so such a bound goes far outside the picture.
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
