"""Exact edges of a rendered scene, from its geometry and not from its pixels.

Shape legend: H, W of the picture.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

from lvm_jax.pictures import annotation_maps as maps

_CREASE = 0.8  # the surface has an edge where the cosine between neighbouring normals is below this
_DEPTH_JUMP = 0.06  # relative to the nearer depth


def true_edges(
    segmentation: Int[np.ndarray, "H W"],
    depth: Float[np.ndarray, "H W"],
    normals: Float[np.ndarray, "H W 3"],
) -> UInt8[np.ndarray, "H W 3"]:
    """White lines on black where instance, depth or surface direction changes."""
    edge = np.zeros(segmentation.shape, bool)
    for axis in (0, 1):
        here = [slice(None), slice(None)]
        there = list(here)
        here[axis], there[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(here), tuple(there)
        both = np.isfinite(depth[a]) & np.isfinite(depth[b])
        near, far = np.minimum(depth[a], depth[b]), np.maximum(depth[a], depth[b])
        jump = np.where(both, far, 0) > np.where(both, near, 0) * (1 + _DEPTH_JUMP)
        # Near the horizon the floor's depth jumps from pixel to pixel, so jumps count on objects only.
        jump &= (segmentation[a] > 0) & (segmentation[b] > 0)
        ends = np.isfinite(depth[a]) != np.isfinite(depth[b])
        crease = both & ((normals[a] * normals[b]).sum(-1) < _CREASE)
        edge[a] |= (segmentation[a] != segmentation[b]) | jump | ends | crease
    return maps.mask_to_rgb(edge)
