"""A data set that TensorFlow Datasets 4.9.10 prepared (`tiny_shapes` beside this file), read without TensorFlow.

Example i of train has an image of 5 + i rows and a mask of id i, a clip of three frames, and the class i % 2.
"""

import pathlib
import shutil

import numpy as np
import pytest

from data_pipelines.sources import BadItem, TfdsFolder
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    return pathlib.Path(
        shutil.copytree(pathlib.Path(__file__).parent / "tiny_shapes", tmp_path / "tiny_shapes")
    )


def test_images_and_masks_of_both_splits(root):
    roles = (("image", "image"), ("segmentation", "mask"))
    source = TfdsFolder(str(root), roles=roles, masks=("segmentation",))
    keys = source.keys()
    assert len(keys) == len(set(keys)) == 6
    assert keys[0] == "tiny_shapes-train.tfrecord-00000-of-00002/0000000"
    seen = set()
    for key in keys:
        item = source.load(key)
        (ids,) = np.unique(maps.rgb_to_ids(item["segmentation"][0], 256))
        seen.add(int(ids))
        assert item["image"][0].shape == (5 + ids, 7, 3)
        assert (item["image"][0] == 20 * ids).all()
    assert seen == set(range(6))
    assert len(TfdsFolder(str(root), split="test").keys()) == 2


def test_clips_and_nested_features(root):
    clips = TfdsFolder(str(root), roles=(("frame", "clip"), ("photo", "nested/photo")), category=3)
    item = clips.load(clips.keys()[0])
    levels = [int(frame[0, 0, 0]) for frame in item["frame"]]
    assert levels == [levels[0], levels[0] + 1, levels[0] + 2]
    assert item["photo"][0].shape == (4, 4, 3)


def test_classes_begin_the_keys(root):
    source = TfdsFolder(str(root), class_feature="label")
    keys = source.keys()
    classes = [key.split("/")[0] for key in keys]
    assert classes == ["round"] * 3 + ["square"] * 3
    rows = {source.load(key)["image"][0].shape[0] % 2 for key in keys[:3]}
    assert rows == {1}  # 5 + i, i even


def test_mistakes_are_one_line_and_damage_is_a_bad_item(root):
    with pytest.raises(
        UserError, match=r"no encoded pictures in 'depth': its features are clip, im"
    ):
        TfdsFolder(str(root), roles=(("image", "depth"),)).load(TfdsFolder(str(root)).keys()[0])
    with pytest.raises(UserError, match=r"no encoded pictures in 'label'"):
        TfdsFolder(str(root), roles=(("image", "label"),)).load(TfdsFolder(str(root)).keys()[0])
    with pytest.raises(UserError, match=r"holds no shard of split 'val'"):
        TfdsFolder(str(root), split="val").keys()
    with pytest.raises(UserError, match=r"no integer feature 'score'"):
        TfdsFolder(str(root), class_feature="score").keys()
    shard = root / "tiny_shapes-train.tfrecord-00000-of-00002"
    content = bytearray(shard.read_bytes())
    content[40] ^= 1
    shard.write_bytes(content)
    source = TfdsFolder(str(root))
    with pytest.raises(BadItem, match=r"/0000000: is damaged"):
        source.load(source.keys()[0])
