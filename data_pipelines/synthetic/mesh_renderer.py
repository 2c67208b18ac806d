"""A small rasteriser in NumPy: triangle meshes with textures or colours, through the cameras of `geometry`.

Shape legend: F triangles, 3 corners or coordinates, P covered pixels, S samples (pixels inside the boxes around
triangles), H, W of a picture or texture, C its channels.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from data_pipelines.synthetic.geometry import Camera, Vector
from data_pipelines.synthetic.renderer import SUPERSAMPLING
from data_pipelines.synthetic.textures import Wrap, sample, to_srgb
from lvm_jax.pictures.pixels import to_uint8

SAMPLES_AT_ONCE = 1 << 20
LAYERS = 16
_INVISIBLE = 1 / 512  # alpha of less than half a level
_AMBIENT, _SUNLIGHT, _SKYLIGHT = 0.58, 0.42, 0.12
_SUN = np.array((0.43, -0.52, 0.74), np.float32)


AlphaMode = Literal["opaque", "mask", "blend"]


@dataclasses.dataclass(frozen=True)
class Surface:
    """Triangles of one material.

    Attributes:
      corners_F33: positions in the world, z up.
      normals_F33: unit, at each corner.
      colours_F33: RGB in [0, 1] at each corner; multiplied with the texture.
      texture: rows from top to bottom, or None; a fourth channel is alpha.
      uv_F32: each corner's place in the texture, (0, 0) its lower left.
      wrap: what lies beyond the texture's edges, in u and in v.
      linear: whether `colours_F33` are linear light and the texture sRGB, as in glTF; otherwise both are sRGB, and so
        is their product.
      alpha: whether alpha is ignored, decides what is there ("mask"), or lets through what lies behind ("blend").
      alpha_F3: at each corner, multiplied with the texture's; None is 1.
      cutoff: the least alpha that a mask shows.
    """

    corners_F33: Float32[np.ndarray, "F 3 3"]
    normals_F33: Float32[np.ndarray, "F 3 3"]
    colours_F33: Float32[np.ndarray, "F 3 3"]
    texture: UInt8[np.ndarray, "H W C"] | None = None
    uv_F32: Float32[np.ndarray, "F 3 2"] | None = None
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    linear: bool = False
    alpha: AlphaMode = "opaque"
    alpha_F3: Float32[np.ndarray, "F 3"] | None = None
    cutoff: float = 0.5


def render_mesh(
    surfaces: list[Surface], camera: Camera, size: int, background: Vector = (0.93, 0.93, 0.93)
) -> UInt8[np.ndarray, "H W 3"]:
    """A square picture of `size` pixels. Surfaces show both sides; nothing may lie behind the camera.

    The light is a studio: ambient, some sky, and a sun that stands still while the camera moves. Of surfaces that let
    others through, the nearest `LAYERS` are drawn.
    """
    fine = size * SUPERSAMPLING
    solid = [surface for surface in surfaces if surface.alpha != "blend"]
    glass = [surface for surface in surfaces if surface.alpha == "blend"]
    # 1 / depth of what is seen, 0 where nothing is. Unlike depth, it is linear on the screen.
    nothing_P, everything_P = np.zeros(fine * fine, np.float32), np.full(fine * fine, np.inf)
    floor_P, solid_P4 = _nearest(solid, camera, fine, nothing_P, everything_P)
    colour_P3 = np.tile(np.asarray(background, np.float32), (fine * fine, 1))
    colour_P3[floor_P > 0] = solid_P4[floor_P > 0, :3]
    if glass:
        colour_P3 = _through(glass, camera, fine, floor_P, colour_P3)
    s = SUPERSAMPLING
    blocks = np.clip(colour_P3, 0, 1).reshape(size, s, size, s, 3)
    return to_uint8(blocks.mean(axis=(1, 3)))


def _through(
    surfaces: list[Surface], camera: Camera, fine: int, floor_P: np.ndarray, behind_P3: np.ndarray
) -> Float32[np.ndarray, "P 3"]:
    """The colours behind translucent surfaces and their own, one layer after the other from the front."""
    colour_P3, left_P1 = np.zeros_like(behind_P3), np.ones((fine * fine, 1), np.float32)
    before_P = np.full(fine * fine, np.inf)
    for _ in range(LAYERS):
        inverse_P, layer_P4 = _nearest(surfaces, camera, fine, floor_P, before_P)
        hit_P1 = (inverse_P > floor_P)[:, None]
        if not hit_P1.any():
            break
        alpha_P1 = np.where(hit_P1, layer_P4[:, 3:], 0)
        colour_P3 += left_P1 * alpha_P1 * layer_P4[:, :3]
        left_P1 *= 1 - alpha_P1
        before_P = np.where(
            hit_P1[:, 0], inverse_P, 0
        )  # where nothing was hit, nothing more will be
    return colour_P3 + left_P1 * behind_P3


def _nearest(
    surfaces: list[Surface], camera: Camera, fine: int, floor_P: np.ndarray, before_P: np.ndarray
) -> tuple[Float32[np.ndarray, " P"], Float32[np.ndarray, "P 4"]]:
    """1 / depth and shaded RGBA of what is nearest between two depths, both given as 1 / depth and exclusive.

    Where there is nothing, 1 / depth is that of `floor_P`.
    """
    nearest_P, colour_P4 = floor_P.copy(), np.zeros((fine * fine, 4), np.float32)
    for surface in surfaces:
        screen_F33 = _project(surface.corners_F33, camera, fine)
        triangle = np.full(fine * fine, -1, np.int32)
        weights_P3 = np.zeros((fine * fine, 3), np.float32)
        for pixel, index, inverse, weights_S3 in _covered(screen_F33, fine):
            nearer = (inverse > nearest_P[pixel]) & (inverse < before_P[pixel])
            if surface.alpha != "opaque":
                nearer[nearer] = _is_there(surface, index[nearer], weights_S3[nearer])
            # A pixel can occur several times, and NumPy's assignment keeps the last: so the nearest goes last.
            order = np.argsort(inverse[nearer], kind="stable")
            pixel, index, weights_S3 = (x[nearer][order] for x in (pixel, index, weights_S3))
            nearest_P[pixel] = inverse[nearer][order]
            triangle[pixel], weights_P3[pixel] = index, weights_S3
        # Shaded after all of the surface is tested: each pixel once, whatever is hidden behind it.
        seen = np.flatnonzero(triangle >= 0)
        colour_P4[seen] = _shade(surface, triangle[seen], weights_P3[seen], camera)
    return nearest_P, colour_P4


def _is_there(
    surface: Surface, index_S: Int[np.ndarray, " S"], weights_S3: np.ndarray
) -> Bool[np.ndarray, " S"]:
    """Where alpha shows something."""
    alpha_S = _albedo(surface, index_S, weights_S3)[:, 3]
    return alpha_S >= surface.cutoff if surface.alpha == "mask" else alpha_S > _INVISIBLE


def _project(corners_F33: np.ndarray, camera: Camera, size: int) -> Float32[np.ndarray, "F 3 3"]:
    """(x, y) in pixels, and 1 / depth, of each corner."""
    x, y, z = np.moveaxis((corners_F33 - np.asarray(camera.position)) @ camera.axes.T, -1, 0)
    half = math.tan(math.radians(camera.field_of_view) / 2)
    screen = np.stack([(x / z / half + 1) * size / 2, (1 - y / z / half) * size / 2, 1 / z], -1)
    return screen.astype(np.float32)


def _covered(
    screen_F33: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Samples inside triangles, in portions: pixel, triangle, 1 / depth, and the corners' perspective weights."""
    a_3F, b_3F, c_3F = (np.ascontiguousarray(screen_F33[:, i].T) for i in range(3))
    (a_x, a_y, a_z), (b_x, b_y, b_z), (c_x, c_y, c_z) = a_3F, b_3F, c_3F
    # Not `min(axis)`: NumPy is slow at reducing an axis of three.
    least_2F = np.minimum(np.minimum(a_3F, b_3F), c_3F)[:2]
    most_2F = np.maximum(np.maximum(a_3F, b_3F), c_3F)[:2]
    low_2F = np.clip(np.ceil(least_2F - 0.5), 0, size).astype(np.int64)
    high_2F = np.clip(np.floor(most_2F - 0.5), -1, size - 1).astype(np.int64)
    width, height = np.maximum(high_2F - low_2F + 1, 0)
    count = width * height
    area = (b_x - a_x) * (c_y - a_y) - (b_y - a_y) * (c_x - a_x)
    visible = np.flatnonzero((count > 0) & (np.abs(area) > 1e-9))
    # All boxes at once would need memory in proportion to their total area.
    portion = np.cumsum(count[visible]) // SAMPLES_AT_ONCE
    for i in np.unique(portion):
        mine = visible[portion == i]
        index = np.repeat(mine, count[mine])
        first = np.repeat(np.cumsum(count[mine]) - count[mine], count[mine])
        row, column = np.divmod(np.arange(len(index)) - first, width[index])
        x, y = low_2F[0, index] + column, low_2F[1, index] + row
        px, py = x + np.float32(0.5), y + np.float32(0.5)
        # Barycentric weights on the screen.
        dx, dy = px - c_x[index], py - c_y[index]
        scale = 1 / area[index]
        w_a = ((b_y - c_y)[index] * dx - (b_x - c_x)[index] * dy) * scale
        w_b = ((c_y - a_y)[index] * dx - (c_x - a_x)[index] * dy) * scale
        w_c = 1 - w_a - w_b
        inside = np.flatnonzero((w_a >= 0) & (w_b >= 0) & (w_c >= 0))
        index = index[inside]
        # Screen weights ignore perspective: what is linear on the screen is value / depth, so weigh by 1 / depth.
        w_a, w_b, w_c = w_a[inside] * a_z[index], w_b[inside] * b_z[index], w_c[inside] * c_z[index]
        inverse = w_a + w_b + w_c
        pixel = y[inside] * size + x[inside]
        weights_S3 = np.stack([w_a / inverse, w_b / inverse, w_c / inverse], -1)
        yield pixel, index, inverse.astype(np.float32), weights_S3


