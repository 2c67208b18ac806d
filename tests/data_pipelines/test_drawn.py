"""Drawn scenes: what is annotated is what is seen, and seed and key decide all of it."""

import itertools
import pickle
import re
from typing import get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines.hues import HUES, hue_name, rgb_of
from data_pipelines.sources import BadItem, DrawnClips, DrawnScenes
from data_pipelines.sources.drawn import Role
from data_pipelines.synthetic import drawn, drawn_scenes
from data_pipelines.synthetic.drawn import Drawing, Thing, draw
from data_pipelines.synthetic.outlines import CLASS_IDS, OUTLINES
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

ALL_ROLES = get_args(Role)
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
GREY = np.full((128, 128, 3), 128, np.uint8)
AHEAD = (0.0, 0.0, 1.0)


def thing(**changes) -> Thing:
    fields = {"kind": "disc", "colour": RED, "x": 0.5, "y": 0.5, "radius": 0.3, "turn": 0.0}
    return Thing(**{**fields, "depth": 5.0, **changes})


def scene(*things: Thing) -> Drawing:
    return Drawing(things, GREY, AHEAD, haze=0.5)


def random_scenes(count: int, size: int = 64) -> list[Drawing]:
    ground = np.full((2 * size, 2 * size, 3), 128, np.uint8)
    kinds, hues = list(OUTLINES), list(HUES)
    return [
        drawn_scenes.random_drawing(
            np.random.default_rng(i), ground, kinds[i % len(kinds)], hues[i % len(hues)]
        )
        for i in range(count)
    ]


def test_a_disc_is_where_its_equation_says():
    frame = draw(scene(thing(x=0.4, y=0.6)), 64)
    # Pixels hold their upper left sample of 2 x 2.
    at = (np.arange(64) + 0.25) / 64
    distance = np.hypot(at[None, :] - 0.4, at[:, None] - 0.6)
    clear = np.abs(distance - 0.9 * 0.3) > 1 / 64
    np.testing.assert_array_equal(frame.segmentation[clear], (distance < 0.9 * 0.3)[clear])
    np.testing.assert_allclose(frame.keypoints[0, 1], (0.4 * 64, 0.6 * 64))
    np.testing.assert_allclose(frame.keypoints[0, [0, 2], 1], (21.1, 55.7), atol=0.1)
    rows, columns = np.nonzero(frame.segmentation)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_array_equal(frame.boxes[0], box)


def test_what_is_seen_as_a_thing_has_its_colour():
    for drawing in random_scenes(20):
        frame = draw(drawing, 64)
        for i, one in enumerate(drawing.things):
            inside = cv2.erode((frame.segmentation == i + 1).astype(np.uint8), np.ones((3, 3))) > 0
            if inside.any():
                mean = frame.image[inside].mean(axis=0)
                assert hue_name(tuple(mean)) == hue_name(one.colour) is not None
    apart = [hue_name(rgb_of(HUES[hue] + 15, 1.0, 1.0)) for hue in HUES]
    assert not any(apart), "a hue between two names has none"
    assert hue_name((0.5, 0.5, 0.55)) is None


def test_the_nearer_covers_the_farther_whatever_their_order():
    near, far = thing(depth=4.0, x=0.4), thing(depth=6.0, x=0.6, colour=BLUE, kind="square")
    one, other = draw(scene(near, far), 64), draw(scene(far, near), 64)
    np.testing.assert_array_equal(one.image, other.image)
    alone = draw(scene(near), 64).segmentation == 1
    np.testing.assert_array_equal(one.segmentation == 1, alone)
    assert (one.segmentation == 2).sum() < (draw(scene(far), 64).segmentation == 1).sum()


def test_depth_tells_who_covers_whom_in_every_scene():
    """Where the outlines of two things overlap, the depth that is seen is the lesser of both."""
    overlaps = 0
    for drawing in random_scenes(80):
        alone = [draw(scene(one), 64) for one in drawing.things]
        whole = draw(drawing, 64)
        for frame in alone:
            inside = frame.segmentation == 1
            assert (whole.depth[inside] <= frame.depth[inside] + 1e-5).all()
        layers = np.stack([frame.segmentation for frame in alone])
        overlaps += int((layers.sum(axis=0) > 1).any())
        ground = whole.depth[whole.segmentation == 0]
        assert ground.min() > max(frame.depth[frame.segmentation == 1].max() for frame in alone)
    assert overlaps > 10


