"""Pools: exact truth of what is drawn, objects of annotated sets, crops, splits by picture and class, and shards."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pipe_fakes import save_tokenizer

from data_pipelines import build_uvd
from data_pipelines.build.encoding import shared_encoder
from data_pipelines.build.plan import key_items, plan
from data_pipelines.build.recipe import Entry, Recipe, from_config
from data_pipelines.configs import unified_coco, unified_shapes
from data_pipelines.hues import HUES, hue_name
from data_pipelines.in_context import (
    NEVER_TRAIN,
    ONE_PICTURE,
    About,
    CocoCaptions,
    CocoObjects,
    DrawnObjects,
    Regions,
    drawn_objects,
)
from data_pipelines.in_context.class_names import class_names
from data_pipelines.in_context.coco_objects import area_of
from data_pipelines.items import Boxes, Mask, Text
from data_pipelines.pool_page import drawn_rows, pool_page
from data_pipelines.sample_images import sample_images
from data_pipelines.sentences import SingleImage
from data_pipelines.sentences.base import Unfit
from data_pipelines.sources import BadItem
from data_pipelines.verify import verify
from lvm_jax.data.in_context.pool import Pool, PoolStore
from lvm_jax.data.in_context.pool_record import PoolWriter
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.data.records.manifest import Manifest, shard_name
from lvm_jax.errors import UserError

SHAPES = DrawnObjects(count=60, held_out=12, size=48, plain_ground=True)


# What is drawn.


@pytest.mark.parametrize("key", SHAPES.keys()[::9])
def test_what_is_said_of_a_drawn_thing_is_true(key):
    item = SHAPES.load(key)
    (image,), (mask,), (boxes,) = item["image"], item["mask"], item["boxes"]
    y, x = np.nonzero(mask.inside_HW)
    assert boxes.corners_N4.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]
    name, caption = item["class"][0].words, item["caption"][0].words
    colour, form = name.split()
    assert key.endswith(f"/{name}")
    assert f" {colour} {form} on the " in caption
    middle = x.mean() / 48, y.mean() / 48
    assert ("left" in caption) == (middle[0] < 0.5)
    assert ("upper" in caption) == (middle[1] < 0.5)
    radius = max(np.hypot(x - x.mean(), y - y.mean())) / 48
    assert ("small" in caption) == (radius < 0.15)
    # Light makes a colour darker and haze paler; its hue stays.
    assert hue_name(tuple(np.median(image[mask.inside_HW], axis=0))) == colour
    assert all((a == b).all() for a, b in zip(image, SHAPES.load(key)["image"][0], strict=True))
    assert bool(item["unseen"]) == key.startswith("held_out/")


def test_unseen_classes_stand_in_no_scene_of_training(monkeypatch):
    seen, unseen = SHAPES.classes()
    assert (len(seen), len(unseen)) == (60, 20)
    shown = []
    real = drawn_objects.draw
    monkeypatch.setattr(
        drawn_objects,
        "draw",
        lambda drawing, size: shown.append(drawing.things) or real(drawing, size),
    )
    keys = SHAPES.keys()
    for key in keys:
        SHAPES.load(key)
        names = [f"{hue_name(thing.colour)} {thing.kind}" for thing in shown[-1]]
        assert len(set(names)) == len(names) in (2, 3)
        assert names[0] == key.rpartition("/")[2]
        assert (names[0] in unseen) == key.startswith("held_out/")
        assert set(names[1:]) <= set(seen)


def test_every_thing_of_a_scene_may_be_an_object():
    source = dataclasses.replace(SHAPES, every_thing=True)
    every, scenes = source.keys(), {}
    for key in every:
        scenes.setdefault(key.split("/")[1], []).append(key)
    assert len(scenes) == 72
    for keys in list(scenes.values())[::12]:
        items = [source.load(key) for key in keys]
        assert len(keys) in (2, 3)
        assert {item["shows"][0].words for item in items} == {
            f"drawn_objects/{keys[0].split('/')[1]}"
        }
        assert all((item["image"][0] == items[0]["image"][0]).all() for item in items)
        assert (sum(item["mask"][0].inside_HW.astype(int) for item in items) <= 1).all()
        for key, item in zip(keys, items, strict=True):
            inside = item["image"][0][item["mask"][0].inside_HW]
            assert hue_name(tuple(np.median(inside, axis=0))) == key.rpartition("/")[2].split()[0]
        # The first thing alone is what the source gives otherwise.
        (first,) = set(keys) & set(SHAPES.keys())
        assert (SHAPES.load(first)["image"][0] == items[0]["image"][0]).all()
        assert (
            SHAPES.load(first)["mask"][0].inside_HW == source.load(first)["mask"][0].inside_HW
        ).all()


def test_in_one_shade_equal_parts_look_the_same():
    source = dataclasses.replace(SHAPES, class_words=("colour",), one_shade=True)
    shades: dict[str, set[tuple[int, ...]]] = {}
    for key in source.keys()[::5]:
        item = source.load(key)
        image, mask = item["image"][0], item["mask"][0].inside_HW
        inside = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0)
        inside &= np.roll(inside, 1, 1) & np.roll(inside, -1, 1)  # pixels at the edge are mixed
        shades.setdefault(key.rpartition("/")[2], set()).update(map(tuple, image[inside].tolist()))
        assert (image[0, 0] == image[-1, -1]).all()
        shades.setdefault("ground", set()).add(tuple(image[0, 0].tolist()))
    assert len(shades) == 9  # eight colours and the ground
    assert all(len(found) == 1 for found in shades.values()), shades


def test_classes_may_be_told_by_texture():
    source = dataclasses.replace(SHAPES, class_words=("form", "texture"), unseen=("striped ring",))
    seen, unseen = source.classes()
    assert (len(seen), unseen) == (19, ["striped ring"])
    item = source.load("seen/0000001/striped disc")
    assert " striped " in item["caption"][0].words
    assert any(f" {colour} disc" in item["caption"][0].words for colour in HUES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"things": (2, 5)}, "from 1 to 4"),
        ({"class_words": ("size",)}, "some of texture, colour, form"),
        ({"unseen": ("red cat",)}, "unseen has 'red cat', which is no class"),
        ({"class_words": ("texture",)}, "a scene needs 3 seen ones"),
    ],
)
def test_wrong_drawn_objects_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        DrawnObjects(**fields)


# Crops.


def item(height=40, width=60, box=(20, 10, 30, 26), **more):
    x0, y0, x1, y1 = map(int, box)
    inside = np.zeros((height, width), bool)
    inside[max(0, y0) : y1, max(0, x0) : x1] = True
    image = np.zeros((height, width, 3), np.uint8)
    image[inside] = 200
    boxes = Boxes(np.array([box, (50, 30, 58, 38)], np.float32), ("cat", "cat"))
    found = {"image": [image], "mask": [Mask(inside)], "boxes": [boxes]}
    return found | {"class": [Text("cat")], "shows": [Text("coco/1.jpg")]} | more


def about(one, scale=(), boxed=False, seed=0):
    values, layout = About(scale, boxed).compose([one], np.random.default_rng(seed))
    found = dict(zip(layout.split(","), values, strict=True))
    return found | {"facts": json.loads(found["facts"].words)}


def test_a_crop_holds_its_object():
    for seed in range(20):
        found = about(item(), scale=(0.5, 0.8), seed=seed)
        height, width = found["image"].shape[:2]
        assert found["mask"].inside_HW.shape == (height, width)
        assert found["mask"].inside_HW.sum() == 160
        assert 0.49 < 16 / max(height, width) <= 0.8
        x0, y0, x1, y1 = np.array(found["facts"]["boxes"][0]) * [width, height, width, height]
        y, x = np.nonzero(found["image"][..., 0])
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert [x0, y0, x1, y1] == pytest.approx(expected, abs=1e-3)
        assert found["facts"]["area"] == pytest.approx(160 / (height * width))
    whole = about(item())
    assert whole["image"].shape == (40, 60, 3)
    assert len(whole["facts"]["boxes"]) == 2
    wide = about(item(box=(1, 3, 59, 12)), scale=(0.9, 1.0))
    assert wide["image"].shape[0] == 40, "an object that is longer than the picture is high"


def test_boxes_are_drawn_into_a_second_picture():
    found = about(item(), boxed=True)
    changed = (found["boxed"] != found["image"]).any(axis=2)
    assert changed[10:26, 20].all()
    assert not changed[14:20, 22:28].any()
    assert not changed[:9].any()
    assert About(boxed=True).max_images == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": [Mask(np.ones((8, 9), bool))]}, "its mask is 9x8 pixels, its picture 60x40"),
        ({"box": (20, 10, 64, 26)}, "lies outside its picture of 60x40"),
        ({"box": (-3, 10, 30, 26)}, "lies outside its picture"),
        ({"box": (20, 10, 20, 26)}, "is empty or lies outside"),
        ({"class": []}, "it has no 'class'"),
    ],
)
def test_objects_that_cannot_be_used(change, message):
    with pytest.raises(Unfit, match=message):
        about(item(**change))


def test_a_box_may_be_rounded_over_the_edge():
    assert about(item(box=(20, 10, 60.6, 26)))["facts"]["boxes"][0][2] == 1


def test_a_scale_must_be_a_share():
    with pytest.raises(UserError, match="scale is"):
        About(scale=(0.5, 1.5))


# Annotated sets.


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def annotation(image, category, x, y, side, **more):
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, side, side],
        "area": side * side,
        "segmentation": square(x, y, side),
        "iscrowd": 0,
        **more,
    }


@pytest.fixture
def coco(tmp_path):
    """Two photographs of 90 x 80 pixels with cats, a dog and a crowd; captions; LVIS's names of the same."""
    (tmp_path / "train2017").mkdir()
    for number in (1, 2):
        Image.new("RGB", (90, 80), (90, 90, 90)).save(tmp_path / f"train2017/{number:012d}.jpg")
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 90, "height": 80} for i in (1, 2)]
    crowd = {"segmentation": {"size": [80, 90], "counts": [0, 80, 7120]}, "iscrowd": 1}
    annotations = [
        annotation(1, 1, 10, 10, 34),
        annotation(1, 1, 50, 40, 20),  # below 32 x 32
        annotation(1, 1, 0, 0, 1, **crowd),
        annotation(1, 2, 40, 4, 40),
        annotation(2, 1, 20, 20, 40),
    ]
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "hot dog"}]
    save(tmp_path, "instances", images, annotations, categories=names)
    told = [
        {"image_id": 1, "id": 1, "caption": "Two Cats beside\na hot dog. "},
        {"image_id": 1, "id": 2, "caption": "some animals"},
        {"image_id": 1, "id": 3, "caption": "the cat's friend"},
        {"image_id": 2, "id": 4, "caption": "catalogues"},
    ]
    save(tmp_path, "captions", images, told)
    lvis = [
        {"id": i, "coco_url": f"http://x/train2017/{i:012d}.jpg", "width": 90, "height": 80}
        for i in (1, 2)
    ]
    lvis[1]["not_exhaustive_category_ids"] = [8]
    synsets = [
        {"id": 8, "name": "house_cat", "synset": "cat.n.01"},
        {"id": 9, "name": "paper_cup", "synset": "cup.n.09"},
    ]
    more = [annotation(1, 9, 0, 0, 40), annotation(1, 8, 0, 0, 40), annotation(2, 8, 0, 0, 40)]
    save(tmp_path, "lvis", lvis, more, categories=synsets)
    table = {
        "cat": {"synset": "cat.n.01", "coco_cat_id": 17},
        "hot dog": {"synset": "frank.n.02", "coco_cat_id": 58},
    }
    (tmp_path / "table.json").write_text(json.dumps(table))
    return tmp_path


