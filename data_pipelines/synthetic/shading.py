"""Colours of what rays meet: background, shadows on the floor, patterned and lit surfaces.

Suffixes: H, W pixels of the (supersampled) picture; P points; 3 coordinates.
"""

import numpy as np

from data_pipelines.synthetic.geometry import Background, PlacedSolid, Scene, Solid
from data_pipelines.synthetic.shapes import dot, local_normals, unit

_SHADOW = 0.6  # relative brightness of the floor in shadow
_SHADOW_DEPTH = 14.0  # shadows farther away than this are not drawn


def paint_background(
    scene: Scene,
    origin: np.ndarray,
    rays_HW3: np.ndarray,
    depth_HW: np.ndarray,
    solid_HW: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, colour and normals, with the background filled in behind the solids."""
    background = scene.background
    empty = solid_HW < 0
    depth_HW, normal_HW3 = depth_HW.copy(), np.zeros_like(rays_HW3)
    low, high = (np.asarray(c, np.float32) for c in (background.wall, background.wall2))
    if background.kind == "plain":
        height_HW = np.linspace(1, 0, rays_HW3.shape[0], dtype=np.float32)[:, None]
    else:
        height_HW = np.clip(rays_HW3[..., 2] * 2.2, 0, 1)
    colour_HW3 = low + height_HW[..., None] * (high - low) + np.zeros_like(rays_HW3)
    if background.kind == "room":
        walls_t, walls_normal, walls_colour = _walls(background, origin, rays_HW3[empty])
        depth_HW[empty], normal_HW3[empty], colour_HW3[empty] = walls_t, walls_normal, walls_colour
    if background.kind == "plain" or origin[2] <= 0:
        return depth_HW, colour_HW3, normal_HW3

    # Rays that go down meet the floor, unless a wall is nearer.
    rows, columns = np.nonzero(empty & (rays_HW3[..., 2] < -1e-4))
    rays_P3 = rays_HW3[rows, columns]
    t = -origin[2] / rays_P3[:, 2]
    nearer = t < depth_HW[rows, columns]
    rows, columns, t, rays_P3 = rows[nearer], columns[nearer], t[nearer], rays_P3[nearer]
    colour_HW3[rows, columns] = _floor(background, origin[:2] + t[:, None] * rays_P3[:, :2], t)
    normal_HW3[rows, columns] = (0, 0, 1)
    depth_HW[rows, columns] = t
    return depth_HW, colour_HW3, normal_HW3


def _walls(
    background: Background, origin: np.ndarray, rays_P3: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, normal and colour of the room's walls at each ray."""
    xy = np.where(np.abs(rays_P3[:, :2]) < 1e-6, np.float32(1e-6), rays_P3[:, :2])
    t_x, t_y = ((np.copysign(background.half_size, xy) - origin[:2]) / xy).astype(np.float32).T
    faces_y = t_y < t_x
    normal_P3 = np.zeros_like(rays_P3)
    normal_P3[:, 0] = np.where(faces_y, 0, -np.sign(xy[:, 0]))
    normal_P3[:, 1] = np.where(faces_y, -np.sign(xy[:, 1]), 0)
    colour_P3 = np.where(faces_y[:, None], background.wall2, background.wall)
    return np.minimum(t_x, t_y), normal_P3, colour_P3


def _floor(background: Background, at_P2: np.ndarray, depth_P: np.ndarray) -> np.ndarray:
    """Tile colours at points of the floor; far tiles, smaller than a pixel, fade to their mean."""
    tile = np.floor(at_P2 / background.tile).astype(np.int32)
    odd = ((tile[:, 0] + tile[:, 1]) & 1).astype(np.float32)
    contrast = np.clip(1.6 - depth_P / 8, 0, 1)
    floor, floor2, horizon = (
        np.asarray(c, np.float32) for c in (background.floor, background.floor2, background.wall)
    )
    colour_P3 = floor + (0.5 + (odd - 0.5) * contrast)[:, None] * (floor2 - floor)
    if background.kind == "outdoor":
        colour_P3 += np.clip((depth_P - 9) / 22, 0, 1)[:, None] * (horizon - colour_P3)  # haze
    return colour_P3


def paint_shadows(
    solids: list[PlacedSolid],
    scene: Scene,
    origin: np.ndarray,
    rays_HW3: np.ndarray,
    depth_HW: np.ndarray,
    solid_HW: np.ndarray,
    colour_HW3: np.ndarray,
) -> None:
    """Darkens the floor where a solid stands between it and the sun."""
    if scene.background.kind == "plain":
        return
    sun = np.asarray(scene.sun, np.float32)
    floor_HW = (solid_HW < 0) & (depth_HW < _SHADOW_DEPTH) & (rays_HW3[..., 2] < -1e-4)
    rows, columns = np.nonzero(floor_HW)
    x, y, z = (origin + depth_HW[rows, columns][:, None] * rays_HW3[rows, columns]).T
    dark = np.abs(z) > 1e-3  # on a wall, so not to be tested, nor darkened
    on_wall = dark.copy()
    for placed in solids:
        # Rays are cast only from points near the shadow of the solid's bounding sphere.
        foot = placed.centre - sun * (placed.centre[2] / sun[2])
        near = np.abs(x - foot[0]) < placed.radius / sun[2]
        near &= (np.abs(y - foot[1]) < placed.radius / sun[2]) & ~dark
        points_P3 = np.stack([x[near], y[near], z[near]], -1)
        dark[near] = np.isfinite(placed.hits(points_P3, sun))
    dark &= ~on_wall
    colour_HW3[rows[dark], columns[dark]] *= _SHADOW


def paint_surfaces(
    solids: list[PlacedSolid],
    scene: Scene,
    origin: np.ndarray,
    rays_HW3: np.ndarray,
    depth_HW: np.ndarray,
    solid_HW: np.ndarray,
    colour_HW3: np.ndarray,
    normal_HW3: np.ndarray,
) -> None:
    """Shades the visible points of each solid: pattern, sky light, sun, and a small highlight."""
    sun = np.asarray(scene.sun, np.float32)
    # A plain background is a studio with softer light, so that the far side of a turntable is not dark.
    ambient, sunlight = (0.62, 0.46) if scene.background.kind == "plain" else (0.46, 0.62)
    for index in np.unique(solid_HW[solid_HW >= 0]):
        placed = solids[index]
        rows, columns = np.nonzero(solid_HW == index)
        rays_P3 = rays_HW3[rows, columns]
        o, d = placed.rays(origin, rays_P3)
        local_P3 = o + depth_HW[rows, columns][:, None] * d
        normal_P3 = local_normals(placed.solid.shape, local_P3) @ placed.normal_to_world
        normal_P3 = unit(normal_P3)
        half_P3 = unit(sun - unit(rays_P3))
        direct = np.clip(normal_P3 @ sun, 0, 1)
        sky = ambient + 0.14 * normal_P3[:, 2]
        shine = 0.28 * np.clip(dot(normal_P3, half_P3), 0, 1) ** 24 * (direct > 0)
        albedo_P3 = _pattern(placed.solid, local_P3)
        colour_HW3[rows, columns] = albedo_P3 * (sky + sunlight * direct)[:, None] + shine[:, None]
        normal_HW3[rows, columns] = normal_P3


def _pattern(solid: Solid, local_P3: np.ndarray) -> np.ndarray:
    first, second = np.asarray(solid.colour, np.float32), np.asarray(solid.colour2, np.float32)
    if solid.pattern == "solid":
        return np.broadcast_to(first, local_P3.shape)
    # 0.999: the top face, at exactly 1, must not begin a phase of its own.
    rings = np.floor((local_P3[:, 2] * 0.999 + 1) / 2 * solid.frequency)
    if solid.shape in ("box", "wedge", "pyramid"):
        stripes = np.floor((local_P3[:, 0] * 0.999 + 1) / 2 * solid.frequency)
        stripes += np.floor((local_P3[:, 1] * 0.999 + 1) / 2 * solid.frequency)
    else:
        turn = np.arctan2(local_P3[:, 1], local_P3[:, 0]) / (2 * np.pi) + 0.5
        stripes = np.floor(turn * 0.9999 * 2 * round(solid.frequency))
    phase = {"rings": rings, "stripes": stripes, "checker": rings + stripes}[solid.pattern]
    odd = phase.astype(np.int32) & 1 == 1
    return np.where(odd[:, None], second, first)