def test_depth_falls_as_the_normals_say():
    for drawing in random_scenes(10, 256):
        frame = draw(drawing, 256)
        pixel = drawn.WORLD / 256
        np.testing.assert_allclose(np.linalg.norm(frame.normals, axis=-1), 1, atol=1e-5)
        same = frame.segmentation[:, 1:] == frame.segmentation[:, :-1]
        slope = np.diff(frame.depth, axis=1) / pixel
        ratio = frame.normals[..., 0] / frame.normals[..., 2]
        between = (ratio[:, 1:] + ratio[:, :-1]) / 2
        np.testing.assert_allclose(slope[same], between[same], atol=2e-3)
        same = frame.segmentation[1:] == frame.segmentation[:-1]
        slope = np.diff(frame.depth, axis=0) / pixel
        ratio = frame.normals[..., 1] / frame.normals[..., 2]
        between = -(ratio[1:] + ratio[:-1]) / 2
        np.testing.assert_allclose(slope[same], between[same], atol=2e-3)


def test_light_comes_from_where_it_should():
    def sides(light: tuple[float, float, float]) -> tuple[float, float]:
        frame = draw(Drawing((thing(rim=1.0),), GREY, light, 0.5), 64)
        return frame.image[32, 20, 0], frame.image[32, 44, 0]

    left, right = sides((0.6, 0.0, 0.8))
    assert right > left + 20
    left, right = sides((-0.6, 0.0, 0.8))
    assert left > right + 20


def test_things_are_large_enough_and_mostly_visible():
    """Masks must be readable in patches of 8 pixels."""
    widths, shares, counts = [], [], set()
    for drawing in random_scenes(100):
        frame = draw(drawing, 64)
        counts.add(len(drawing.things))
        assert len(set(frame.kinds)) >= 2
        for a, b in itertools.combinations(drawing.things, 2):
            # The second takes the best place that it finds, so that there are always two.
            if b is not drawing.things[1]:
                apart = np.hypot(a.x - b.x, a.y - b.y) / (a.radius + b.radius)
                assert apart >= 0.8
        for i, one in enumerate(drawing.things):
            widths.append(2 * one.radius * 64)
            alone = (draw(scene(one), 64).segmentation == 1).sum()
            shares.append((frame.segmentation == i + 1).sum() / alone)
    assert counts == {2, 3, 4, 5}
    assert min(widths) >= 12
    assert min(shares) > 0.3
    assert np.percentile(shares, 5) > 0.7


def test_an_item_has_the_roles_that_were_asked_for_and_the_things_of_its_key():
    source = DrawnScenes(scenes=160, roles=ALL_ROLES, size=48)
    keys = source.keys()
    assert len(set(keys)) == 160
    assert keys == sorted(keys)
    assert {key.partition("/")[0] for key in keys} == {f"{k}-{h}" for k in OUTLINES for h in HUES}
    for key in keys[::13]:
        item = source.load(key)
        assert set(item) == {"image", *ALL_ROLES}
        assert {x.shape for (x,) in item.values()} == {(48, 48, 3)}
        kind, hue = key.partition("/")[0].split("-")
        classes = maps.rgb_to_ids(item["segmentation"][0])
        instances = maps.rgb_to_ids(item["instances"][0])
        assert CLASS_IDS[kind] in classes
        np.testing.assert_array_equal(classes > 0, instances > 0)
        means = [item["image"][0][instances == i].mean(0) for i in range(1, instances.max() + 1)]
        assert hue in {hue_name(tuple(mean)) for mean in means}
        # Edges lie where things end, and nowhere else.
        edges = maps.rgb_to_mask(item["edges"][0])
        changes = np.zeros_like(edges)
        changes[:-1] |= instances[:-1] != instances[1:]
        changes[:, :-1] |= instances[:, :-1] != instances[:, 1:]
        np.testing.assert_array_equal(edges, changes)
    assert set(DrawnScenes(roles=()).load(keys[0])) == {"image"}