def save(root, name, images, annotations, **more):
    content = {"images": images, "annotations": annotations, **more}
    (root / f"{name}.json").write_text(json.dumps(content))


def objects(root, **changes):
    return CocoObjects(**{"root": str(root), "annotations": "instances.json", **changes})


def test_objects_of_coco(coco):
    source = objects(coco)
    first, second = "000000000001.jpg", "000000000002.jpg"
    assert source.keys() == [f"seen/{first}/0", f"seen/{first}/3", f"seen/{second}/0"]
    found = source.load(f"seen/{first}/0")
    expected = np.zeros((80, 90), bool)
    expected[10:44, 10:44] = expected[40:60, 50:70] = expected[:, 0] = True
    np.testing.assert_array_equal(found["mask"][0].inside_HW, expected)
    assert found["boxes"][0].corners_N4.tolist() == [[10, 10, 44, 44], [50, 40, 70, 60]]
    assert found["class"][0].words == "cat"
    assert found["shows"][0].words == f"coco/{first}"
    assert not found["unseen"]
    assert len(objects(coco, min_area=400).keys()) == 4
    assert len(objects(coco, match=r"0*2\.jpg").keys()) == 1


def test_pictures_of_classes_that_training_must_not_see(coco):
    source = objects(coco, unseen=("hot dog",))
    keys = source.keys()
    assert [key.split("/")[0] for key in keys] == ["held_out", "held_out", "seen"]
    held_out = [source.load(key) for key in keys[:2]]
    assert [bool(one["unseen"]) for one in held_out] == [False, True]
    with pytest.raises(UserError, match="unseen has the class 'hotdog'"):
        objects(coco, unseen=("hotdog",)).keys()


