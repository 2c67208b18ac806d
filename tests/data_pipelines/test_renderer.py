import dataclasses
import itertools
import math

import numpy as np
import pytest

from data_pipelines.synthetic import cameras, geometry, ray_casting, renderer, scenes, shapes, toys
from data_pipelines.synthetic.geometry import Background, Body, Camera, Scene, Solid

RED = (0.9, 0.1, 0.1)
SKY = Background("outdoor")
PLAIN = Background("plain")


def rays_of(camera: Camera, size: int) -> np.ndarray:
    """The ray whose truth a pixel holds: the upper left of its 2 x 2, written out once more."""
    half = math.tan(math.radians(camera.field_of_view) / 2)
    at = (np.arange(size) + 0.25) / size * 2 - 1
    right, up, forward = camera.axes.astype(np.float64)
    return forward + half * (at[None, :, None] * right - at[:, None, None] * up)


def test_sphere_agrees_with_its_equation():
    centre, radius, size = np.array([0.3, 0.2, 0.8]), 0.8, 48
    ball = Body(
        "ball", (Solid("sphere", (0, 0, 0.4), (0.4, 0.4, 0.4), RED),), (0.3, 0.2, 0.0), size=2.0
    )
    camera = Camera((1.0, -5.0, 2.0), (0.0, 0.0, 0.5))
    frame = renderer.render(Scene((ball,), PLAIN), camera, size)

    d = rays_of(camera, size)
    o = np.array(camera.position) - centre
    a, b, c = (d * d).sum(-1), d @ o, o @ o - radius**2
    discriminant = b * b - a * c
    clear = np.abs(discriminant) > 1e-3  # not on the silhouette itself
    hit = discriminant > 0
    depth = (-b - np.sqrt(np.where(hit, discriminant, 0))) / a
    np.testing.assert_array_equal(frame.segmentation[clear], hit[clear])
    np.testing.assert_allclose(frame.depth[hit & clear], depth[hit & clear], atol=1e-4)
    assert np.isinf(frame.depth[~hit & clear]).all()

    normal = (o + depth[..., None] * d) / radius
    in_view = normal @ camera.axes.T * (1, 1, -1)
    np.testing.assert_allclose(frame.normals[hit & clear], in_view[hit & clear], atol=1e-3)
    assert (frame.normals[~hit & clear] == 0).all()


def test_floor_depth_is_where_rays_reach_z_0():
    ball = Body("ball", (Solid("sphere", (0, 0, 9.0), (0.1, 0.1, 0.1), RED),))  # out of sight
    camera = Camera((0.0, -5.0, 2.0), (0.0, 0.0, 1.0))
    frame = renderer.render(Scene((ball,), SKY), camera, 32)
    z = rays_of(camera, 32)[..., 2]
    np.testing.assert_allclose(frame.depth[z < -0.01], -2.0 / z[z < -0.01], rtol=1e-4)
    assert np.isinf(frame.depth[z > 0]).all()
    assert (frame.segmentation == 0).all()
    assert np.isnan(frame.boxes).all()


INSIDE = {
    "sphere": lambda p: (p**2).sum(-1) - 1,
    "box": lambda p: np.abs(p).max(-1) - 1,
    "cylinder": lambda p: np.maximum(np.hypot(p[..., 0], p[..., 1]), np.abs(p[..., 2])) - 1,
    "cone": lambda p: np.maximum(
        np.hypot(p[..., 0], p[..., 1]) - (1 - p[..., 2]) / 2, np.abs(p[..., 2]) - 1
    ),
    "pyramid": lambda p: np.maximum(
        np.abs(p[..., :2]).max(-1) - (1 - p[..., 2]) / 2, np.abs(p[..., 2]) - 1
    ),
    "wedge": lambda p: np.maximum(
        np.maximum(np.abs(p[..., 1]) - (1 - p[..., 2]) / 2, np.abs(p[..., 0]) - 1),
        np.abs(p[..., 2]) - 1,
    ),
}


