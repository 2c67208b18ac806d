"""What COCO's JSON may say, and what makes it none."""

import json

import pytest

from lvm_jax.errors import UserError
from lvm_jax.pictures.coco import Category, Listed, read_coco

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}
WHOLE = {"images": [IMAGE], "annotations": [], "categories": []}


def test_what_says_nothing_is_absent(tmp_path):
    annotation = {"image_id": 1, "category_id": 0, "bbox": [], "segmentation": None, "area": 5}
    zeros = {"image_id": 1, "keypoints": [0] * 51}
    content = {"images": [IMAGE], "annotations": [annotation, zeros], "info": {}}
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    coco = read_coco(tmp_path / "a.json")
    assert coco.images == {"a.jpg": Listed(60, 40, [{"category_id": 0, "area": 5}, {}])}
    assert coco.categories == {}


def test_lvis_names_its_files_by_url(tmp_path):
    image = {"id": 1, "width": 60, "height": 40, "coco_url": "http://host/train2017/01.jpg"}
    (tmp_path / "a.json").write_text(json.dumps(WHOLE | {"images": [image]}))
    assert list(read_coco(tmp_path / "a.json").images) == ["train2017/01.jpg"]


def test_lvis_says_of_which_categories_some_objects_are_missing(tmp_path):
    content = WHOLE | {
        "images": [IMAGE | {"not_exhaustive_category_ids": [3]}],
        "categories": [{"id": 3, "name": "cup", "synset": "cup.n.01"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    coco = read_coco(tmp_path / "a.json")
    assert coco.images["a.jpg"].incomplete == {3}
    assert coco.categories[3].synset == "cup.n.01"
    content["images"] = [IMAGE | {"not_exhaustive_category_ids": ["cup"]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not_exhaustive_category_ids that are no ids"):
        read_coco(tmp_path / "a.json")


def test_categories_keep_their_keypoints(tmp_path):
    dog = {"id": 7, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
    cat = {"id": 8, "name": "cat", "keypoints": None}
    (tmp_path / "a.json").write_text(json.dumps(WHOLE | {"categories": [dog, cat]}))
    categories = read_coco(tmp_path / "a.json").categories
    assert categories[7] == Category("dog", ("nose", "tail"), ([1, 2],))
    assert categories[8] == Category("cat")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": None}, "images is absent"),
        ({"annotations": None}, "annotations is absent"),
        ({"annotations": {}}, "annotations is no list"),
        ({"categories": {"1": "dog"}}, "categories is no list"),
        ({"images": ["a.jpg"]}, "an image has no id"),
        ({"images": [IMAGE | {"file_name": None}]}, "image 1 has no file_name"),
        ({"images": [IMAGE | {"file_name": 12}]}, "image 1 has no file_name"),
        ({"images": [IMAGE | {"width": None}]}, "image 1 has no width"),
        ({"images": [IMAGE | {"height": "40"}]}, "height is '40'"),
        ({"images": [IMAGE | {"width": 0}]}, "image 1 is 0x40 pixels"),
        ({"images": [IMAGE | {"id": [1]}]}, "unhashable"),
        ({"images": [IMAGE, IMAGE | {"file_name": "b.jpg"}]}, "image id 1 twice"),
        ({"images": [IMAGE, IMAGE | {"id": 2}]}, r"a file name twice, a\.jpg"),
        ({"annotations": [{"category_id": 1}]}, "an annotation has no image_id"),
        ({"annotations": [3]}, "an annotation has no image_id"),
        ({"categories": [{"id": 1}]}, "category 1 has no name"),
        ({"categories": [{"id": "1", "name": "dog"}]}, "must be a whole number"),
        ({"categories": [{"id": 1, "name": "dog"}] * 2}, "category id 1 twice"),
        ({"categories": [{"id": 1, "name": "dog", "keypoints": 17}]}, "that are no lists"),
    ],
)
def test_what_is_no_coco_json_is_one_line(tmp_path, change, words):
    content = {k: v for k, v in (WHOLE | change).items() if v is not None}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"a\.json is no COCO json \(.*{words}") as caught:
        read_coco(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"images": 1e', b"3"])
def test_what_is_no_json_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is no COCO json"):
        read_coco(tmp_path / "a.json")