def test_objects_of_lvis(coco):
    common = {"annotations": "lvis.json", "images": ".", "synsets": "table.json"}
    known = objects(coco, **common)
    # The second photograph's cats are not all annotated.
    assert known.keys() == ["seen/train2017/000000000001.jpg/1"]
    found = known.load(known.keys()[0])
    assert found["class"][0].words == "cat"
    assert found["shows"][0].words == "coco/000000000001.jpg"
    others = objects(coco, classes="others", **common)
    assert others.keys() == ["held_out/train2017/000000000001.jpg/0"]
    found = others.load(others.keys()[0])
    assert found["class"][0].words == "paper cup"
    assert found["unseen"]


def test_an_area_beyond_all_floats_is_no_number():
    assert area_of({"area": 10**400}) == 0
    assert area_of({"bbox": [0, 0, 3, 4]}) == 12


def test_captions_of_coco(coco):
    source = CocoCaptions(str(coco), annotations="instances.json", captions="captions.json")
    first = "seen/000000000001.jpg"
    assert source.keys() == [f"{first}/0-2", f"{first}/3-0"]
    found = source.load(f"{first}/3-0")
    assert found["caption"][0].words == "Two Cats beside a hot dog."
    assert found["class"][0].words == "hot dog"
    assert found["boxes"][0].corners_N4.tolist() == [[40, 4, 80, 44]]
    cat = source.load(f"{first}/0-2")
    assert cat["class"][0].words == "cat"
    assert len(cat["boxes"][0].corners_N4) == 2
    assert "mask" not in cat
    with pytest.raises(UserError, match="no caption that names a class"):
        CocoCaptions(
            str(coco), annotations="instances.json", captions="captions.json", match="x"
        ).keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": "none.json"}, "holds no none.json"),
        ({"min_area": 10**6}, "no object with a mask of at least min_area=1000000"),
        ({"synsets": "none.json"}, "is no table of synsets"),
        ({"synsets": "instances.json"}, "is no table of synsets"),
        ({"classes": "others"}, "no table says which are known: set synsets"),
        ({"classes": "some"}, "it must be known or others"),
    ],
)
def test_wrong_annotations_are_told(coco, changes, message):
    with pytest.raises(UserError, match=message):
        objects(coco, **changes).keys()


