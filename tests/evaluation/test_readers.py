"""Readers find the right pictures and annotations in small sets of the standard layouts."""

import json

import numpy as np
import pytest
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.benchmarks import Questions, read_episodes
from lvm_jax.evaluation.lvm.readers import coco, davis, folders, voc
from lvm_jax.evaluation.lvm.readers.episodes import load, take
from lvm_jax.evaluation.lvm.readers.objects import Boxes, Keypoints, Object
from lvm_jax.pictures.voc import VOC_CLASSES


def save(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette:
        picture = picture.convert("P") if array.ndim == 3 else picture
        picture.putpalette([i % 256 for i in range(768)][::-1])  # colours must not matter
    picture.save(path)


def photo(seed, height=12, width=16):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def voc2012(tmp_path):
    """Four images: aeroplane (1), bicycle (2), both, and a bottle of fold 0; a car (7) of fold 1."""
    labels = {
        "a": {1: (0, 4)},
        "b": {1: (2, 6)},
        "ab": {1: (0, 2), 2: (4, 8)},
        "c": {2: (1, 3)},
        "d": {7: (0, 9)},
    }
    for number, (name, found) in enumerate(labels.items()):
        ids = np.zeros((12, 16), np.uint8)
        ids[0] = 255  # void
        for label, (start, stop) in found.items():
            ids[1:5, start:stop] = label
        save(tmp_path / "SegmentationClass" / f"{name}.png", ids, palette=True)
        save(tmp_path / "JPEGImages" / f"{name}.jpg", photo(number))
        objects = "".join(
            f"<object><name>{VOC_CLASSES[label - 1]}</name><bndbox><xmin>{start + 1}</xmin><ymin>2</ymin>"
            f"<xmax>{stop}</xmax><ymax>5</ymax></bndbox></object>"
            for label, (start, stop) in found.items()
        )
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>16</width><height>12</height></size>{objects}</annotation>"
        )
    for task in ("Segmentation", "Main"):
        listing = tmp_path / "ImageSets" / task / "val.txt"
        listing.parent.mkdir(parents=True)
        listing.write_text("\n".join(labels) + "\n")
    return tmp_path


def boxes_of(picture):
    ys, xs = np.nonzero(picture[..., 0])
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def test_pascal_5i(voc2012):
    reader = voc.Pascal5i(voc2012, 0)
    assert len(reader) == 5  # a, b, ab twice, c
    episodes = take(reader, 7, shots=1, seed=3)
    keys = ["a/aeroplane", "b/aeroplane", "ab/aeroplane", "ab/bicycle", "c/bicycle"]
    assert [episode.key for episode in episodes] == [*keys, *keys[:2]]
    truth = np.zeros((12, 16, 3), np.uint8)
    truth[1:5, 4:8] = 255  # the bicycle of ab, without the void
    assert np.array_equal(episodes[3].truth, truth)
    assert boxes_of(episodes[3].support[0][1]) == (1, 1, 3, 5)  # c is the only other bicycle
    for episode in episodes:
        assert not any(np.array_equal(image, episode.query) for image, _ in episode.support)
    again = take(reader, 7, shots=1, seed=3)
    assert all(np.array_equal(x.support[0][0], y.support[0][0]) for x, y in zip(episodes, again))
    halves = [take(reader, 7, shots=1, seed=3, process=(i, 2)) for i in range(2)]
    assert [e.key for e in halves[1]] == [e.key for e in episodes[1::2]]
    assert [e.key for e in take(voc.Pascal5i(voc2012, 1), 0, shots=1)] == []
    with pytest.raises(UserError, match="class car has 0 images beside the query"):
        voc.Pascal5i(voc2012, 1).episode(0, shots=1, seed=0)
    with pytest.raises(UserError, match="fold is 4"):
        voc.Pascal5i(voc2012, 4)
    with pytest.raises(UserError, match="no val image of fold 3"):
        voc.Pascal5i(voc2012, 3)
    with pytest.raises(UserError, match=r"train\.txt does not exist"):
        voc.Pascal5i(voc2012, 0, "train")


def test_voc_detection_has_single_objects(voc2012):
    reader = voc.VocDetection(voc2012)
    assert [file.stem for file in reader.objects] == ["a", "b", "c", "d"]  # ab has two
    episode = reader.episode(0, shots=1, seed=0)
    assert episode.key == "a/aeroplane"
    assert boxes_of(episode.truth) == (0, 1, 4, 5)
    assert boxes_of(episode.support[0][1]) == (2, 1, 6, 5)
    (voc2012 / "ImageSets" / "Main" / "bicycle_val.txt").write_text("a -1\nb -1\nab  1\nc  1\n")
    assert [f.stem for f in voc.VocDetection(voc2012, "bicycle_val").objects] == ["c"]
    annotation = voc2012 / "Annotations" / "a.xml"
    annotation.write_text(annotation.read_text().replace("<width>16</width>", ""))
    with pytest.raises(UserError, match=r"a\.xml says no size"):
        voc.VocDetection(voc2012)


