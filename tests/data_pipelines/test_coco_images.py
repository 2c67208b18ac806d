"""COCO jsons as they come: any ids, polygons as pycocotools fills them, skeletons of any category, and damage."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco

from data_pipelines.sources import BadItem, CocoImages
from data_pipelines.sources.coco_masks import mask_runs
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures import skeletons
from lvm_jax.pictures.boxes import boxes_from_drawing
from lvm_jax.pictures.coco import colour_ids, read_coco, skeleton_of
from lvm_jax.pictures.run_lengths import fill_runs

SIZE = (40, 60)  # height, width


def save(root, annotations, categories=None, **more):
    (root / "photos").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (128, 128, 128)).save(root / "photos" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}],
        "annotations": [{"image_id": 1} | a for a in annotations],
    }
    if categories is not None:
        content["categories"] = categories
    (root / "coco.json").write_text(json.dumps(content | more))
    return {"root": str(root), "images": "photos", "annotations": "coco.json"}


def named(*ids, **more):
    return [{"id": i, "name": f"thing {i}"} | more for i in ids]


def square(x, y, side=8):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def filled(segmentation, size=SIZE):
    return fill_runs(mask_runs(segmentation, size), size)


@pytest.mark.parametrize(
    ("ids", "n_ids", "places"),
    [
        ([0, 1, 2], 91, [1, 2, 3]),
        ([-1, 7], 91, [1, 2]),
        ([20, 110, 200], 91, [1, 2, 3]),
        ([90, 91], 91, [1, 2]),
        ([3, 90], 91, [3, 90]),
        ([3, 9], 4, [1, 2]),
        ([10**12, 5], 91, [2, 1]),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_every_category_has_a_colour_of_its_own(tmp_path, ids, n_ids, places, declared):
    annotations = [
        {"category_id": i, "bbox": [12 * n, 5, 8, 8], "segmentation": square(12 * n, 5)}
        for n, i in enumerate(ids)
    ]
    where = save(tmp_path, annotations, named(*ids) if declared else None)
    source = CocoImages(**where, roles=("segmentation", "boxes"), boxes_on="black", n_ids=n_ids)
    item = source.load(source.keys()[0])
    for role in ("segmentation", "boxes"):
        drawn = maps.rgb_to_ids(item[role][0], n_ids)
        assert [drawn[9, 12 * n + 4] for n in range(len(ids))] == places
    coco = read_coco(tmp_path / "coco.json")
    assert [colour_ids(coco, n_ids)[i] for i in ids] == places


def test_two_files_of_the_same_categories_agree_whatever_they_show(tmp_path):
    train = save(tmp_path / "train", [{"category_id": 2, "bbox": [1, 1, 8, 8]}], named(0, 1, 2))
    validation = save(tmp_path / "val", [{"category_id": 0, "bbox": [1, 1, 8, 8]}], named(0, 1, 2))
    for where, place in ((train, 3), (validation, 1)):
        picture = CocoImages(**where, boxes_on="black").load("a.png")["boxes"][0]
        assert boxes_from_drawing(picture, 91)[1].tolist() == [place]


def test_more_categories_than_colours_are_one_error(tmp_path):
    box = {"category_id": 1, "bbox": [1, 1, 8, 8], "segmentation": square(1, 1)}
    where = save(tmp_path, [box], named(*range(1203)))
    for role in ("boxes", "segmentation"):
        with pytest.raises(UserError, match=r"coco.json: the json has 1203 .*n_ids is 91.*raise n"):
            CocoImages(**where, roles=(role,)).keys()
        with pytest.raises(UserError, match="1203 categories"):
            CocoImages(**where, roles=(role,)).load("a.png")
    where = save(tmp_path / "b", [box], named(*range(1, 256)))
    assert CocoImages(**where, n_ids=256).keys() == ["a.png"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its decode
def test_polygons_are_filled_as_pycocotools_does():
    assert filled(square(40, 20, 10)).sum() == 100
    turn = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    for radius in (1.5, 3, 12, 70):  # the last is cut at the picture's edges
        circle = np.stack([30.3 + radius * np.cos(turn), 19.8 + radius * np.sin(turn)], 1)
        polygon = circle.ravel().tolist()
        expected = pycoco.decode(pycoco.merge(pycoco.frPyObjects([polygon], *SIZE)))
        np.testing.assert_array_equal(filled([polygon]), expected)
    two_parts = filled(square(2, 2) + square(30, 20))
    np.testing.assert_array_equal(two_parts, filled(square(2, 2)) | filled(square(30, 20)))
    np.testing.assert_array_equal(filled(square(2, 2) + square(6, 6)).sum(), 2 * 64 - 16)


def test_run_lengths_are_read_as_list_and_as_text():
    mask = np.random.default_rng(0).random(SIZE) > 0.7
    mask[:, 20:] = False  # a long run, so a number of several characters
    text = pycoco.encode(np.asfortranarray(mask, np.uint8))
    flat = mask.T.ravel()
    borders = np.flatnonzero(np.diff(np.concatenate([[False], flat]))).tolist()
    counts = np.diff([0, *borders, flat.size]).tolist()
    for found in (counts, text["counts"].decode()):
        np.testing.assert_array_equal(filled({"size": list(SIZE), "counts": found}), mask)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [60, 40], "counts": [2400]}, r"size is \[60, 40\], its image's .*\(40, 60\)"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "size is"),
        ({"size": 40, "counts": [2400]}, "size is 40"),
        ({"counts": [2400]}, "size is None"),
        ({"size": [40, 60]}, "counts is None"),
        ({"size": [40, 60], "counts": []}, "runs of 0 pixels do not fill 40x60"),
        ({"size": [40, 60], "counts": [2399]}, "runs of 2399 pixels do not fill"),
        ({"size": [40, 60], "counts": [10**30]}, "do not fill"),
        ({"size": [40, 60], "counts": [2401, -1]}, "shortest of -1, do not fill"),
        ({"size": [40, 60], "counts": [2400.0]}, "list of whole numbers"),
        ({"size": [40, 60], "counts": [True, 2399]}, "list of whole numbers"),
        ({"size": [40, 60], "counts": "PPY2P"}, "ends inside a number"),
        ({"size": [40, 60], "counts": "o" * 100_000}, "no text of run lengths"),
        ({"size": [40, 60], "counts": "W2 é"}, "no text of run lengths"),
        ([], "must be polygons or run lengths"),
        ("text", "must be polygons or run lengths"),
        ([[1, 1, 9, 9]], "a polygon has 4 numbers"),  # pycocotools would take it for a box
        ([[1, 1, 9, 1, 9, 9, 1]], "a polygon has 7 numbers"),
        ([1, 1, 9, 1, 9, 9], "a polygon is 1: it must be a list"),
        ([[[1, 1], [9, 1], [9, 9]]], "list of finite numbers"),
        ([[1, 1, 9, 1, float("nan"), 9]], "list of finite numbers"),
        ([[1, 1, 9, 1, float("inf"), 9]], "list of finite numbers"),
        ([[1, 1, 9, 1, 10**400, 9]], "list of finite numbers"),
        ([[1, 1, 9, 1, "9", 9]], "list of finite numbers"),
        ([[1, 1, 9, 1, 1e12, 9]], "at most 1000000"),
        ([[1e7, 1, 1e7 + 5, 1, 1e7, 9]], "at most 1000000"),
        ([[0, 0, 1e5, 0] * 20], "at most 1000000"),
        (square(70, 5), "lies outside its image of 60x40"),
        (square(-20, 5), "lies outside its image of 60x40"),
    ],
)
def test_masks_that_are_none_are_bad_items_that_cost_no_memory(tmp_path, segmentation, words):
    with pytest.raises(ValueError, match=words):
        mask_runs(segmentation, SIZE)
    annotations = [{"category_id": 1, "segmentation": s} for s in (segmentation, square(1, 1))]
    source = CocoImages(**save(tmp_path, annotations), roles=("segmentation",))
    if segmentation:  # an empty list is no annotation
        with pytest.raises(BadItem, match=r"a.png: has segmentation that cannot be drawn"):
            source.load("a.png")


@pytest.mark.parametrize(
    "bbox",
    [
        [1, 1, float("nan"), 5],
        [float("inf"), 1, 5, 5],
        [1e308, 1, 1e308, 5],
        [1, 1, -5, 5],
        [1, 1, 5],
        [1, 1, 5, 5, 0],
        {"x": 1},
        ["1", "1", "5", "5"],
        [[1, 1, 5, 5]],
        [70, 1, 5, 5],
        [-9, 1, 5, 5],
        [1, 45, 5, 5],
        [10**400, 1, 5, 5],
    ],
)
def test_boxes_that_are_none_are_bad_items(tmp_path, bbox):
    source = CocoImages(**save(tmp_path, [{"category_id": 1, "bbox": bbox}]))
    with pytest.raises(BadItem, match=r"a.png: has boxes that cannot be drawn \(bbox "):
        source.load("a.png")


def test_boxes_are_cut_at_the_edges_and_may_have_no_size(tmp_path):
    boxes = [[-5, 30, 20, 20], [30, 10, 0, 5], [30.4, 9.6, 9, 9]]
    annotations = [{"category_id": i, "bbox": box} for i, box in enumerate(boxes, 1)]
    source = CocoImages(**save(tmp_path, annotations), boxes_on="black")
    found, ids = boxes_from_drawing(source.load("a.png")["boxes"][0], 91)
    np.testing.assert_array_equal(found, [(0, 30, 15, 40), (30, 10, 39, 19)])
    assert ids.tolist() == [1, 3]


@pytest.mark.parametrize("category_id", [None, "1", 1.5, [1], True])
def test_an_annotation_without_category_is_a_bad_item(tmp_path, category_id):
    annotation = {"category_id": category_id, "bbox": [1, 1, 5, 5], "segmentation": square(1, 1)}
    where = save(tmp_path, [annotation])
    for role in ("boxes", "segmentation"):
        with pytest.raises(BadItem, match=rf"a.png: has {role} .*category_id"):
            CocoImages(**where, roles=(role,)).load("a.png")


def test_images_of_crowds_alone_have_no_boxes(tmp_path):
    crowd = {"category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 1, "segmentation": square(1, 1)}
    where = save(tmp_path, [crowd, {"category_id": 1, "bbox": []}])
    with pytest.raises(UserError, match="no image with boxes"):
        CocoImages(**where).keys()
    assert CocoImages(**where, roles=("segmentation",)).keys() == ["a.png"]


def flat(points, visible=2):
    return [v for x, y in points for v in (x, y, visible)]


def spread(count):
    """Points far enough apart for their discs, in SIZE."""
    return [(5 + 10 * (i % 6), 5 + 10 * (i // 6)) for i in range(count)]


def test_a_category_is_drawn_by_its_own_skeleton(tmp_path):
    names = [f"joint {k}" for k in range(9)]
    category = named(3, keypoints=names, skeleton=[[1, 2], [2, 9]])
    where = save(tmp_path, [{"category_id": 3, "keypoints": flat(spread(9))}], category)
    source = CocoImages(**where, roles=("keypoints",))
    picture = source.load(source.keys()[0])["keypoints"][0]
    skeleton = skeleton_of(read_coco(tmp_path / "coco.json").categories[3])
    assert skeleton.limbs == ((0, 1), (1, 8))
    found = skeletons.keypoints_from_drawing(picture, skeleton)
    assert [len(centres) for centres in found] == [1] * 9
    np.testing.assert_allclose(np.concatenate(found), np.array(spread(9)) + 0.5, atol=1)
    assert (picture == skeleton.limb_colours[0]).all(-1).any()
    assert len({*skeleton.colours, *skeleton.limb_colours, (0, 0, 0)}) == 9 + 1 + 1


def test_17_keypoints_of_an_animal_are_not_those_of_a_person(tmp_path):
    people = named(1, keypoints=[n.replace("_", " ") for n in skeletons.COCO_KEYPOINTS])
    animal = named(1, keypoints=[f"paw {k}" for k in range(17)])
    cases = ((people, True), (animal, False), (named(1), True), (None, True))
    for i, (category, openpose) in enumerate(cases):
        where = save(
            tmp_path / f"{i}", [{"category_id": 1, "keypoints": flat(spread(17))}], category
        )
        source = CocoImages(**where, roles=("keypoints",))
        assert source.keys() == ["a.png"]
        picture = source.load("a.png")["keypoints"][0]
        assert (picture == skeletons.OPENPOSE.colours[0]).all(-1).any() == openpose
    assert skeletons.COCO_KEYPOINTS[:3] == ("nose", "left_eye", "right_eye")
    assert skeletons.COCO_KEYPOINTS[15:] == ("left_ankle", "right_ankle")


@pytest.mark.parametrize(
    ("keypoints", "names", "words"),
    [
        (flat(spread(1)) * 68, None, "has 204 numbers, but category '1' lists no keypoints.* 51"),
        (flat(spread(17)), 16, "has 51 numbers, but category 'thing 1' lists 16: it must be 48"),
        (flat(spread(16)), 17, "has 48 numbers, but category 'thing 1' lists 17: it must be 51"),
        (flat(spread(17))[:-1], None, "has 50 numbers"),
        (flat(spread(17), 3), None, "a visibility other than 0"),
        (flat(spread(17), 0.9), None, "a visibility other than 0"),
        (flat(spread(17), -1), None, "a visibility other than 0"),
        (flat([(float("nan"), 1)] * 17), None, "list of finite numbers"),
        (flat([(1e12, 1)] * 17), None, "outside the image"),
        ("text", None, "list of finite numbers"),
        ([[1, 2, 2]] * 17, None, "list of finite numbers"),
    ],
)
def test_keypoints_that_are_not_the_categorys_are_bad_items(tmp_path, keypoints, names, words):
    category = names and named(1, keypoints=[f"{k}" for k in range(names)])
    where = save(tmp_path, [{"category_id": 1, "keypoints": keypoints}], category)
    source = CocoImages(**where, roles=("keypoints",))
    with pytest.raises(BadItem, match=f"a.png: has keypoints that cannot be drawn .*{words}"):
        source.load("a.png")


def test_keypoints_not_marked_are_left_out(tmp_path):
    points = np.array(flat(spread(17))).reshape(17, 3)
    points[1:, 2] = 0
    points[2:4, 2] = 1  # hidden, yet marked
    annotation = {"category_id": 1, "keypoints": points.ravel().tolist()}
    source = CocoImages(**save(tmp_path, [annotation]), roles=("keypoints",))
    picture = source.load("a.png")["keypoints"][0]
    found = skeletons.keypoints_from_drawing(picture, skeletons.OPENPOSE)
    shown = [k for k, centres in enumerate(found) if len(centres)]
    assert shown == [0, 14, 17]  # nose, right eye, left ear


def test_skeletons_that_are_none_and_two_in_one_picture_are_named(tmp_path):
    pose = {"category_id": 1, "keypoints": flat(spread(3))}
    three = {"keypoints": ["a", "b", "c"]}
    for i, skeleton in enumerate(([[0, 1]], [[1, 4]], [[1]], [3], [["1", "2"]])):
        where = save(tmp_path / f"{i}", [pose], named(1, **three, skeleton=skeleton))
        with pytest.raises(UserError, match=r"category 'thing 1' has .* in its skeleton.*from 1"):
            CocoImages(**where, roles=("keypoints",)).keys()
    many = named(1, keypoints=[f"{k}" for k in range(255)])
    with pytest.raises(UserError, match="255 kinds of keypoints are too many"):
        CocoImages(**save(tmp_path / "many", [pose], many), roles=("keypoints",)).keys()
    both = [pose, {"category_id": 2, "keypoints": flat(spread(17))}]
    where = save(tmp_path / "both", both, named(1, **three) + named(2))
    with pytest.raises(BadItem, match="skeletons of thing 1 and thing 2"):
        CocoImages(**where, roles=("keypoints",)).load("a.png")
    same = [pose, {"category_id": 2, "keypoints": flat(spread(3))}]
    where = save(tmp_path / "same", same, named(1, 2, **three))
    assert CocoImages(**where, roles=("keypoints",)).load("a.png")["keypoints"][0].any()