def test_a_photograph_of_another_size_is_a_bad_item(coco):
    Image.new("RGB", (60, 80)).save(coco / "train2017/000000000001.jpg")
    with pytest.raises(BadItem, match="is 60x80 pixels, its annotations are of 90x80"):
        objects(coco).load("seen/000000000001.jpg/0")


def genome(root, **changes):
    fields = {"root": str(root), "synsets": "table.json", "fewest": 1}
    return Regions(**{**fields, **changes})


@pytest.fixture
def visual_genome(coco):
    """One photograph of COCO's and one of its own."""
    (coco / "VG_100K").mkdir()
    listed, regions, annotated = [], [], []
    for number, coco_id in ((5, 1), (6, None)):
        Image.new("RGB", (90, 80), (9, 9, 9)).save(coco / f"VG_100K/{number}.jpg")
        url = f"https://x/VG_100K/{number}.jpg"
        listed.append(
            {"image_id": number, "url": url, "coco_id": coco_id, "width": 90, "height": 80}
        )
        texts = [
            ("a  grey cat", 10, 40),
            ("the floor", 48, 32),
            ("far away", 70, 40),
            ("ear", 12, 5),
        ]
        regions.append(
            {
                "id": number,
                "regions": [
                    {"region_id": 10 * number + i, "image_id": number, "phrase": phrase}
                    | {"x": x, "y": 10, "width": side, "height": side}
                    for i, (phrase, x, side) in enumerate(texts)
                ],
            }
        )
        things = [(["cat.n.01"], 12), (["man.n.01", "adult.n.01"], 50), ([], 70)]
        annotated.append(
            {
                "image_id": number,
                "objects": [
                    {"synsets": names, "x": x, "y": 10, "w": 36, "h": 36, "object_id": i}
                    for i, (names, x) in enumerate(things)
                ],
            }
        )
    for name, content in (
        ("image_data", listed),
        ("region_descriptions", regions),
        ("objects", annotated),
    ):
        (coco / f"{name}.json").write_text(json.dumps(content))
    return coco