@pytest.mark.parametrize(
    ("box", "expected"), [((-5, 2, 9, 30), (0, 2, 9, 12)), ((20, 2, 30, 9), None)]
)
def test_boxes_are_cut_at_the_edges_and_one_outside_is_damage(tmp_path, box, expected):
    save(tmp_path / "a.png", photo(0))
    objects = {tmp_path / "a.png": Object("thing", box, np.array([[3.0, 3]]))}
    boxes, keypoints = Boxes(objects, tmp_path), Keypoints(objects, tmp_path)
    if expected is None:
        for reader in (boxes, keypoints):
            with pytest.raises(UserError, match=r"damaged: .*a\.png"):
                reader.episode(0, shots=0, seed=0)
    else:
        assert boxes_of(boxes.episode(0, shots=0, seed=0).truth) == expected


def test_coco_detection(tmp_path):
    sizes = {1: (0, 0, 4, 4), 2: (2, 2, 5, 5), 3: (0, 0, 16, 12), 4: (1, 1, 3, 3)}
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 16, "height": 12} for i in sizes]
    found = [{"image_id": i, "category_id": 9, "bbox": list(box)} for i, box in sizes.items()]
    found[3]["iscrowd"] = 1
    content = {"images": images, "annotations": found, "categories": [{"id": 9, "name": "boat"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    for i in sizes:
        save(tmp_path / "val2017" / f"{i}.jpg", photo(i))
    reader = coco.CocoDetection(tmp_path)
    assert [file.stem for file in reader.objects] == ["1", "2"]  # 3 fills the picture, 4 is a crowd
    episode = reader.episode(1, shots=1, seed=0)
    assert episode.key == "2/boat"
    assert boxes_of(episode.truth) == (2, 2, 7, 7)
    with pytest.raises(UserError, match="lower shots from 2"):
        reader.episode(0, shots=2, seed=0)


@pytest.mark.parametrize("reader", [coco.CocoDetection, coco.CocoKeypoints])
@pytest.mark.parametrize(
    ("annotation", "categories", "words"),
    [
        ({}, None, r"has no category 9, which 1\.jpg shows: list it in categories"),
        ({"category_id": 8}, [9], r"has no category 8, which 1\.jpg shows"),
        ({"category_id": None}, [9], r"1\.jpg: an annotation has no category_id"),
        ({"bbox": None}, [9], r"damaged: .*1\.jpg: bbox is None: it must be a list"),
        ({"bbox": [0, 0, float("nan"), 4]}, [9], r"1\.jpg: bbox is \[0, 0, nan, 4\]"),
        ({"bbox": [0, 0, -4, 4]}, [9], r"1\.jpg: bbox is"),
        ({"image_id": 7}, [9], r"annotates image_id 7, which is not among its images"),
    ],
)
def test_coco_that_lacks_something_is_one_line(tmp_path, reader, annotation, categories, words):
    whole = {"image_id": 1, "category_id": 9, "bbox": [0, 0, 4, 4], "keypoints": [5, 5, 2] * 17}
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 16, "height": 12}],
        "annotations": [whole | annotation],
    }
    if categories is not None:
        content["categories"] = [{"id": i, "name": f"thing {i}"} for i in categories]
    (tmp_path / "annotations").mkdir()
    for listing in ("instances", "person_keypoints"):
        (tmp_path / "annotations" / f"{listing}_val2017.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as caught:
        reader(tmp_path)
    assert "\n" not in str(caught.value)


def test_coco_keypoints_are_as_many_as_the_categorys(tmp_path):
    category = {"id": 9, "name": "face", "keypoints": [f"{k}" for k in range(68)]}
    annotation = {"image_id": 1, "category_id": 9, "bbox": [0, 0, 16, 12]}
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 16, "height": 12}],
        "annotations": [annotation | {"keypoints": [5, 5, 2] * 68}],
        "categories": [category],
    }
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    (found,) = coco.CocoKeypoints(tmp_path).objects.values()
    assert found.points_K2.shape == (68, 2)
    content["annotations"][0]["keypoints"] = [5, 5, 2] * 17
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"1\.jpg: keypoints has 51 numbers.*lists 68"):
        coco.CocoKeypoints(tmp_path)


def test_class_folders_and_colorization(tmp_path):
    for number, name in enumerate(["n01/x.JPEG", "n01/y.JPEG", "n02/z.JPEG"]):
        save(tmp_path / name, photo(number))
    (tmp_path / "n02" / "clip.mp4").write_bytes(b"video")
    (tmp_path / "n02" / "notes.txt").write_text("")
    found = folders.class_folders(tmp_path)
    assert [(file.name, label) for file, label in found] == [
        ("x.JPEG", "n01"), ("y.JPEG", "n01"), ("clip.mp4", "n02"), ("z.JPEG", "n02"),
    ]  # fmt: skip
    files = [file for file, _ in folders.class_folders(tmp_path, (".jpeg",))]
    episode = folders.Colorization(files).episode(0, shots=2, seed=0)
    assert episode.truth.shape == episode.query.shape == (12, 12, 3)
    assert (episode.query == episode.query[..., :1]).all()
    luma = np.round(episode.truth @ np.array([0.2989, 0.587, 0.114]))
    assert np.array_equal(episode.query[..., 0], luma)
    assert np.array_equal(episode.truth, load(files[0])[:, 2:14])
    with pytest.raises(UserError, match="no class folder"):
        folders.class_folders(tmp_path / "n01")


