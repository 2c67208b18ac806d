import numpy as np
import pytest

from data_pipelines import renderer, scenes
from data_pipelines.annotators import drawings, mappings, photographs
from lvm_jax.errors import UserError


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(2)
    return renderer.render(scenes.random_scene(rng), scenes.random_camera(rng), 64)


def test_palette_colours_are_far_apart():
    p = mappings.PALETTE.astype(float)
    distance = np.linalg.norm(p[:, None] - p[None], axis=-1) + 1e3 * np.eye(len(p))
    assert distance.min() > 60
    assert len(scenes.KINDS) < len(p)


def test_ids_survive_colours_and_noise():
    ids = np.arange(len(mappings.PALETTE)).reshape(1, -1)
    rgb = mappings.ids_to_rgb(ids)
    np.testing.assert_array_equal(mappings.rgb_to_ids(rgb), ids)
    noise = np.random.default_rng(0).integers(-17, 18, rgb.shape)
    noisy = np.clip(rgb.astype(int) + noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(mappings.rgb_to_ids(noisy), ids)
    assert mappings.rgb_to_ids(rgb, n_ids=3).max() == 2
    np.testing.assert_array_equal(mappings.ids_to_rgb(np.array([17])), mappings.PALETTE[[1]])


def test_depth_survives_grey():
    depth = np.linspace(mappings.DEPTH_NEAR, mappings.DEPTH_FAR, 999, dtype=np.float32)[None]
    rgb = mappings.depth_to_rgb(depth)
    assert (np.diff(rgb[0, :, 0].astype(int)) <= 0).all()
    half_level = (mappings.DEPTH_FAR - mappings.DEPTH_NEAR) / 255 / 2
    np.testing.assert_allclose(mappings.rgb_to_depth(rgb), depth, atol=half_level * 1.01)
    outside = mappings.depth_to_rgb(np.array([[0.1, 99.0, np.inf]], np.float32))
    assert outside[0, :, 0].tolist() == [255, 0, 0]


def test_normals_survive_colours(frame):
    back = mappings.rgb_to_normals(mappings.normals_to_rgb(frame.normals))
    np.testing.assert_allclose(back, frame.normals, atol=0.01)
    assert mappings.normals_to_rgb(np.zeros((1, 1, 3))).tolist() == [[[128, 128, 128]]]


def test_boxes_survive_a_drawing():
    boxes = np.array(
        [(2, 3, 20, 30), (30, 10, 50, 22), (40, 40, 60, 63), (np.nan,) * 4], np.float32
    )
    picture = drawings.draw_boxes(boxes, np.array([3, 1, 3, 2]), 64)
    found, ids = drawings.boxes_from_drawing(picture, n_ids=13)
    order = np.argsort(found[:, 0])
    np.testing.assert_array_equal(found[order], boxes[:3])
    np.testing.assert_array_equal(ids[order], [3, 1, 3])


def test_outlines_keep_the_canvas_inside():
    canvas = np.full((16, 16, 3), 90, np.uint8)
    box = np.array([[2, 3, 10, 12]], np.float32)
    picture = drawings.draw_boxes(box, np.array([1]), 16, canvas)
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
    picture = drawings.draw_keypoints(keypoints * scale, size)
    found = drawings.keypoints_from_drawing(picture)
    for kind in range(3):
        order = np.argsort(found[kind][:, 0])
        np.testing.assert_allclose(found[kind][order], keypoints[:, kind] * scale, atol=0.6)


def test_edges_lie_on_outlines(frame):
    edges = drawings.true_edges(frame.segmentation, frame.depth, frame.normals)[..., 0] > 0
    ids = frame.segmentation
    steps = (ids[:, 1:] != ids[:, :-1])[:-1] | (ids[1:] != ids[:-1])[:, :-1]
    assert edges[:-1, :-1][steps].all()
    assert 0.02 < edges.mean() < 0.3
    flat = np.zeros((8, 8), np.int32)
    up = np.broadcast_to(np.array([0, 0, 1.0]), (8, 8, 3))
    assert not drawings.true_edges(flat, np.ones((8, 8)), up).any()


def test_grey_is_the_published_luma():
    image = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]], np.uint8)
    assert photographs.grey(image)[0].tolist() == [[76] * 3, [150] * 3, [29] * 3, [255] * 3]


def test_canny_finds_a_square_and_nothing_on_a_plain_wall():
    image = np.full((48, 48, 3), 60, np.uint8)
    assert not photographs.edges(image).any()
    image[12:36, 12:36] = 200
    edges = photographs.edges(image)[..., 0] > 0
    assert edges[8:40, 8:40].sum() == edges.sum() > 60
    assert not edges[18:30, 18:30].any()


def test_masked_is_black_boxes_on_the_same_image():
    image = np.random.default_rng(1).integers(1, 256, (40, 60, 3), dtype=np.uint8)
    for seed in range(10):
        result = photographs.masked(image, np.random.default_rng(seed))
        hole = (result != image).any(-1)
        assert (result[hole] == 0).all()
        assert 0.02 < hole.mean() < 0.61
    again = photographs.masked(image, np.random.default_rng(9))
    np.testing.assert_array_equal(again, result)


def test_unknown_role_names_the_known():
    with pytest.raises(UserError, match=r"'depth'.*edges, grey, masked"):
        photographs.annotate("depth", np.zeros((4, 4, 3), np.uint8), np.random.default_rng(0))