def test_regions_of_visual_genome(visual_genome):
    source = genome(visual_genome)
    keys = ["seen/000000000001.jpg/50", "seen/vg_6/60"]
    assert source.keys() == keys
    found = source.load(keys[0])
    assert found["caption"][0].words == "a grey cat"
    assert found["class"][0].words == "cat"
    assert found["boxes"][0].corners_N4.tolist() == [[10, 10, 50, 50]]
    assert found["shows"][0].words == "coco/000000000001.jpg"
    # Both folders are looked into: the published json files disagree.
    (visual_genome / "VG_100K").rename(visual_genome / "VG_100K_2")
    assert source.load(keys[1])["shows"][0].words == "coco/vg_6"
    with_people = genome(visual_genome, aliases=("man.n.01=hot dog",))
    assert len(with_people.keys()) == 4
    with pytest.raises(UserError, match=r"aliases has 'man\.n\.01=person': write synset=name"):
        genome(visual_genome, aliases=("man.n.01=person",)).keys()
    others = genome(visual_genome, classes="others", match=".*/6.jpg")
    assert others.keys() == ["held_out/vg_6/61"]
    found = others.load(others.keys()[0])
    assert (found["class"][0].words, bool(found["unseen"])) == ("man", True)
    # Bowls that the table has under another synset: training sees them all the same.
    names = class_names(visual_genome, "table.json", (), (), "others")
    assert [names.name(s, s) for s in ("man.n.01", "cat.n.02", "cat.n.01")] == ["man", "", ""]
    with pytest.raises(UserError, match="at least fewest=3 of them, of 2 that overlap"):
        genome(visual_genome, fewest=3).keys()
    (visual_genome / "objects.json").write_text('[{"id": 5}]')
    with pytest.raises(UserError, match="are not three files of one version of Visual Genome"):
        genome(visual_genome, fewest=2).keys()