def _shade(
    surface: Surface, index_P: Int[np.ndarray, " P"], weights_P3: np.ndarray, camera: Camera
) -> Float[np.ndarray, "P 4"]:
    normal_P3 = _at(surface.normals_F33, index_P, weights_P3)
    normal_P3 /= np.maximum(np.linalg.norm(normal_P3, axis=-1, keepdims=True), 1e-6)
    # Meshes often have faces the wrong way round: a normal that points away is turned to the camera.
    to_camera_P3 = np.asarray(camera.position, np.float32) - _at(
        surface.corners_F33, index_P, weights_P3
    )
    away = (normal_P3 * to_camera_P3).sum(-1, keepdims=True) < 0
    normal_P3 = np.where(away, -normal_P3, normal_P3)
    light_P = _AMBIENT + _SKYLIGHT * normal_P3[:, 2] + _SUNLIGHT * np.clip(normal_P3 @ _SUN, 0, 1)
    albedo_P4 = _albedo(surface, index_P, weights_P3)
    return np.concatenate([albedo_P4[:, :3] * light_P[:, None], albedo_P4[:, 3:]], -1)


def _albedo(
    surface: Surface, index_P: Int[np.ndarray, " P"], weights_P3: np.ndarray
) -> Float[np.ndarray, "P 4"]:
    """sRGB and alpha without light."""
    rgb_P3 = _at(surface.colours_F33, index_P, weights_P3)
    alpha_P1 = np.ones((len(index_P), 1), np.float32)
    if surface.alpha_F3 is not None:
        alpha_P1 = _at(surface.alpha_F3[..., None], index_P, weights_P3)
    if surface.texture is not None and surface.uv_F32 is not None:
        uv_P2 = _at(surface.uv_F32, index_P, weights_P3)
        texel_PC = sample(surface.texture, uv_P2, surface.wrap, surface.linear)
        rgb_P3 = rgb_P3 * texel_PC[:, :3]
        if texel_PC.shape[1] == 4:
            alpha_P1 = alpha_P1 * texel_PC[:, 3:]
    if surface.linear:
        rgb_P3 = to_srgb(rgb_P3)
    return np.concatenate([rgb_P3, alpha_P1.clip(0, 1)], -1)


def _at(
    corners_F3C: np.ndarray, index_P: Int[np.ndarray, " P"], weights_P3: np.ndarray
) -> Float[np.ndarray, "P C"]:
    """What the corners have, inside their triangles."""
    return np.einsum("pc,pcx->px", weights_P3, corners_F3C[index_P])
