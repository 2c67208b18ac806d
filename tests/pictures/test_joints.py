"""Keypoints become discs and points again, come from the published layouts, and are scored in the truth's pixels."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.readers.coco import CocoKeypoints
from lvm_jax.evaluation.lvm.readers.pascal3d import Pascal3D
from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Episode
from lvm_jax.pictures.joints import Joints, draw_joints, joints_of


def save(path, seed, height=100, width=160):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_discs_and_back():
    points = np.array([[20.0, 30], [60, 70], [np.nan, np.nan], [110, 40]])
    drawing = draw_joints(Joints(points, 100.0), 100, 128)
    found = joints_of(drawing, 4)
    np.testing.assert_allclose(found, points, atol=0.75)
    assert np.isnan(joints_of(np.zeros_like(drawing), 4)).all()


@pytest.fixture
def coco(tmp_path):
    def person(image, joints, **more):
        points = [[30 + 2 * k, 40 + k, 2] if k < joints else [0, 0, 0] for k in range(17)]
        flat = [v for point in points for v in point]
        return {
            "image_id": image,
            "category_id": 1,
            "bbox": [20, 30, 60, 40],
            "keypoints": flat,
        } | more

    joints = {1: [17], 2: [5], 3: [3], 4: [9, 9]}
    found = [person(image, n) for image, people in joints.items() for n in people]
    found.append(person(5, 9, iscrowd=1))
    names = {i: f"{i:012d}.jpg" for i in range(1, 6)}
    images = [{"id": i, "file_name": n, "width": 160, "height": 100} for i, n in names.items()]
    content = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))
    for i, name in names.items():
        save(tmp_path / "val2017" / name, i)
    return tmp_path


def test_coco_keypoints_of_single_people(coco):
    reader = CocoKeypoints(coco)
    assert len(reader) == 2  # 3 has three joints, 4 two people, 5 is a crowd
    episode = reader.episode(1, shots=1, seed=0)
    assert episode.key == "000000000002/person"
    # the box 20..80 x 30..70 with an eighth of 60 on each side, rounded
    assert episode.query.shape == episode.truth.shape == (78 - 22, 88 - 12, 3)
    assert episode.joints.size == 60
    np.testing.assert_allclose(episode.joints.points_K2[4], (38 - 12, 44 - 22))
    assert np.isnan(episode.joints.points_K2[5:]).all()
    assert episode.truth.any()
    with pytest.raises(UserError, match="lower shots from 2"):
        reader.episode(0, shots=2, seed=0)
    with pytest.raises(UserError, match=r"person_keypoints_train\.json does not exist"):
        CocoKeypoints(coco, "train")


def test_pascal3d_anchors(tmp_path):
    def thing(kind="car", truncated=0):
        anchors = {
            "wheel": {"location": [31.0, 51.0], "status": 1},
            "lamp": {"location": [], "status": 2},
            "roof": {"location": [61.0, 41.0], "status": 1},
        }
        return {"class": kind, "bbox": [21.0, 31.0, 80.0, 70.0], "anchors": anchors,
                "truncated": truncated, "occluded": 0}  # fmt: skip

    cases = {"a": thing(), "b": thing(), "cut": thing(truncated=1), "other": thing("bus")}
    for number, (name, item) in enumerate(cases.items()):
        folder = tmp_path / "Annotations" / "car_imagenet"
        folder.mkdir(parents=True, exist_ok=True)
        savemat(folder / f"{name}.mat", {"record": {"objects": item}})
        save(tmp_path / "Images" / "car_imagenet" / f"{name}.JPEG", number)
    two = np.empty(2, object)
    two[:] = [thing(), thing()]
    savemat(tmp_path / "Annotations/car_imagenet/two.mat", {"record": {"objects": two}})
    (tmp_path / "Image_sets").mkdir()
    listing = tmp_path / "Image_sets" / "car_imagenet_val.txt"
    listing.write_text("\n".join([*cases, "two"]))
    reader = Pascal3D(tmp_path)
    assert len(reader) == 2
    episode = reader.episode(0, shots=1, seed=0)
    assert episode.key == "a/car"
    # lamp, roof, wheel in this order; MATLAB's (61, 41) is (60, 40), cut at (20 - 7.5, 30 - 7.5)
    lamp, roof, wheel = episode.joints.points_K2
    assert np.isnan(lamp).all()
    np.testing.assert_allclose([roof, wheel], [(60 - 12, 40 - 22), (30 - 12, 50 - 22)])
    (tmp_path / "Annotations/car_imagenet/a.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=r"damaged: .*a\.mat"):
        Pascal3D(tmp_path)
    with pytest.raises(UserError, match=r"no \*_imagenet_test\.txt"):
        Pascal3D(tmp_path, split="test")


def test_pck_is_in_the_pixels_of_the_truth(vqgan):
    """A wide picture, squashed: a disc 6 pixels too far to the right is within 0.1 of 100 and not within 0.1 of 40."""
    points = np.array([[40.0, 20], [90, 30]])
    drawing = draw_joints(Joints(points + np.array([6, 0]), 1), 50, 128)
    truth = draw_joints(Joints(points, 1), 50, 128)
    squashed = np.asarray(Image.fromarray(drawing).resize((64, 64), Image.Resampling.NEAREST))
    for size, right in ((100.0, 1.0), (40.0, 0.0)):
        episode = Episode([(truth, truth)], truth, truth, "wide", Joints(points, size))
        evaluator = BenchmarkEvaluator("joints", [episode])
        assert evaluator._score(squashed, truth, episode)["pck@0.1"].compute() == right
    bare = Episode([(truth, truth)], truth, truth, "bare")
    with pytest.raises(UserError, match="episode bare of joints has no joints"):
        evaluator._score(squashed, truth, bare)