def test_a_photograph_has_one_split_in_all_sources(visual_genome):
    """Visual Genome's photograph is COCO's: an unseen class in one keeps it from training in the other."""

    def entry(name, source):
        return Entry(name, source, About(), 1, "coco", ONE_PICTURE, NEVER_TRAIN)

    def splits(*sources):
        entries = tuple(entry(f"e{i}", source) for i, source in enumerate(sources))
        recipe = Recipe("pools", entries, 16, encoding="pool", validation_fraction=0.01)
        planned = plan(recipe)
        return {
            split: {(sentence.entry, key_items(sentence.key)[0]) for sentence in planned[split]}
            for split in planned
        }

    cats = objects(visual_genome)
    regions = genome(visual_genome, aliases=("man.n.01=hot dog",))
    found = splits(cats, dataclasses.replace(regions, unseen=("hot dog",), match=".*/5.jpg"))
    shown = {split: {item.split("/")[-2] for _, item in items} for split, items in found.items()}
    assert shown == {"train": {"000000000002.jpg"}, "validation": {"000000000001.jpg"}}
    assert len(found["validation"]) == 4, "objects of seen classes are there too"


def test_what_never_trains_contradicts_a_list(coco):
    entry = Entry("a", objects(coco), About(), never_train=NEVER_TRAIN)
    with pytest.raises(UserError, match=r"entries\.a\.never_train: use one of the two"):
        Recipe("pools", (entry,), 16, held_out="list.txt")
    with pytest.raises(UserError, match="never_train is no regular expression"):
        Recipe("pools", (dataclasses.replace(entry, never_train="("),), 16)


def test_recipes_without_it_keep_their_identity(coco):
    entry = Entry("a", objects(coco), About())
    assert "never_train" not in Recipe("pools", (entry,), 16).identity["entries"]["a"]


# Shards.


def test_a_tokenizer_for_a_pool_learns_from_its_pictures_and_masks(tmp_path):
    counts = sample_images(recipe(), tmp_path / "out", images=20)
    assert sum(counts.values()) >= 20
    found = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").rglob("*.png"))]
    assert len(found) % 3 == 0
    for image, boxed, mask in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert set(np.unique(mask)) == {0, 255}
        assert (image != boxed).any()


SMALL = DrawnObjects(count=24, held_out=6, class_words=("form",), size=16, things=(2, 2))


def recipe(source=SMALL, **changes):
    entry = Entry("shapes", source, About(boxed=True), 1, "", ONE_PICTURE, NEVER_TRAIN)
    fields = {"encoding": "pool", "validation_fraction": 0.2, "train_shards": 2}
    return Recipe("pools", (entry,), 16, **{**fields, **changes})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def built(tmp_path_factory, tokenizer):
    output = tmp_path_factory.mktemp("pools")
    build_uvd.build(recipe(), tokenizer, output, batch_size=8, beam_flags=threads(1))
    return output / "pools" / "1.0.0"


def threads(count):
    return [f"--direct_num_workers={count}", "--direct_running_mode=multi_threading"]


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_pool_is_what_was_drawn(built, tokenizer):
    manifest = Manifest.load(built)
    assert (manifest.encoding, manifest.tokens_per_image, manifest.codebook_size) == (
        *("pool", 64),
        32,
    )
    assert manifest.sources["drawn_objects"]["licence"] == "Apache-2.0"
    encoder = shared_encoder(tokenizer, 8)
    found = verify(built, encoder.vqgan)
    assert sum(found.sentences.values()) == 30
    assert found.source_images == {"drawn_objects": 60}
    train = PoolStore(built, "train")
    (one,) = [train.record(0)]
    source = SMALL.load(key_items(one.key)[0])
    white = np.repeat(np.where(source["mask"][0].inside_HW, 255, 0)[..., None], 3, 2)
    codes = encoder.encode([source["image"][0], white.astype(np.uint8)])
    np.testing.assert_array_equal(one.picture, codes[0])
    np.testing.assert_array_equal(one.mask, codes[1])
    assert one.boxed is not None
    assert one.area == source["mask"][0].inside_HW.sum()
    assert one.caption == source["caption"][0].words
    assert one.class_name == source["class"][0].words
    assert one.licence == "Apache-2.0"