@pytest.mark.parametrize("shape", shapes.INTERSECT)
def test_shape_is_met_where_a_march_enters_it(shape):
    rng = np.random.default_rng(0)
    o = rng.normal(size=(400, 3))
    o *= 4 / np.linalg.norm(o, axis=-1, keepdims=True)
    aim = rng.uniform(-1.2, 1.2, (400, 3))
    d = aim - o
    t = shapes.INTERSECT[shape](o.astype(np.float32), d.astype(np.float32))

    steps = np.linspace(0.01, 2.0, 4000)
    inside = INSIDE[shape](o[:, None] + steps[:, None] * d[:, None]) < 0
    entered = inside.any(1)
    first = steps[inside.argmax(1)]
    hit = np.isfinite(t)
    grazing = hit != entered
    assert grazing.mean() < 0.01  # a march misses corners thinner than its step
    both = hit & entered
    assert both.sum() > 100
    assert np.abs(t[both] - first[both]).max() < 2 * (steps[1] - steps[0])

    on_surface = (o + t[:, None] * d)[both].astype(np.float32)
    np.testing.assert_allclose(INSIDE[shape](on_surface), 0, atol=2e-3)
    normal = shapes.unit(shapes.local_normals(shape, on_surface))
    nudge = 1e-3 * np.eye(3)
    gradient = [INSIDE[shape](on_surface + e) - INSIDE[shape](on_surface - e) for e in nudge]
    alike = (shapes.unit(np.stack(gradient, -1)) * normal).sum(-1)
    assert (alike > 0.999).mean() > 0.96  # all but those at a ridge


def test_windows_cut_no_solid(monkeypatch):
    rng = np.random.default_rng(1)
    pairs = [(scenes.random_scene(rng), cameras.random_camera(rng)) for _ in range(4)]
    cut = [renderer.render(scene, camera, 32) for scene, camera in pairs]
    whole = (slice(None), slice(None))
    monkeypatch.setattr(ray_casting, "_window", lambda solid, camera, size: whole)
    for (scene, camera), frame in zip(pairs, cut, strict=True):
        full = renderer.render(scene, camera, 32)
        np.testing.assert_array_equal(full.segmentation, frame.segmentation)
        np.testing.assert_array_equal(full.image, frame.image)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nearer_body_hides_the_farther(order):
    def box(y):
        return Body("box", (Solid("box", (0, 0, 0.5), (0.5, 0.5, 0.5), RED),), (0.0, y, 0.0))

    near, far = order
    scene = Scene(tuple(box(-1.0 if i == near else 1.5) for i in range(2)), SKY)
    frame = renderer.render(scene, Camera((0, -6, 0.5), (0, 0, 0.5)), 32)
    assert (frame.segmentation[12:20, 12:20] == near + 1).all()
    assert not (frame.segmentation == far + 1).any()  # the same box, farther: covered
    assert np.isnan(frame.boxes[far]).all()
    rows, columns = np.nonzero(frame.segmentation == near + 1)
    x0, y0, x1, y1 = frame.boxes[near]
    assert abs(x0 - columns.min()) <= 0.5
    assert abs(y0 - rows.min()) <= 0.5
    assert abs(x1 - columns.max() - 1) <= 0.5
    assert abs(y1 - rows.max() - 1) <= 0.5


def test_keypoints_are_projected_landmarks():
    body = Body("column", (Solid("cylinder", (0, 0, 1.0), (0.2, 0.2, 1.0), RED),))
    frame = renderer.render(Scene((body,), SKY), Camera((0, -5, 1.0), (0, 0, 1.0)), 64)
    half = 32 / (5 * math.tan(math.radians(20)))  # pixels a unit at a distance of 5
    np.testing.assert_allclose(
        frame.keypoints[0], [(32, 32 - half), (32, 32), (32, 32 + half)], atol=1e-3
    )


def test_shadow_falls_away_from_the_sun():
    ball = Body("ball", (Solid("sphere", (0, 0, 1.0), (0.3, 0.3, 0.3), RED),))
    floor = Background("outdoor", floor=(0.5, 0.5, 0.5), floor2=(0.5, 0.5, 0.5))
    sun = (0.6, 0.0, 0.8)
    camera = Camera((0, -6, 4.0), (0, 0, 0.0))
    lit = renderer.render(Scene((ball,), floor, sun), camera, 64).image.astype(int)
    centre = np.array([[-0.75, 0.0, 0.0], [0.75, 0.0, 0.0]])  # 1.0 * 0.6 / 0.8 from the foot
    (x, y), (mirror_x, mirror_y) = camera.project(centre, 64).astype(int)
    assert lit[y, x].sum() < 0.7 * lit[mirror_y, mirror_x].sum()