def test_annotated_folders_ask_for_what_was_held_out(tmp_path):
    root = tmp_path / "scenes"
    for i in range(4):
        save(root / f"{i}" / "image.png", photo(i))
        save(root / f"{i}" / "depth.png", photo(10 + i))
    held_out = frozenset({"scenes/1", "scenes/3"})
    reader = folders.AnnotatedFolders(root, "depth", held_out)
    episodes = take(reader, 2, shots=2, seed=1)
    assert [episode.key for episode in episodes] == ["1", "3"]
    assert np.array_equal(episodes[1].truth, photo(13))
    support = {image.tobytes() for episode in episodes for image, _ in episode.support}
    assert support == {photo(0).tobytes(), photo(2).tobytes()}
    with pytest.raises(UserError, match=r"0 held-out items with normals\.png and 0 others"):
        folders.AnnotatedFolders(root, "normals", held_out)
    # A folder in the list stands for all in it, as it does where training reads the list.
    assert len(folders.annotated_items(root, frozenset({root.name}))) == len(list(root.iterdir()))
    with pytest.raises(UserError, match=r"held-out items with depth\.png and 0 others"):
        folders.AnnotatedFolders(root, "depth", frozenset({root.name}))


@pytest.mark.parametrize("year", [2016, 2017])
def test_davis(tmp_path, year):
    for i in range(5):
        save(tmp_path / "JPEGImages" / "480p" / "bear" / f"{i:05d}.jpg", photo(i))
        ids = np.zeros((12, 16), np.uint8)
        ids[i : i + 2, :3] = 2
        save(tmp_path / "Annotations" / "480p" / "bear" / f"{i:05d}.png", ids, palette=True)
    listing = tmp_path / "ImageSets" / str(year) / "val.txt"
    listing.parent.mkdir(parents=True)
    lines = {2016: [f"/JPEGImages/480p/bear/{i:05d}.jpg /x.png" for i in range(5)], 2017: ["bear"]}
    listing.write_text("\n".join(lines[year]))
    reader = davis.Davis(tmp_path, year=year)
    assert reader.names == ["bear"]
    assert [file.stem for file in reader.frames("bear")] == [f"{i:05d}" for i in range(5)]
    episode = reader.episode(0, shots=2, seed=0)
    assert boxes_of(episode.truth) == (0, 4, 3, 6)
    assert [boxes_of(answer)[1] for _, answer in episode.support] == [0, 2]
    with pytest.raises(UserError, match="bear has 5 frames"):
        reader.episode(0, shots=5, seed=0)
    if year == 2017:  # a video has one question, however many are asked
        assert [e.key for e in read_episodes("davis", str(tmp_path), Questions(3))] == ["bear"]


def test_davis_takes_frames_by_their_numbers(tmp_path):
    for i in range(1, 13):
        save(tmp_path / "JPEGImages" / "480p" / "bear" / f"{i}.png", photo(i))
        ids = np.zeros((12, 16), np.uint8)
        ids[:i] = 255  # as in 2016: an object is 255
        save(tmp_path / "Annotations" / "480p" / "bear" / f"{i}.png", ids)
    (tmp_path / "JPEGImages" / "480p" / "bear" / "._1.png").write_bytes(b"the shadow of a file")
    listing = tmp_path / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("bear\n")
    reader = davis.Davis(tmp_path)
    assert [file.stem for file in reader.frames("bear")] == [str(i) for i in range(1, 13)]
    episode = reader.episode(0, shots=1, seed=0)
    assert (boxes_of(episode.support[0][1])[3], boxes_of(episode.truth)[3]) == (1, 12)
    save(tmp_path / "Annotations" / "480p" / "bear" / "12.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"damaged: .*12\.png is 8x6 pixels, its picture 16x12"):
        reader.episode(0, shots=1, seed=0)
    listing.write_text("/JPEGImages/bear\n")
    with pytest.raises(UserError, match=r"val\.txt has lines that are no sequence"):
        _ = davis.Davis(tmp_path).names


def test_damaged_files_are_named(voc2012):
    (voc2012 / "JPEGImages" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"a\.jpg.*download the file again"):
        voc.Pascal5i(voc2012, 0).episode(0, shots=1, seed=0)
    save(voc2012 / "SegmentationClass" / "a.png", photo(0))
    with pytest.raises(UserError, match=r"a\.png: is of mode RGB, no indexed mask"):
        voc.Pascal5i(voc2012, 0)