def test_seed_and_key_decide_a_scene_and_no_two_are_the_same():
    source = DrawnScenes(scenes=40, roles=ALL_ROLES)
    again = pickle.loads(pickle.dumps(source))
    keys = source.keys()
    seen = set()
    for key in keys:
        item = source.load(key)
        for role, images in again.load(key).items():
            np.testing.assert_array_equal(images, item[role])
        seen.add(item["image"][0].tobytes())
    other = DrawnScenes(scenes=40, seed=1)
    seen |= {other.load(key)["image"][0].tobytes() for key in keys}
    assert len(seen) == 80
    # More scenes leave the first ones as they are.
    assert set(keys) < set(DrawnScenes(scenes=90).keys())
    assert source.root == again.root != other.root


def test_clips_move_at_constant_speed_and_stay_in_the_picture():
    drawing = random_scenes(8)[7]
    frames = drawn_scenes.clip(drawing, np.random.default_rng(0), 40)
    assert frames[0].things == drawing.things
    for i in range(len(drawing.things)):
        ways = np.array([(f.things[i].x, f.things[i].y) for f in frames])
        radius = drawing.things[i].radius
        assert ways.min() >= radius - 1e-6
        assert ways.max() <= 1 - radius + 1e-6
        steps = np.abs(np.diff(ways, axis=0))
        # The same step but where it meets an edge, and it does meet one.
        usual = np.median(steps, axis=0)
        assert (np.isclose(steps, usual, atol=1e-9).mean(axis=0) > 0.8).all()
        assert (np.diff(np.sign(np.diff(ways, axis=0)), axis=0) != 0).any()


def test_turns_go_once_around():
    rng = np.random.default_rng(3)
    drawing = drawn_scenes.random_drawing(rng, GREY, "star", "red", room=0.5)
    views = drawn_scenes.turns(drawing, 4)
    for before, after in zip(views[0].things, views[1].things, strict=True):
        # Clockwise, with y down: what was to the right is below.
        assert (after.x, after.y) == pytest.approx((1 - before.y, before.x))
        assert np.hypot(after.x - 0.5, after.y - 0.5) + after.radius <= 0.5 + 1e-9
    quarter = draw(views[1], 64)
    turned = np.rot90(draw(views[0], 64).segmentation, -1)
    assert (quarter.segmentation == turned).mean() > 0.97
    assert set(DrawnClips(clips=1, motion="turn", n_frames=4).load("star-red/000000")) == {"view"}


def test_a_clip_has_its_frames_and_annotations():
    source = DrawnClips(clips=2, n_frames=5, roles=("segmentation", "depth"), size=32)
    item = source.load(source.keys()[0])
    assert {role: len(images) for role, images in item.items()} == {
        "frame": 5,
        "segmentation": 5,
        "depth": 5,
    }
    assert len({frame.tobytes() for frame in item["frame"]}) == 5


def test_half_of_the_scenes_stand_on_photographs(tmp_path):
    Image.new("RGB", (300, 200), (10, 250, 10)).save(tmp_path / "meadow.png")
    Image.new("RGB", (40, 30), (10, 250, 10)).save(tmp_path / "small.png")
    source = DrawnScenes(scenes=60, backgrounds=str(tmp_path))
    lawns = 0
    keys = source.keys()
    for key in keys:
        item = source.load(key)
        ground = item["image"][0][maps.rgb_to_ids(item["segmentation"][0]) == 0]
        lawns += np.median(ground, axis=0).tolist() == [10, 250, 10]
    assert 18 < lawns < 42
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"no picture")
    for folder, words in (("broken", r"x\.png"), ("absent", "is not a folder")):
        source = DrawnScenes(backgrounds=str(tmp_path / folder))
        told = []
        for key in keys[:20]:
            try:
                source.load(key)
            except (BadItem, UserError) as error:
                told.append(str(error))
        assert told
        assert all(re.search(words, one) for one in told)


def test_impossible_drawings_are_refused():
    for make in (
        lambda: DrawnScenes(scenes=0),
        lambda: DrawnScenes(size=8),
        lambda: DrawnClips(clips=0),
        lambda: DrawnClips(n_frames=1),
    ):
        with pytest.raises(UserError, match="at least"):
            make()