def test_parts_along_another_axis():
    lying = Solid("cylinder", (0, 0, 0.2), (0.2, 0.2, 1.0), RED, axis="x")
    frame = renderer.render(
        Scene((Body("column", (lying,)),), PLAIN), Camera((0, -6, 0.2), (0, 0, 0.2)), 64
    )
    x0, y0, x1, y1 = frame.boxes[0]
    assert (x1 - x0) / (y1 - y0) == pytest.approx(5.0, rel=0.1)
    body = Body("column", (lying,))
    assert geometry.body_height(body) == pytest.approx(0.4)
    assert geometry.body_reach(body) >= 1.0


def test_scenes_are_functions_of_the_seed():
    def picture(seed):
        rng = np.random.default_rng(seed)
        return renderer.render(scenes.random_scene(rng), cameras.random_camera(rng), 24).image

    np.testing.assert_array_equal(picture(3), picture(3))
    assert (picture(3) != picture(4)).any()


def test_bodies_stand_apart_and_every_kind_fits_its_reach():
    for seed in range(20):
        bodies = scenes.random_scene(np.random.default_rng(seed)).bodies
        assert bodies
        for i, a in enumerate(bodies):
            for b in bodies[:i]:
                apart = math.dist(a.position, b.position)
                assert apart > geometry.body_reach(a) + geometry.body_reach(b)
    camera = Camera((0, -8, 0.0), (0, 0, 0.0), field_of_view=30)
    for kind in toys.KINDS:
        body = toys.random_body(np.random.default_rng(0), kind)
        height, reach = geometry.body_height(body), geometry.body_reach(body)
        x0, y0, x1, _ = renderer.render(Scene((body,), PLAIN), camera, 64).boxes[0]
        ground, side = camera.project(np.array([[0, 0, height], [reach, -reach, 0]]), 64)
        assert ground[1] - 2 <= y0
        assert side[0] + 1 >= x1
        assert 64 - side[0] - 1 <= x0


def test_turntable_goes_once_around():
    rng = np.random.default_rng(5)
    views = scenes.turntable(toys.random_body(rng, "car"), rng, n_views=8)
    positions = np.array([camera.position for _, camera in views])
    assert np.ptp(positions[:, 2]) < 1e-6  # one elevation
    distance = np.linalg.norm(positions, axis=-1)
    assert np.ptp(distance) < 1e-6
    assert 1.5 <= distance[0] <= 2.2
    angles = np.unwrap(np.arctan2(positions[:, 1], positions[:, 0]))
    np.testing.assert_allclose(np.abs(np.diff(angles)), math.pi / 4)
    boxes = [renderer.render(scene, camera, 32).boxes[0] for scene, camera in views]
    assert all(box.min() > 0 and box.max() < 32 for box in boxes)


def test_clips_move_steadily():
    moved = 0
    for seed in range(8):
        frames = scenes.clip(np.random.default_rng(seed), n_frames=4)
        assert len(frames) == 4
        pictures = [
            renderer.render(scene, camera, 16).image.astype(int) for scene, camera in frames
        ]
        moved += all((a != b).any() for a, b in itertools.pairwise(pictures))
        first, last = frames[0][0], frames[-1][0]
        assert [b.kind for b in first.bodies] == [b.kind for b in last.bodies]
        assert first.background == last.background
    assert moved >= 7  # a smooth ball that turns looks the same


def test_room_walls_bound_the_depth():
    scene = dataclasses.replace(
        scenes.random_scene(np.random.default_rng(0)), background=Background("room", half_size=5.0)
    )
    camera = cameras.stage_camera(0.0, 0.4, 4.5)
    frame = renderer.render(scene, camera, 32)
    assert np.isfinite(frame.depth).all()
    world = np.array(camera.position) + frame.depth[..., None] * rays_of(camera, 32)
    assert np.abs(world[..., :2]).max() <= 5.0 + 1e-3
    lengths = np.linalg.norm(frame.normals, axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-4)
    towards = -(rays_of(camera, 32) @ camera.axes.T * (1, 1, -1))
    assert ((frame.normals * towards).sum(-1) > -1e-3).all()  # what is seen faces the viewer