def test_unseen_classes_are_in_validation_alone(built):
    unseen = SMALL.classes()[1]
    stores = {split: PoolStore(built, split) for split in ("train", "validation")}
    names = {
        split: {store.record(i).class_name for i in range(len(store))}
        for split, store in stores.items()
    }
    assert not names["train"] & set(unseen)
    assert set(unseen) <= names["validation"]
    pool = Pool.of(stores["validation"], Question.SEGMENTATION, examples=1, side="unseen")
    assert len(pool) == 6


def test_the_bytes_do_not_depend_on_the_workers(built, tmp_path, tokenizer):
    build_uvd.build(recipe(), tokenizer, tmp_path, batch_size=8, beam_flags=threads(3))
    assert contents(tmp_path / "pools" / "1.0.0") == contents(built)


def test_a_page_of_rows(built, tokenizer):
    rows = drawn_rows(built, ["train", "validation"], 5, seed=1)
    asked = {(row.split, row.question.name) for row in rows}
    assert asked == {
        (split, question)
        for split in ("train", "validation")
        for question in ("SEGMENTATION", "CAPTIONING")
    }
    assert all(len({record.class_name for record in row.records}) == 1 for row in rows)
    page = pool_page(rows, shared_encoder(tokenizer, 8).vqgan)
    assert page.shape == (5 * 124, 3 * 202, 3)
    assert page.std() > 10


def rewritten(built, tmp_path, change):
    """A copy whose first validation record is another."""
    path = built / shard_name("pools", "validation", 0, 1)
    store = PoolStore(built, "validation")
    found = [store.record(i) for i in range(len(store))]
    with PoolWriter(tmp_path / path.name) as writer:
        for number, one in enumerate(found):
            writer.add(dataclasses.replace(one, **change) if number == 0 else one)
    for other in built.iterdir():
        if other.is_file() and not (tmp_path / other.name).exists():
            (tmp_path / other.name).write_bytes(other.read_bytes())
    return tmp_path


def test_a_photograph_in_two_splits_is_found(built, tmp_path):
    shown = PoolStore(built, "train").record(0).shows
    with pytest.raises(UserError, match=f"'{shown}' is shown in 'train' too"):
        verify(rewritten(built, tmp_path, {"shows": shown}))


def test_codes_of_another_tokenizer_are_found(built, tmp_path):
    with pytest.raises(UserError, match="has 64 codes up to 40, its tokenizer gives 64 below 32"):
        verify(rewritten(built, tmp_path, {"mask": np.full(64, 40)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": "center"}, "a pool needs 'squash'"),
        ({"near_duplicates": 4}, "all objects of a photograph show one picture"),
        ({"image_size": 32}, "config.image_size is 32, the tokenizer .* takes 16"),
        ({"entries": (Entry("shapes", SMALL, SingleImage()),)}, "use the composer about"),
    ],
)
def test_recipes_that_make_no_pool_are_refused(tokenizer, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        build_uvd.build(dataclasses.replace(recipe(), **changes), tokenizer, tmp_path)


def test_the_config_files_are_recipes(coco):
    shapes = from_config(unified_shapes.get_config("runlocal"))
    planned = plan(shapes)
    assert sum(map(len, planned.values())) == 60
    config = unified_coco.get_config("captions")
    with pytest.raises(UserError, match=r"--config\.root=DIR or --config\.images=DIR"):
        from_config(config)
    config.root = config.images = str(coco)
    names = {entry.name: entry.source.name for entry in from_config(config).entries}
    assert set(names) == {
        *("train", "val", "lvis", "regions", "unseen_regions"),
        *("captions_train", "captions_val"),
    }
