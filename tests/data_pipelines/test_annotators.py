import pickle

import numpy as np
import pytest

from data_pipelines import assets
from data_pipelines.annotators import (
    ANNOTATORS,
    Blur,
    CannotAnnotate,
    Canny,
    Grey,
    Holes,
    LowLight,
    Noise,
    OpticalFlow,
    Posterise,
    Rain,
)
from data_pipelines.annotators.keypoints import draw_keypoints
from data_pipelines.synthetic import cameras, renderer, scenes, toys
from data_pipelines.synthetic.edges import true_edges
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures import skeletons
from lvm_jax.pictures.boxes import boxes_from_drawing, draw_boxes
from lvm_jax.pictures.decode import load_image


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(2)
    return renderer.render(scenes.random_scene(rng), cameras.random_camera(rng), 64)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_kind_of_body_has_a_colour():
    assert len(toys.KINDS) < len(maps.PALETTE)


def test_boxes_survive_a_drawing():
    boxes = np.array(
        [(2, 3, 20, 30), (30, 10, 50, 22), (40, 40, 60, 63), (np.nan,) * 4], np.float32
    )
    picture = draw_boxes(boxes, np.array([3, 1, 3, 2]), 64)
    found, ids = boxes_from_drawing(picture, n_ids=13)
    order = np.argsort(found[:, 0])
    np.testing.assert_array_equal(found[order], boxes[:3])
    np.testing.assert_array_equal(ids[order], [3, 1, 3])


def test_outlines_keep_the_canvas_inside():
    canvas = np.full((16, 16, 3), 90, np.uint8)
    box = np.array([[2, 3, 10, 12]], np.float32)
    picture = draw_boxes(box, np.array([1]), 16, canvas)
    changed = (picture != canvas).any(-1)
    expected = np.zeros((16, 16), bool)
    expected[3:12, 2:10] = True
    expected[4:11, 3:9] = False
    np.testing.assert_array_equal(changed, expected)
    assert (canvas == 90).all()


@pytest.mark.parametrize("size", [64, 128])
def test_keypoints_survive_a_drawing(size):
    scale = size / 64
    keypoints = np.array(
        [[(10, 8), (10, 25), (11, 40)], [(40.4, 12.7), (42, 30), (44, 52.3)]], np.float32
    )
    picture = draw_keypoints(keypoints * scale, size)
    found = skeletons.keypoints_from_drawing(picture)
    for kind in range(3):
        order = np.argsort(found[kind][:, 0])
        np.testing.assert_allclose(found[kind][order], keypoints[:, kind] * scale, atol=0.6)


def test_edges_lie_on_outlines(frame):
    edges = true_edges(frame.segmentation, frame.depth, frame.normals)[..., 0] > 0
    ids = frame.segmentation
    steps = (ids[:, 1:] != ids[:, :-1])[:-1] | (ids[1:] != ids[:-1])[:, :-1]
    assert edges[:-1, :-1][steps].all()
    assert 0.02 < edges.mean() < 0.3
    flat = np.zeros((8, 8), np.int32)
    up = np.broadcast_to(np.array([0, 0, 1.0]), (8, 8, 3))
    assert not true_edges(flat, np.ones((8, 8)), up).any()


def test_grey_is_the_published_luma():
    image = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]], np.uint8)
    assert Grey().one(image, rng())[0].tolist() == [[76] * 3, [150] * 3, [29] * 3, [255] * 3]


def test_canny_finds_a_square_and_nothing_on_a_plain_wall():
    image = np.full((48, 48, 3), 60, np.uint8)
    assert not Canny().one(image, rng()).any()
    image[12:36, 12:36] = 200
    edges = Canny().one(image, rng())[..., 0] > 0
    assert edges[8:40, 8:40].sum() == edges.sum() > 60
    assert not edges[18:30, 18:30].any()


def test_masked_is_black_boxes_on_the_same_image():
    image = np.random.default_rng(1).integers(1, 256, (40, 60, 3), dtype=np.uint8)
    for seed in range(10):
        result = Holes().one(image, rng(seed))
        hole = (result != image).any(-1)
        assert (result[hole] == 0).all()
        assert 0.02 < hole.mean() < 0.61
    again = Holes().one(image, rng(9))
    np.testing.assert_array_equal(again, result)


@pytest.fixture(scope="module")
def photograph():
    """A real one, 192 pixels on its short side."""
    return load_image(sorted((assets.ROOT / "photos").iterdir())[3])


def test_optical_flow_sees_a_known_motion(photograph):
    height, width = photograph.shape[:2]
    clip = [np.roll(photograph, (2 * i, 6 * i), axis=(0, 1)) for i in range(3)]
    pictures = OpticalFlow().annotate(clip, rng())
    assert len(pictures) == 3
    for picture in pictures:
        flow = maps.rgb_to_flow(picture)[30:-30, 30:-30]
        moved = np.median(flow.reshape(-1, 2), axis=0) * (width, height)
        np.testing.assert_allclose(moved, (6, 2), atol=0.3)
    again = OpticalFlow().annotate(clip, rng(7))
    np.testing.assert_array_equal(pictures, again)
    for clip in ([photograph], [np.zeros((8, 40, 3), np.uint8)] * 2):
        with pytest.raises(CannotAnnotate, match="motion needs"):
            OpticalFlow().annotate(clip, rng())


