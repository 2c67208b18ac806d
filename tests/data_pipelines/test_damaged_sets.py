"""Whatever is changed in an annotated set, its readers give pictures or errors of their own, and agree with others."""

import contextlib
import copy
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as pycoco

from data_pipelines.sources import BadItem, CocoImages, PairedFiles
from data_pipelines.sources.coco_masks import mask_runs
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.readers.coco import CocoDetection, CocoKeypoints
from lvm_jax.pictures import voc
from lvm_jax.pictures.coco import colour_ids, read_coco
from lvm_jax.pictures.run_lengths import fill_runs

SIZE = (24, 30)  # height, width
TRIES = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@contextlib.contextmanager
def one_line(*kinds):
    """Lets pass exceptions of `kinds` with a message of one line."""
    try:
        yield
    except kinds as error:
        if len(str(error)) > 600 or "\n" in str(error):
            raise AssertionError(f"not one line: {error}") from error


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}],
    "annotations": [
        {
            "image_id": 1,
            "category_id": 3,
            "iscrowd": 0,
            "bbox": [2, 3, 9, 8],
            "keypoints": [4, 5, 2, 9, 9, 1, 0, 0, 0],
            "segmentation": [[2, 3, 11, 3, 11, 11, 2, 11]],
        },
        {
            "image_id": 1,
            "category_id": 7,
            "iscrowd": 1,
            "segmentation": {"size": list(SIZE), "counts": [100, 20, 600]},
        },
    ],
    "categories": [
        {"id": 3, "name": "cat", "keypoints": ["a", "b", "c"], "skeleton": [[1, 2]]},
        {"id": 7, "name": "dog"},
    ],
}
NAN, INFINITE = float("nan"), float("inf")
ODD = st.sampled_from(
    [
        *(None, True, -1, 0, 1, 300, 10**12, 10**400, 0.5, 1e308, -1e308, NAN, INFINITE, "", "9"),
        *([], {}, [NAN] * 4, [5, 5, INFINITE, 5], [1e308] * 4, [1, 2, 3], [[]], [[1, 2, 3, 4]]),
        *({"size": [10**5] * 2, "counts": [10**10]}, {"size": list(SIZE), "counts": "o" * 99}),
    ]
)


def places(value, path=()):
    """The path of every value in nested lists and dicts."""
    if path:
        yield path
    if isinstance(value, dict | list):
        # Of a list the first and the last: the others are like them.
        ends = {0: None, len(value) - 1: None} if value else {}
        for key in value if isinstance(value, dict) else ends:
            yield from places(value[key], (*path, key))


@st.composite
def damaged(draw):
    content = copy.deepcopy(COCO)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(content))
        if not found:
            return content
        *path, last = draw(st.sampled_from(found))
        inner = content
        for key in path:
            inner = inner[key]
        change = draw(st.sampled_from(["set", "drop", "twice"]))
        if change == "set":
            inner[last] = draw(ODD)
        elif change == "drop":
            del inner[last]
        elif isinstance(inner, list):
            inner.append(copy.deepcopy(inner[last]))
    return content


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for folder in ("photos", "val2017", "annotations"):
        (root / folder).mkdir()
    for folder in ("photos", "val2017"):
        Image.new("RGB", SIZE[::-1], (128, 128, 128)).save(root / folder / "a.png")
    return root


@TRIES
@given(content=damaged(), number=st.integers(0, 2**62))
def test_a_changed_coco_json_is_pictures_or_an_error_of_ours(sets, content, number):
    for name in ("instances_val2017", "person_keypoints_val2017", f"{number}"):
        (sets / "annotations" / f"{name}.json").write_text(json.dumps(content))
    for role in ("boxes", "keypoints", "segmentation"):
        source = CocoImages(str(sets), "photos", f"annotations/{number}.json", (role,))
        with one_line(UserError, BadItem):
            keys = source.keys()
            assert [source.load(key)[role][0].shape for key in keys] == [(*SIZE, 3)] * len(keys)
    for reader in (CocoDetection, CocoKeypoints):
        with one_line(UserError):
            reader(sets).episode(0, shots=0, seed=0)


def test_the_json_before_any_change_is_read(sets):
    (sets / "annotations" / "whole.json").write_text(json.dumps(COCO))
    roles = ("boxes", "keypoints", "segmentation")
    source = CocoImages(str(sets), "photos", "annotations/whole.json", roles)
    assert source.keys() == ["a.png"]
    assert all(source.load("a.png")[role][0].any() for role in roles)


