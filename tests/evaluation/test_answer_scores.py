"""Each score has the value that its formula gives by hand."""

import numpy as np
import pytest

from data_pipelines.annotators.keypoints import draw_keypoints
from lvm_jax.evaluation.lvm import answer_scores as scores
from lvm_jax.metrics.states import Mean, compute, merge
from lvm_jax.pictures import annotation_maps as maps


def mask(*boxes, size=20):
    found = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in boxes:
        found[y0:y1, x0:x1] = True
    return found


def test_segmentation_snaps_to_white_or_black():
    truth = maps.mask_to_rgb(mask((0, 0, 10, 10)))
    dim = np.where(mask((5, 0, 15, 10))[..., None], 140, 90).astype(np.uint8).repeat(3, axis=-1)
    assert scores.segmentation(dim, truth)["miou"].compute() == pytest.approx(50 / 150)
    assert scores.segmentation(truth, truth)["miou"].compute() == 1
    nothing = np.zeros_like(truth)
    assert scores.segmentation(nothing, truth)["miou"].compute() == 0
    assert scores.segmentation(nothing, nothing)["miou"].compute() == 1


def test_classes_in_the_truth_are_averaged():
    ids = np.zeros((10, 10), int)
    ids[:5, :4], ids[5:, :2] = 3, 7
    predicted = ids.copy()
    predicted[:5, 2:4] = 0  # half of class 3
    predicted[9, 9] = 5  # a class that is not there only costs the background
    found = scores.classes(maps.ids_to_rgb(predicted), maps.ids_to_rgb(ids))
    assert found == {"miou": Mean(0.5 + 1.0, 2.0)}


def test_detection_takes_the_rectangle_of_the_largest_region():
    truth = maps.mask_to_rgb(mask((2, 2, 12, 12)))
    ring = mask((2, 2, 12, 12)) & ~mask((4, 4, 10, 10))
    assert scores.detection(maps.mask_to_rgb(ring), truth)["miou"].compute() == 1
    assert (
        scores.detection(maps.mask_to_rgb(ring | mask((15, 15, 19, 19))), truth)["miou"].compute()
        == 1
    )
    assert scores.detection(np.zeros_like(truth), truth)["miou"].compute() == 0


def test_colorization_is_in_normalised_units():
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    expected = np.mean((0.2 / np.array([0.229, 0.224, 0.225])) ** 2)
    assert scores.colorization(grey, black)["mse"].compute() == pytest.approx(expected)


def test_pck():
    truth = np.array([[10.0, 10], [20, 20], [np.nan, np.nan], [30, 30]])
    predicted = np.array([[13.0, 14], [20, 26], [1, 1], [np.nan, np.nan]])
    found = scores.pck(predicted, truth, size=50)
    assert found == {
        "pck@0.1": Mean(1.0, 3.0)
    }  # 5 away counts, 6 does not, and what is missing does not
    assert scores.pck(predicted, truth, size=60)["pck@0.1"] == Mean(2.0, 3.0)


def test_depth_counts_surfaces_only():
    truth = maps.depth_to_rgb(np.array([[4.0, 8.0, np.inf]]))
    predicted = maps.depth_to_rgb(np.array([[4.0, 6.0, 4.0]]))
    found = compute(scores.depth(predicted, truth))
    level = (maps.DEPTH_FAR - maps.DEPTH_NEAR) / 255
    assert found["absrel"] == pytest.approx((0 + 2 / 8) / 2, abs=level)
    assert found["delta_1.25"] == 0.5
    assert found["mse"] == pytest.approx(2.0, abs=4 * level)


def test_normals_in_degrees():
    truth = maps.normals_to_rgb(np.array([[[0.0, 0, 1], [1, 0, 0], [0, 0, 0]]]))
    predicted = maps.normals_to_rgb(np.array([[[0.0, 1, 0], [1, 0, 0], [1, 0, 0]]]))
    assert scores.normals(predicted, truth)["mean_angle"].compute() == pytest.approx(45, abs=1)


def test_edges_within_the_tolerance():
    lines = np.zeros((200, 200), bool)
    lines[100] = True
    shifted = np.roll(lines, 2, axis=0)  # 0.75 % of the diagonal is 2.1 pixels
    both = shifted | np.roll(lines, 50, axis=0)
    found = compute(scores.edges(maps.mask_to_rgb(both), maps.mask_to_rgb(lines)))
    assert found == {"precision": 0.5, "recall": 1.0}
    empty = compute(
        scores.edges(np.zeros((9, 9, 3), np.uint8), maps.mask_to_rgb(mask((0, 0, 9, 1), size=9)))
    )
    assert np.isnan(empty["precision"])
    assert empty["recall"] == 0


def test_states_merge_by_weight():
    truth = np.array([[1.0, 1.0], [5, 5]])
    a = scores.pck(truth, truth, 10)
    b = scores.pck(truth[:1] + 90, truth[:1], 10)
    assert compute(merge(a, b)) == {"pck@0.1": pytest.approx(2 / 3)}


def test_keypoints_are_read_from_a_drawing():
    points = np.array([[[30.0, 10.0], [32.0, 40.0], [35.0, 70.0]]])
    drawn = draw_keypoints(points, 96)
    assert compute(scores.keypoints(drawn, drawn)) == {"pck@0.1": 1.0}
    # The drawing is about 65 pixels high; its centre is 6 pixels off in one, 8 in the other, which has no foot.
    near, far = points.copy(), points.copy()
    near[0, 1, 0] += 6
    far[0, 1, 0] += 8
    far[0, 2] = np.nan
    assert scores.keypoints(draw_keypoints(near, 96), drawn)["pck@0.1"] == Mean(3.0, 3.0)
    assert scores.keypoints(draw_keypoints(far, 96), drawn)["pck@0.1"] == Mean(1.0, 3.0)