def test_boxes_of_many_classes_survive_a_drawing_largest_first():
    boxes = np.array([(1, 2, 9, 10), (20, 5, 60, 39), (70, 3, 100, 20)], np.float32)
    picture = draw_boxes(boxes, np.array([90, 17, 64]), (40, 100), n_ids=91)
    assert picture.shape == (40, 100, 3)
    found, ids = boxes_from_drawing(picture, n_ids=91)
    np.testing.assert_array_equal(found, boxes[[1, 2, 0]])
    assert ids.tolist() == [17, 64, 90]


def test_thick_outlines_grow_inwards_and_small_boxes_fill():
    canvas = np.full((20, 30, 3), 90, np.uint8)
    boxes = np.array([(-3, 2, 12, 18), (1, 0, 4, 2)], np.float32)
    picture = draw_boxes(boxes, np.array([1, 2]), 0, canvas, thickness=3)
    assert (picture[5:15, 3:9] == 90).all()
    assert (picture[2:5, 5:12] == maps.PALETTE[1]).all()
    assert (picture[0:2, 1:4] == maps.PALETTE[2]).all()
    assert (picture[:, 13:] == 90).all()


def test_openpose_survives_a_drawing():
    coco = np.array(
        [
            *(
                (50, 16),
                (56, 12),
                (44, 12),
                (63, 14),
                (37, 14),
                (64, 34),
                (36, 34),
                (76, 48),
                (24, 48),
            ),
            *((84, 64), (16, 64), (60, 68), (42, 68), (62, 92), (38, 92), (64, 116), (34, 116)),
        ],
        np.float64,
    )[None]
    joints = skeletons.openpose_from_coco(coco)
    assert joints.shape == (1, 18, 2)
    np.testing.assert_allclose(joints[0, 1], (50, 34))  # the neck
    np.testing.assert_allclose(joints[0, 4], coco[0, 10])  # the right wrist
    picture = draw_keypoints(joints * 2, (256, 200), skeletons.OPENPOSE, radius=5)
    noisy = np.clip(picture + rng().integers(-20, 21, picture.shape), 0, 255).astype(np.uint8)
    for drawn in (picture, noisy):
        found = skeletons.keypoints_from_drawing(drawn, skeletons.OPENPOSE)
        for kind in range(18):
            np.testing.assert_allclose(found[kind][0], joints[0, kind] * 2, atol=1.0)
    joints[0, 7] = np.nan
    found = skeletons.keypoints_from_drawing(
        draw_keypoints(joints * 2, (256, 200), skeletons.OPENPOSE), skeletons.OPENPOSE
    )
    assert [len(centres) for centres in found] == [1] * 7 + [0] + [1] * 10


@pytest.mark.parametrize("damage", [Noise(), Rain(), LowLight(), Blur(), Posterise()])
def test_damage_changes_an_image_by_chance_alone_and_leaves_it_recognisable(damage, photograph):
    (result,) = damage.annotate([photograph], rng(3))
    assert result.shape == photograph.shape
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, damage.annotate([photograph], rng(3))[0])
    assert len({damage.one(photograph, rng(seed)).tobytes() for seed in range(6)}) > 1
    difference = np.abs(result.astype(int) - photograph).mean()
    assert 1 < difference < 130
    correlation = np.corrcoef(result.ravel(), photograph.ravel())[0, 1]
    assert correlation > 0.6


def test_low_light_is_dark_rain_is_bright_and_posterise_has_few_tones(photograph):
    assert LowLight().one(photograph, rng()).mean() < 0.6 * photograph.mean()
    dark = np.zeros((64, 64, 3), np.uint8)
    assert 2 < Rain().one(dark, rng()).mean() < 128
    flat = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 40, 0).repeat(3, -1)
    assert len(np.unique(Posterise(levels=(4, 4)).one(flat, rng()))) <= 8


@pytest.mark.parametrize(
    "make",
    [lambda: Noise(read=(0.2, 0.1)), lambda: Rain(density=(1.0,)), lambda: Posterise((1, 3))],
)
def test_ranges_that_are_none_are_refused(make):
    with pytest.raises(UserError, match="it must be two numbers"):
        make()


def test_every_kind_of_annotator_is_hashable_and_pickles():
    for kind, annotator in ANNOTATORS.items():
        needed = {"model": "m.onnx", "meaning": "grey", "input_size": (8, 8)}
        made = annotator(**(needed if kind == "onnx" else {}))
        assert hash(pickle.loads(pickle.dumps(made))) == hash(made)