@TRIES
@given(ids=st.sets(st.integers(-300, 300), min_size=1, max_size=40), n_ids=st.integers(2, 256))
def test_categories_have_colours_of_their_own_or_one_error(sets, ids, n_ids):
    categories = [{"id": i, "name": "thing"} for i in ids]
    (sets / "ids.json").write_text(json.dumps(COCO | {"annotations": [], "categories": categories}))
    coco = read_coco(sets / "ids.json")
    if len(ids) >= n_ids:
        with pytest.raises(UserError, match=f"{len(ids)} categories and n_ids is {n_ids}"):
            colour_ids(coco, n_ids)
    else:
        colours = colour_ids(coco, n_ids)
        assert len(set(colours.values())) == len(ids)
        assert all(0 < colour < n_ids for colour in colours.values())


POINT = st.tuples(st.floats(-40, 70), st.floats(-40, 70))


@TRIES
@given(polygon=st.lists(POINT, min_size=3, max_size=12))
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_polygons_equal_those_of_pycocotools(polygon):
    numbers = [value for point in polygon for value in point]
    mask = np.zeros(SIZE)  # what pycocotools makes of a polygon outside
    with one_line(ValueError):
        mask = fill_runs(mask_runs([numbers], SIZE), SIZE)
    (runs,) = pycoco.frPyObjects([numbers], *SIZE)
    np.testing.assert_array_equal(mask, pycoco.decode(runs))


@TRIES
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_run_lengths_equal_those_of_pycocotools(seed, share):
    mask = np.random.default_rng(seed).random(SIZE) < share
    text = pycoco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    runs = mask_runs({"size": list(SIZE), "counts": text}, SIZE)
    np.testing.assert_array_equal(fill_runs(runs, SIZE), mask)
    as_list = {"size": list(SIZE), "counts": runs.tolist()}
    np.testing.assert_array_equal(mask_runs(as_list, SIZE), runs)
    assert pycoco.frPyObjects(as_list, *SIZE)["counts"].decode() == text


@TRIES
@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=115), max_size=40))
def test_any_text_of_run_lengths_is_a_mask_or_an_error(text):
    with one_line(ValueError):
        assert fill_runs(mask_runs({"size": list(SIZE), "counts": text}, SIZE), SIZE).shape == SIZE


VOC = b"""<annotation><size><width>30</width><height>24</height></size><object><name>cat</name><bndbox>
<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"""


@TRIES
@given(
    place=st.sampled_from([0, *(m.start() for m in re.finditer(rb">\w", VOC))]),
    new=st.sampled_from([b"", b"nan", b"1e999", b"-", b"left", b"<", b"&", b"\xff", b"\0"]),
    cut=st.integers(0, 3),
)
def test_a_changed_voc_file_is_read_or_an_error_of_ours(sets, place, new, cut):
    (sets / "a.xml").write_bytes(VOC[: place + 1] + new + VOC[place + 1 + cut :])
    with one_line(UserError):
        image = voc.read_annotation(sets / "a.xml")
        assert all(np.isfinite(found.box).all() for found in image.objects)
    (sets / "list.txt").write_bytes(b"a  1\nb -1\n"[: place % 11] + new)
    with one_line(UserError):
        assert voc.read_names(sets / "list.txt")


@TRIES
@given(
    ids=st.lists(st.sampled_from([0, 255]) | st.integers(0, 999), min_size=1, max_size=3),
    deep=st.booleans(),
    n_ids=st.integers(2, 256),
    ignore=st.sampled_from([None, -1, 0, 255, 7]),
)
def test_a_mask_shows_all_its_ids_apart_or_is_bad(sets, ids, deep, n_ids, ignore):
    values = np.resize(ids, SIZE).astype(np.uint16) if deep else np.resize(ids, SIZE) % 256
    Image.fromarray(values.astype(np.uint16 if deep else np.uint8)).save(sets / "mask.png")
    roles = (("image", "photos/{key}.png"), ("mask", "{key}.png"))
    (sets / "photos" / "mask.png").write_bytes((sets / "photos" / "a.png").read_bytes())
    source = PairedFiles(str(sets), roles, ("mask",), n_ids, ignore)
    drawn = None
    with one_line(BadItem):
        drawn = source.load("mask")["mask"][0]
    if drawn is None:
        return
    background = {0, 255 if ignore is None else ignore}
    shown = set(np.unique(values).tolist()) - background
    colours = {tuple(c) for c in drawn.reshape(-1, 3).tolist()} - {(0, 0, 0)}
    alone = ignore is None and set(np.unique(values).tolist()) <= {0, 255} and 255 in values
    assert len(colours) == (1 if alone else len(shown))
