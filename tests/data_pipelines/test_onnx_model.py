"""Any ONNX network as an annotator, proven with networks small enough to know what they must say."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from data_pipelines.annotators import OnnxModel
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

SIZE = (8, 12)


def save_network(path, nodes, inputs, outputs, constants=()) -> str:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return str(path)


def save_mix(path, weights) -> str:
    """A network whose output channel i is `weights[i] . (r, g, b)` at each pixel."""
    weights = np.asarray(weights, np.float32)[:, :, None, None]
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    outputs = [("y", [1, len(weights), *SIZE])]
    return save_network(path, [node], [1, 3, *SIZE], outputs, [("w", weights)])


@pytest.fixture
def image():
    """Twice the network's size, constant over its pixels, so that resizing loses nothing."""
    small = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return small.repeat(2, axis=0).repeat(2, axis=1)


def run(model: OnnxModel, image: np.ndarray) -> np.ndarray:
    (picture,) = model.annotate([image], np.random.default_rng(0))
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    return picture


def test_grey_is_the_output_times_255(tmp_path):
    path = save_mix(tmp_path / "red.onnx", [(1, 0, 0)])
    flat = np.full((20, 30, 3), (51, 102, 204), np.uint8)
    assert (run(OnnxModel(path, "grey", SIZE), flat) == 51).all()
    assert (run(OnnxModel(path, "grey", SIZE, order="bgr"), flat) == 204).all()
    sharp = OnnxModel(path, "grey", SIZE, activation="sigmoid", mean=(0.2,) * 3, std=(0.5,) * 3)
    assert abs(int(run(sharp, flat)[0, 0, 0]) - 127.5) <= 1
    assert (run(OnnxModel(path, "grey", SIZE, std=(0.1,) * 3), flat) == 255).all()


def test_depth_comes_back_within_half_a_level(tmp_path):
    path = save_mix(tmp_path / "depth.onnx", [(10, 0, 0)])
    flat = np.full((20, 30, 3), (128, 0, 0), np.uint8)
    picture = run(OnnxModel(path, "depth", SIZE, near=1.0, far=9.0), flat)
    depth = maps.rgb_to_depth(picture, near=1.0, far=9.0)
    np.testing.assert_allclose(depth, 10 * 128 / 255, atol=8 / 255 / 2 * 1.01)


def test_disparity_is_stretched_so_that_near_is_white(tmp_path, image):
    path = save_mix(tmp_path / "disparity.onnx", [(0, 7, 0)])
    picture = run(OnnxModel(path, "disparity", SIZE), image)
    assert (picture.min(), picture.max()) == (0, 255)
    green = image[..., 1].astype(float)
    assert np.corrcoef(picture[..., 0].ravel(), green.ravel())[0, 1] > 0.8
    flat = np.full((20, 30, 3), 77, np.uint8)
    assert (run(OnnxModel(path, "disparity", SIZE), flat) == 0).all()


def test_normals_come_back_as_unit_vectors_with_signs(tmp_path):
    path = save_mix(tmp_path / "normals.onnx", np.eye(3))
    flat = np.full((20, 30, 3), (60, 120, 240), np.uint8)
    model = OnnxModel(path, "normals", SIZE, axes=(1.0, -1.0, 1.0))
    normals = maps.rgb_to_normals(run(model, flat))
    expected = np.array([60, -120, 240]) / np.linalg.norm([60, 120, 240])
    np.testing.assert_allclose(normals, np.broadcast_to(expected, normals.shape), atol=0.01)


def test_segmentation_comes_back_exactly_from_scores_and_from_ids(tmp_path, image):
    scores = save_mix(tmp_path / "scores.onnx", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
    picture = run(OnnxModel(scores, "segmentation", SIZE, n_ids=3), image)
    np.testing.assert_array_equal(maps.rgb_to_ids(picture, 3), image.argmax(-1))
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        helper.make_node("Cast", ["i"], ["ids"], to=TensorProto.FLOAT),
    ]
    ids = save_network(tmp_path / "ids.onnx", nodes, [1, 3, *SIZE], [("ids", [1, *SIZE])])
    picture = run(OnnxModel(ids, "segmentation", SIZE), image)
    np.testing.assert_array_equal(maps.rgb_to_ids(picture, 256), image.argmax(-1))


def test_channels_last_and_a_named_output(tmp_path, image):
    shape = [1, *SIZE, 3]
    nodes = [
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    path = save_network(tmp_path / "last.onnx", nodes, shape, [("minus", shape), ("same", shape)])
    model = OnnxModel(path, "segmentation", SIZE, layout="channels_last", output="same", n_ids=3)
    np.testing.assert_array_equal(maps.rgb_to_ids(run(model, image), 3), image.argmax(-1))
    first = OnnxModel(path, "segmentation", SIZE, layout="channels_last", n_ids=3)
    np.testing.assert_array_equal(maps.rgb_to_ids(run(first, image), 3), image.argmin(-1))


def test_the_same_bytes_every_time(tmp_path, image):
    path = save_mix(tmp_path / "mix.onnx", [(0.3, 0.5, 0.2)])
    first = run(OnnxModel(path, "grey", SIZE), image)
    for _ in range(3):
        np.testing.assert_array_equal(run(OnnxModel(path, "grey", SIZE), image), first)


def test_mistakes_are_one_line(tmp_path, image):
    path = save_mix(tmp_path / "one.onnx", [(1, 0, 0)])
    (tmp_path / "text.onnx").write_text("no network")
    cases = [
        (OnnxModel(str(tmp_path / "none.onnx"), "grey", SIZE), r"none.onnx does not exist: give"),
        (OnnxModel(str(tmp_path / "text.onnx"), "grey", SIZE), r"text.onnx is no ONNX model"),
        (OnnxModel(path, "grey", (9, 9)), r"does not take an input \(1, 3, 9, 9\): set input_size"),
        (OnnxModel(path, "normals", SIZE), r"output \(1, 1, 8, 12\), which is no normals"),
        (OnnxModel(path, "grey", SIZE, output="z"), r"has no output 'z': it has y"),
    ]
    for model, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            run(model, image)
        assert "\n" not in str(caught.value)
    for wrong in (
        {"input_size": (8,)},
        {"mean": (0.5,)},
        {"std": (1.0, 0.0, 1.0)},
        {"near": 9.0, "far": 2.0},
        {"n_ids": 300},
    ):
        with pytest.raises(UserError):
            OnnxModel(**{"model": path, "meaning": "grey", "input_size": SIZE, **wrong})
