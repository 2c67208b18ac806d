"""Sets that come with annotations, in the layouts in which they are published."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from data_pipelines.sources import (
    BadItem,
    CocoImages,
    PairedClips,
    PairedFiles,
    WebDataset,
    webdataset,
)
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures import skeletons
from lvm_jax.pictures.boxes import boxes_from_drawing
from lvm_jax.pictures.run_lengths import decode_run_lengths


def save(path, value=0, size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def save_indexed(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    image.putpalette([7 * i % 256 for i in range(768)])
    image.save(path)


def random_ids(seed=0, shape=(8, 12), n_ids=21):
    return np.random.default_rng(seed).integers(0, n_ids, shape).astype(np.uint8)


VOC = (("image", "JPEGImages/{key}.png"), ("segmentation", "SegmentationClass/{key}.png"))


def test_palette_masks_become_colours_and_come_back(tmp_path):
    ids = random_ids()
    ids[0, :3] = 255  # VOC's border of nothing
    save(tmp_path / "JPEGImages" / "2007_01.png", 9)
    save(tmp_path / "JPEGImages" / "unlabelled.png", 9)
    save_indexed(tmp_path / "SegmentationClass" / "2007_01.png", ids)
    source = PairedFiles(str(tmp_path), VOC, masks=("segmentation",), n_ids=21)
    assert source.keys() == ["2007_01"]
    item = source.load("2007_01")
    back = maps.rgb_to_ids(item["segmentation"][0], 21)
    np.testing.assert_array_equal(back, np.where(ids == 255, 0, ids))
    assert (item["image"][0] == 9).all()


def test_grey_and_16_bit_masks_hold_their_ids_and_true_colours_are_refused(tmp_path):
    save(tmp_path / "JPEGImages" / "a.png")
    source = PairedFiles(str(tmp_path), VOC, masks=("segmentation",))
    path = tmp_path / "SegmentationClass" / "a.png"
    path.parent.mkdir()
    for dtype in (np.uint8, np.uint16):
        Image.fromarray(random_ids().astype(dtype)).save(path)
        back = maps.rgb_to_ids(source.load("a")["segmentation"][0], 256)
        np.testing.assert_array_equal(back, random_ids())
    save(path)
    with pytest.raises(BadItem, match=r"a: a.png is of mode RGB, no indexed mask"):
        source.load("a")
    path.write_bytes(b"no picture")
    with pytest.raises(BadItem, match=r"a: a.png cannot be decoded"):
        source.load("a")


def masks_source(root, ids, **options):
    save(root / "JPEGImages" / "a.png", size=(12, 8))
    Image.fromarray(ids).save(root / "a.png")
    roles = (VOC[0], ("segmentation", "{key}.png"))
    return PairedFiles(str(root), roles, masks=("segmentation",), **options)


def test_255_is_void_beside_other_ids_and_the_object_where_there_is_no_other(tmp_path):
    binary = np.where(random_ids() > 9, 255, 0).astype(np.uint8)
    void = np.where(binary == 255, 255, 3).astype(np.uint8)
    for ids, expected in (
        (binary, binary > 0),
        (np.full_like(binary, 255), np.ones((8, 12))),
        (np.zeros_like(binary), np.zeros((8, 12))),
        (void, np.where(binary == 255, 0, 3)),
        (np.minimum(binary, 1), binary > 0),
    ):
        drawn = masks_source(tmp_path, ids, n_ids=21).load("a")["segmentation"][0]
        np.testing.assert_array_equal(maps.rgb_to_ids(drawn, 21), expected)
    all_ids = masks_source(tmp_path, void, ignore=-1).load("a")["segmentation"][0]
    np.testing.assert_array_equal(maps.rgb_to_ids(all_ids, 256), void)


def test_a_mask_that_ignoring_empties_and_ids_without_a_colour_are_bad_items(tmp_path):
    binary = np.where(random_ids() > 9, 255, 0).astype(np.uint8)
    with pytest.raises(BadItem, match=r"a: has a mask of only 0 and 255.*set ignore to -1"):
        masks_source(tmp_path, binary, ignore=255).load("a")
    assert not masks_source(tmp_path, binary * 0, ignore=255).load("a")["segmentation"][0].any()
    with pytest.raises(BadItem, match=r"a: has a mask whose id 20 has no colour: n_ids is 15"):
        masks_source(tmp_path, random_ids(), n_ids=15).load("a")
    with pytest.raises(BadItem, match=r"a: has a mask whose id 24003 has no colour: n_ids is 256"):
        masks_source(tmp_path, np.full((8, 12), 24003, np.uint16)).load("a")


def test_templates_find_cityscapes_names_in_sub_folders(tmp_path):
    name = "aachen/aachen_000000_000019"
    save(tmp_path / "leftImg8bit" / "train" / f"{name}_leftImg8bit.png", 50)
    save_indexed(tmp_path / "gtFine" / "train" / f"{name}_gtFine_labelIds.png", random_ids())
    save_indexed(tmp_path / "gtFine" / "train" / f"{name}_gtFine_instanceIds.png", random_ids())
    roles = (
        ("image", "leftImg8bit/train/{key}_leftImg8bit.png"),
        ("segmentation", "gtFine/train/{key}_gtFine_labelIds.png"),
    )
    source = PairedFiles(str(tmp_path), roles, masks=("segmentation",))
    assert source.keys() == [name]
    assert source.load(name)["image"][0][0, 0, 0] == 50


def test_a_shrunk_image_takes_its_mask_along(tmp_path):
    ids = np.zeros((40, 60), np.uint8)
    ids[:, 30:] = 5
    save(tmp_path / "JPEGImages" / "a.png", 1, size=(60, 40))
    save_indexed(tmp_path / "SegmentationClass" / "a.png", ids)
    source = PairedFiles(str(tmp_path), VOC, masks=("segmentation",), short_side=20)
    item = source.load("a")
    assert item["image"][0].shape == item["segmentation"][0].shape == (20, 30, 3)
    small = maps.rgb_to_ids(item["segmentation"][0], 256)
    assert np.unique(small[:, :15]) == [0]
    assert np.unique(small[:, 15:]) == [5]


def test_pairs_of_pictures_keep_what_stands_in_them(tmp_path):
    for i in (1, 2):
        save(tmp_path / "rainy" / f"rain-{i}.png", 100 + i)
        save(tmp_path / "clean" / f"norain-{i}.png", i)
    roles = (("image", "clean/norain-{key}.png"), ("rain", "rainy/rain-{key}.png"))
    source = PairedFiles(str(tmp_path), roles)
    assert source.keys() == ["1", "2"]
    item = source.load("2")
    assert (item["image"][0][0, 0, 0], item["rain"][0][0, 0, 0]) == (2, 102)


def test_an_annotation_without_image_and_a_mask_of_another_size_are_bad_items(tmp_path):
    save(tmp_path / "JPEGImages" / "wide.png", size=(20, 8))
    for key in ("wide", "orphan"):
        save_indexed(tmp_path / "SegmentationClass" / f"{key}.png", random_ids())
    source = PairedFiles(str(tmp_path), VOC, masks=("segmentation",))
    assert source.keys() == ["orphan", "wide"]
    with pytest.raises(BadItem, match=r"orphan: has no image: orphan.png does not exist"):
        source.load("orphan")
    with pytest.raises(BadItem, match=r"wide: wide.png is 12x8 pixels, its image 20x8"):
        source.load("wide")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"roles": ()}, "pairs"),
        ({"roles": (("image",),)}, "pairs"),
        ({"roles": (("image", "a/b.png"),)}, "must hold {key} once"),
        ({"roles": (("image", "{key}.png"), ("image", "b/{key}.png"))}, "twice"),
        ({"masks": ("depth",)}, "masks names 'depth': the annotations are annotation"),
        ({"n_ids": 500}, "n_ids is 500"),
    ],
)
def test_impossible_pairings_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        PairedFiles("/data", **change)


def test_clips_have_the_frames_that_every_role_has_in_order(tmp_path):
    for i in range(12):
        save(tmp_path / "JPEGImages" / "480p" / "bear" / f"{i}.png", i)
        if i % 5 == 0:
            save_indexed(
                tmp_path / "Annotations" / "480p" / "bear" / f"{i}.png", np.full((8, 12), i + 1)
            )
            for role in ("JPEGImages", "Annotations"):  # the shadow of a file, from a Mac
                (tmp_path / role / "480p" / "bear" / f"._{i}.png").write_bytes(b"\0")
    save_indexed(tmp_path / "Annotations" / "480p" / "ghost" / "0.png", random_ids())
    roles = (
        ("frame", "JPEGImages/480p/{key}/{frame}.png"),
        ("segmentation", "Annotations/480p/{key}/{frame}.png"),
    )
    source = PairedClips(str(tmp_path), roles, masks=("segmentation",))
    assert source.keys() == ["bear", "ghost"]
    item = source.load("bear")
    assert [frame[0, 0, 0] for frame in item["frame"]] == [0, 5, 10]
    ids = [maps.rgb_to_ids(mask, 256)[0, 0] for mask in item["segmentation"]]
    assert ids == [1, 6, 11]
    with pytest.raises(BadItem, match=r"ghost: has no frame with every role, but 0 of frame, 1 of"):
        source.load("ghost")
    with pytest.raises(UserError, match=r"must hold {key} and {frame} once"):
        PairedClips(str(tmp_path), VOC)


def save_coco(root, annotations, images=((1, "a.png", 60, 40),)):
    for _, name, width, height in images:
        save(root / "photos" / name, 128, size=(width, height))
    keys = ("id", "file_name", "width", "height")
    content = {
        "images": [dict(zip(keys, image, strict=True)) for image in images],
        "annotations": annotations,
    }
    (root / "coco.json").write_text(json.dumps(content))
    return {"root": str(root), "images": "photos", "annotations": "coco.json"}


def test_coco_boxes_on_black_come_back_and_outlines_leave_the_image(tmp_path):
    annotations = [
        {"image_id": 1, "category_id": 18, "bbox": [2, 3, 10, 12]},
        {"image_id": 1, "category_id": 44, "bbox": [20, 1, 30, 38]},
        {"image_id": 1, "category_id": 90, "bbox": [0, 0, 60, 40], "iscrowd": 1},
    ]
    where = save_coco(tmp_path, annotations)
    source = CocoImages(**where, boxes_on="black")
    assert source.keys() == ["a.png"]
    boxes, ids = boxes_from_drawing(source.load("a.png")["boxes"][0], n_ids=91)
    np.testing.assert_array_equal(boxes, [(20, 1, 50, 39), (2, 3, 12, 15)])
    assert ids.tolist() == [44, 18]
    item = CocoImages(**where).load("a.png")
    drawn = item["boxes"][0]
    assert (drawn[10, 30] == 128).all()
    assert (drawn[1, 30] == maps.palette(91)[44]).all()
    assert (item["image"][0] == 128).all()
    half, _ = boxes_from_drawing(
        CocoImages(**where, boxes_on="black", short_side=20).load("a.png")["boxes"][0], n_ids=91
    )
    np.testing.assert_allclose(half, [(10, 0, 25, 20), (1, 2, 6, 8)], atol=0.51)


def test_a_small_coco_box_is_drawn_above_the_large_one_around_it(tmp_path):
    annotations = [
        {"image_id": 1, "category_id": 2, "bbox": [20, 10, 9, 9]},
        {"image_id": 1, "category_id": 1, "bbox": [5, 5, 50, 30]},
    ]
    picture = CocoImages(**save_coco(tmp_path, annotations), boxes_on="black").load("a.png")
    boxes, ids = boxes_from_drawing(picture["boxes"][0], n_ids=91)
    np.testing.assert_array_equal(boxes, [(5, 5, 55, 35), (20, 10, 29, 19)])
    assert ids.tolist() == [1, 2]


def test_coco_keypoints_become_a_skeleton_and_come_back(tmp_path):
    x = [100, 106, 94, 113, 87, 114, 86, 126, 74, 134, 66, 110, 92, 112, 88, 114, 84]
    y = [32, 24, 24, 28, 28, 68, 68, 96, 96, 128, 128, 136, 136, 184, 184, 232, 232]
    x = [100 + 2 * (v - 100) for v in x]
    visible = [2] * 17
    visible[9] = 0  # the left wrist
    flat = [n for joint in zip(x, y, visible, strict=True) for n in joint]
    annotations = [
        {"image_id": 1, "category_id": 1, "keypoints": flat},
        {"image_id": 1, "category_id": 1, "keypoints": [0] * 51},
    ]
    where = save_coco(tmp_path, annotations, [(1, "a.png", 200, 260)])
    picture = CocoImages(**where, roles=("keypoints",)).load("a.png")["keypoints"][0]
    found = skeletons.keypoints_from_drawing(picture, skeletons.OPENPOSE)
    np.testing.assert_allclose(found[0][0], (x[0] + 0.5, y[0] + 0.5), atol=1)  # nose
    np.testing.assert_allclose(found[1][0], (100.5, 68.5), atol=1)  # neck
    np.testing.assert_allclose(found[13][0], (x[15] + 0.5, y[15] + 0.5), atol=1)  # left ankle
    assert [len(centres) for centres in found] == [1] * 7 + [0] + [1] * 10


def test_coco_polygons_and_run_lengths_become_ids(tmp_path):
    runs = np.zeros((40, 60), bool)
    runs[5:9, 40:50] = True
    flat = runs.T.ravel()
    borders = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *borders, flat.size]).tolist()
    annotations = [
        {"image_id": 1, "category_id": 7, "segmentation": [[10, 10, 29, 10, 29, 29, 10, 29]]},
        {"image_id": 1, "category_id": 9, "segmentation": [[15, 15, 19, 15, 19, 19, 15, 19]]},
        {"image_id": 1, "category_id": 80, "segmentation": {"counts": counts, "size": [40, 60]}},
    ]
    source = CocoImages(**save_coco(tmp_path, annotations), roles=("segmentation",))
    expected = np.zeros((40, 60), int)
    expected[10:29, 10:29] = 7
    expected[15:19, 15:19] = 9
    expected[runs] = 80
    picture = source.load("a.png")["segmentation"][0]
    np.testing.assert_array_equal(maps.rgb_to_ids(picture, 91), expected)


def test_run_lengths_are_those_of_pycocotools():
    expected = np.zeros((17, 23), bool)
    expected[3:12, 4:15] = True
    expected[6:9, 7:11] = False
    expected[14:, 20:] = True
    text = "W2980000JK050K050K050K056000000P3JVM000"  # pycocotools 2.0's encoding of it
    np.testing.assert_array_equal(decode_run_lengths(text, (17, 23)), expected)
    with pytest.raises(ValueError, match="do not fill"):
        decode_run_lengths(text, (17, 24))


def test_wrong_coco_annotations_are_bad_items_or_one_line(tmp_path):
    annotations = [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]},
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5]},
        {"image_id": 3, "category_id": 1, "bbox": ["wide"]},
        {"image_id": 77, "category_id": 1, "bbox": [0, 0, 5, 5]},
    ]
    images = [(1, "a.png", 60, 40), (2, "b.png", 60, 40), (3, "c.png", 60, 40)]
    where = save_coco(tmp_path, annotations, images)
    save(tmp_path / "photos" / "b.png", size=(40, 60))
    source = CocoImages(**where)
    assert source.keys() == ["a.png", "b.png", "c.png", "image_id 77"]
    with pytest.raises(BadItem, match=r"image_id 77: is not among the images of coco.json"):
        source.load("image_id 77")
    with pytest.raises(BadItem, match=r"b.png: is 40x60 pixels, its annotations are of 60x40"):
        source.load("b.png")
    with pytest.raises(BadItem, match=r"c.png: has boxes that cannot be drawn"):
        source.load("c.png")
    (tmp_path / "photos" / "a.png").unlink()
    with pytest.raises(BadItem, match=r"a.png: a.png cannot be decoded"):
        source.load("a.png")
    with pytest.raises(UserError, match="no image with keypoints"):
        CocoImages(**where, roles=("keypoints",)).keys()
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match=r"list.json is no COCO json"):
        CocoImages(**{**where, "annotations": "list.json"}).keys()
    twice = save_coco(tmp_path / "twice", [], [(1, "a.png", 6, 4), (2, "a.png", 6, 4)])
    with pytest.raises(UserError, match="lists a file name twice"):
        CocoImages(**twice).keys()


def picture_bytes(value=0, form="PNG", ids=None) -> bytes:
    target = io.BytesIO()
    image = Image.new("RGB", (6, 4), (value,) * 3) if ids is None else Image.fromarray(ids)
    image.save(target, form)
    return target.getvalue()


def save_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_webdataset_gives_roles_of_extensions_and_classes_of_members(tmp_path):
    ids = random_ids(shape=(4, 6))
    members = [
        ("x/0001.jpg", picture_bytes(200, "JPEG")),
        ("x/0001.seg.png", picture_bytes(ids=ids)),
        ("x/0001.cls", b"cat\n"),
        ("x/0001.json", b'{"label": "dog/wolf"}'),
        ("x/0002.PNG", picture_bytes(30)),
        ("x/0003.txt", b"no picture"),
    ]
    save_tar(tmp_path / "a" / "shard-0.tar", members)
    save_tar(tmp_path / "shard-1.tar", [("0001.webp", picture_bytes(90, "WEBP"))])
    source = WebDataset(str(tmp_path), masks=("seg",))
    assert source.keys() == ["a/shard-0.tar/x/0001", "a/shard-0.tar/x/0002", "shard-1.tar/0001"]
    item = source.load("a/shard-0.tar/x/0001")
    assert sorted(item) == ["image", "seg"]
    np.testing.assert_array_equal(maps.rgb_to_ids(item["seg"][0], 256), ids)
    assert abs(int(source.load("shard-1.tar/0001")["image"][0].mean()) - 90) <= 2
    by_class = WebDataset(str(tmp_path), class_from="cls")
    assert by_class.keys()[0] == "cat/a/shard-0.tar/x/0001"
    assert abs(int(by_class.load("cat/a/shard-0.tar/x/0001")["image"][0].mean()) - 200) <= 2
    assert by_class.keys()[2] == "unknown/shard-1.tar/0001"
    labelled = WebDataset(str(tmp_path), class_from="json")
    assert labelled.keys()[0] == "dog_wolf/a/shard-0.tar/x/0001"
    wanting = WebDataset(str(tmp_path), roles=("image", "depth"))
    with pytest.raises(BadItem, match=r"x/0001: has no depth, but jpg, seg.png, cls, json"):
        wanting.load("a/shard-0.tar/x/0001")


def test_the_headers_of_many_tars_are_read_once(tmp_path, monkeypatch):
    listed = []
    found = webdataset.list_members
    monkeypatch.setattr(webdataset, "list_members", lambda path: listed.append(path) or found(path))
    for name in "abcdefghijkl":
        save_tar(tmp_path / f"{name}.tar", [(f"{i}.png", picture_bytes(9)) for i in "12"])
    source = WebDataset(str(tmp_path))
    for key in sorted(source.keys(), key=lambda key: key[::-1]):  # another tar each time
        source.load(key)
    assert len(listed) == 12


def test_damaged_tars_are_one_line_and_damaged_members_are_bad_items(tmp_path):
    whole = picture_bytes(20)
    save_tar(tmp_path / "a.tar", [("1.png", whole), ("2.png", whole[: len(whole) // 2])])
    source = WebDataset(str(tmp_path))
    assert len(source.keys()) == 2
    with pytest.raises(BadItem, match=r"a.tar/2: its .png cannot be decoded"):
        source.load("a.tar/2")
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:700])
    with pytest.raises(UserError, match=r"cut.tar is no whole tar"):
        source.keys()
    (tmp_path / "cut.tar").unlink()
    save_tar(tmp_path / "twice.tar", [("1.png", whole), ("1.png", whole)])
    with pytest.raises(UserError, match=r"twice.tar holds 1.png twice"):
        source.keys()


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.jpg", "1.png"), ("1.seg.png", "1.seg.webp"), ("1.jpg", "1.JPG"), ("1.png", "1.image.png")],
)
def test_two_members_for_one_role_are_both_named(one, other, tmp_path):
    content = picture_bytes(20)
    members = [("1.bmp", content)] if "seg" in one else []
    save_tar(tmp_path / "a.tar", [*members, (one, content), (other, content)])
    with pytest.raises(UserError, match=r"a.tar") as told:
        WebDataset(str(tmp_path)).keys()
    for name in (one, other):
        assert name.partition(".")[2] in str(told.value)


def test_a_doubtful_role_that_is_not_wanted_is_no_error(tmp_path):
    content = picture_bytes(20)
    names = ("1.jpg", "1.seg.png", "1.seg.webp")
    save_tar(tmp_path / "a.tar", [(name, content) for name in names])
    source = WebDataset(str(tmp_path), roles=("image",))
    assert list(source.load(*source.keys())) == ["image"]


def test_a_tar_in_capitals_is_read_and_samples_without_a_picture_are_named(tmp_path, caplog):
    members = [
        ("1.PNG", picture_bytes(20)),
        ("2.txt", b"a"),
        ("3.tiff", b"b"),
        ("x.tar/4.png", picture_bytes(9)),
    ]
    save_tar(tmp_path / "A.TAR", members)
    for class_from in ("", "cls"):
        source = WebDataset(str(tmp_path), class_from=class_from)
        with caplog.at_level("WARNING"):
            keys = source.keys()
        assert [key.removeprefix("unknown/") for key in keys] == ["A.TAR/1", "A.TAR/x.tar/4"]
        assert [int(source.load(key)["image"][0].mean()) for key in keys] == [20, 9]
    assert "skipped 2 samples without a picture" in caplog.text
    assert "the first: 2 has txt" in caplog.text
    (tmp_path / "A.TAR").unlink()
    with pytest.raises(BadItem, match="cannot be read any more"):
        source.load(keys[0])
