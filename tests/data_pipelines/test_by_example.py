"""Sentences under a rule of their own: constant in one, different between them, and never told by the query."""

import collections
import itertools

import numpy as np
import pytest

from data_pipelines.hues import HUES, hue_name
from data_pipelines.sentences import (
    Attribute,
    ClassMask,
    Palette,
    Recolour,
    Transformation,
    Unfit,
)
from data_pipelines.sentences.class_rules import painted
from data_pipelines.sources import DrawnScenes
from lvm_jax.data.sentences.visual_sentence import expand_layout
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

KIND, HUE = r"([a-z]+)-.*", r"[a-z]+-([a-z]+)/.*"
SOURCE = DrawnScenes(scenes=640, roles=("segmentation", "instances", "depth"), size=32)
KEYS = SOURCE.keys()
COMPOSERS = {
    "class_mask": ClassMask(class_of=KIND),
    "palette": Palette(),
    "recolour": Recolour(class_of=KIND),
    "attribute": Attribute(depth="depth", class_of=HUE),
    "transformation": Transformation(),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(composer, seed: int = 0) -> list[dict]:
    """The items of one group."""
    return [SOURCE.load(key) for key in composer.group(KEYS, rng(seed))[0]]


def queries_and_answers(composer, items, seed: int) -> tuple[list, list]:
    images, layout = composer.compose(items, rng(seed))
    assert expand_layout(layout) == ["image", composer.role] * (len(images) // 2)
    return images[::2], images[1::2]


def flat(*ids: int) -> np.ndarray:
    """A map with a column of 8 pixels for each id."""
    return maps.ids_to_rgb(np.repeat(np.array([ids]), 8, axis=1).repeat(8, axis=0))


def item(*ids: int) -> dict:
    return {"image": [np.full((8, 8 * len(ids), 3), 100, np.uint8)], "segmentation": [flat(*ids)]}


@pytest.mark.parametrize("name", COMPOSERS)
def test_the_same_query_has_other_answers_in_other_sentences(name):
    """The control that no model can pass by its query: items and order equal, only the rule differs."""
    composer = COMPOSERS[name]
    assert composer.role == name
    # A class or colour in common leaves few rules; two groups of drawn scenes share more.
    items = drawn(composer)
    answers = collections.defaultdict(set)
    for seed in range(40):
        for query, answer in zip(*queries_and_answers(composer, items, seed), strict=True):
            assert answer.shape == query.shape
            answers[query.tobytes()].add(answer.tobytes())
    assert len(answers) == 8
    if name == "class_mask":
        # This group shares one class only; another group asks the same query for another class.
        items = [item(1, 2, 0), item(2, 1, 0)]
        composer = ClassMask(n_pairs=2)
        seen = {queries_and_answers(composer, items, s)[1][0].tobytes() for s in range(20)}
        assert len(seen) == 2
    else:
        assert min(len(of_query) for of_query in answers.values()) >= 2


@pytest.mark.parametrize("name", COMPOSERS)
def test_groups_are_whole_and_fit(name):
    composer = COMPOSERS[name]
    groups = composer.group(KEYS, rng())
    assert {len(group) for group in groups} == {8}
    assert set().union(*groups) == set(KEYS)
    for group in groups[:10]:
        composer.compose([SOURCE.load(key) for key in group], rng())


def test_a_class_mask_is_the_same_class_in_all_pairs():
    composer, chosen = COMPOSERS["class_mask"], set()
    for group in composer.group(KEYS, rng())[:30]:
        items = [SOURCE.load(key) for key in group]
        _, answers = queries_and_answers(composer, items, 0)
        of_sentence = set()
        for one, answer in zip(items, answers, strict=True):
            ids = maps.rgb_to_ids(one["segmentation"][0])
            inside = maps.rgb_to_mask(answer)
            (class_id,) = set(ids[inside].tolist())
            np.testing.assert_array_equal(inside, ids == class_id)
            assert len(set(ids[ids > 0])) > 1
            of_sentence.add(class_id)
        assert len(of_sentence) == 1
        chosen |= of_sentence
    assert len(chosen) > 5


def test_a_palette_is_one_to_one_and_the_same_in_all_pairs():
    tables = set()
    for seed in range(5):
        items = drawn(COMPOSERS["palette"], seed)
        _, answers = queries_and_answers(COMPOSERS["palette"], items, seed)
        table = {}
        for one, answer in zip(items, answers, strict=True):
            ids = maps.rgb_to_ids(one["segmentation"][0])
            for i in np.unique(ids).tolist():
                colours = {tuple(c) for c in answer[ids == i].tolist()}
                assert len(colours) == 1
                assert table.setdefault(i, colours) == colours
        assert table[0] == {(0, 0, 0)}
        assert len(set(map(frozenset, table.values()))) == len(table)
        tables.add(str(table))
    assert len(tables) == 5


def test_a_palette_of_more_classes_than_colours_has_more_colours():
    ids = np.arange(30)
    many = {"image": [np.zeros((8, 240, 3), np.uint8)]}
    many["segmentation"] = [maps.palette(31)[np.repeat(ids[None], 8, 0).repeat(8, 1)]]
    _, answers = queries_and_answers(Palette(n_pairs=1), [many], 0)
    assert len(np.unique(answers[0].reshape(-1, 3), axis=0)) == 30


def test_one_class_is_painted_in_one_new_hue_and_nothing_else_is():
    composer, hues = COMPOSERS["recolour"], set()
    for seed, group in enumerate(composer.group(KEYS, rng())[:30]):
        items = [SOURCE.load(key) for key in group]
        queries, answers = queries_and_answers(composer, items, seed)
        classes, names = set(), set()
        for one, query, answer in zip(items, queries, answers, strict=True):
            ids = maps.rgb_to_ids(one["segmentation"][0])
            changed = (query != answer).any(-1)
            (class_id,) = set(ids[changed].tolist())
            classes.add(class_id)
            names |= {hue_name(tuple(c)) for c in answer[ids == class_id].tolist()}
        assert len(classes) == len(names) == 1
        hues |= names
    assert len(hues) > 4
    assert hues <= set(HUES)
    light = np.array([[[40, 40, 40], [240, 240, 240]]], np.uint8)
    dark, bright = painted(light, np.ones((1, 2), bool), HUES["red"])[0].tolist()
    assert bright[0] > dark[0] + 60, "light and shade are lost"


ATTRIBUTES = {
    ("size", "largest"): lambda o: o["area"] == o["area"].max(),
    ("size", "smallest"): lambda o: o["area"] == o["area"].min(),
    ("place", "leftmost"): lambda o: o["x"] == o["x"].min(),
    ("place", "rightmost"): lambda o: o["x"] == o["x"].max(),
    ("place", "highest"): lambda o: o["y"] == o["y"].min(),
    ("place", "lowest"): lambda o: o["y"] == o["y"].max(),
    ("distance", "nearest"): lambda o: o["level"] == o["level"].max(),
    ("distance", "farthest"): lambda o: o["level"] == o["level"].min(),
    **{("colour", hue): lambda o, hue=hue: o["hue"] == hue for hue in HUES},
}


def measured(one: dict) -> dict[str, np.ndarray]:
    """The objects of an item: their ids and numbers."""
    ids = maps.rgb_to_ids(one["instances"][0])
    rows = collections.defaultdict(list)
    for i in np.unique(ids[ids > 0]).tolist():
        y, x = np.nonzero(ids == i)
        rows["id"].append(i)
        rows["area"].append(len(x))
        rows["x"].append(x.mean())
        rows["y"].append(y.mean())
        rows["level"].append(one["depth"][0][ids == i].mean())
        rows["hue"].append(hue_name(tuple(one["image"][0][ids == i].mean(0))))
    return {name: np.array(values) for name, values in rows.items()}


def test_an_attribute_points_out_the_same_in_all_pairs():
    composer = Attribute(depth="depth", class_of=HUE, pool=12)
    seen = collections.Counter()
    for seed, group in enumerate(composer.group(KEYS, rng())[:24]):
        items = {x["image"][0].tobytes(): x for x in map(SOURCE.load, group)}
        queries, answers = queries_and_answers(composer, list(items.values()), seed)
        assert len(queries) == 8
        fitting = set(ATTRIBUTES)
        for query, answer in zip(queries, answers, strict=True):
            one = items[query.tobytes()]
            objects, ids = measured(one), maps.rgb_to_ids(one["instances"][0])
            inside = maps.rgb_to_mask(answer)
            pointed = {i for i in objects["id"].tolist() if inside[ids == i].all()}
            assert pointed == set(ids[inside].tolist())
            fitting &= {
                rule
                for rule, of in ATTRIBUTES.items()
                if set(objects["id"][of(objects)].tolist()) == pointed
            }
        assert fitting, "no attribute explains the answers"
        seen.update({aspect for aspect, _ in fitting})
    assert set(seen) == {"size", "place", "distance", "colour"}
    assert min(seen.values()) > 1


def test_aspects_choose_what_an_attribute_is_of():
    one = SOURCE.load(KEYS[0])
    told = {
        aspects: set(Attribute(depth="depth", aspects=aspects)._pointed_out([one], 0))
        for aspects in (("colour",), ("size", "distance"))
    }
    assert {aspect for aspect, _ in told["colour",]} == {"colour"}
    assert {aspect for aspect, _ in told["size", "distance"]} <= {"size", "distance"}
    every = set(Attribute(depth="depth")._pointed_out([one], 0))
    assert told["colour",] < every
    assert told["size", "distance"] < every


@pytest.mark.parametrize(
    ("aspects", "message"),
    [
        (("hue",), r"aspects is \('hue',\): name some of size, place, distance, colour"),
        ((), "name some of"),
        (("distance",), "name the role of the depth"),
    ],
)
def test_aspects_that_no_picture_has_are_refused(aspects, message):
    with pytest.raises(UserError, match=message):
        Attribute(aspects=aspects)


def test_an_attribute_that_is_not_clear_in_a_picture_is_not_drawn():
    def pair(width: int, shade: int) -> dict:
        """Two areas, one as high as the other and `width` times as wide, of two greys."""
        one = item(*[1] * width, 0, 2)
        one["image"][0][:, -8:] = shade
        return one

    for items, rules in (
        ([pair(1, 100)], {"leftmost", "rightmost"}),
        ([pair(3, 100)], {"leftmost", "rightmost", "largest", "smallest"}),
    ):
        composer = Attribute(n_pairs=1, objects="segmentation")
        told = composer._pointed_out(items, 0)
        assert {value for _, value in told} == rules
    assert not Attribute(objects="segmentation")._pointed_out([item(1, 0)], 0)


def test_connected_areas_of_one_class_can_be_the_objects():
    items = [item(1, 0, 1)]
    assert not Attribute(objects="segmentation")._pointed_out(items, 0)
    told = Attribute(objects="segmentation", connected=True)._pointed_out(items, 0)
    left = told["place", "leftmost"]
    assert left[:, :8].all()
    assert not left[:, 8:].any()


def inverse_of(family: str, image: np.ndarray, answer: np.ndarray) -> set:
    """The rules of a family that turn image into answer; hues within rounding."""
    if family == "shift":
        shifts = itertools.product(range(8), range(8))
        step = len(image) // 8
        rolled = ((s, np.roll(image, (step * s[0], step * s[1]), (0, 1))) for s in shifts)
        return {s for s, x in rolled if s != (0, 0) and (x == answer).all()}
    if family == "turn":
        return {k for k in (1, 2, 3) if (np.rot90(image, k) == answer).all()}
    if family == "mirror":
        return {k for k in (0, 1) if (np.flip(image, k) == answer).all()}
    if family == "negative":
        return {"negative"} if (answer + image == 255).all() else set()
    if family == "channels":
        orders = list(itertools.permutations(range(3)))[1:]
        return {o for o in orders if (image[..., o] == answer).all()}
    saturated = np.ptp(image, axis=-1) > 100
    hues = [_hue(x[saturated]) for x in (image, answer)]
    turn = np.median((hues[1] - hues[0]) % 360)
    return {h for h in (60, 180, 300) if abs(turn - h) < 6}


def _hue(rgb: np.ndarray) -> np.ndarray:
    # The angle of a colour around the grey axis.
    r, g, b = rgb.astype(float).T
    return np.degrees(np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b)) % 360


def test_more_classes_than_all_colours_make_a_bad_item():
    def many(first: int) -> dict:
        ids = first + np.arange(200)[None]
        colours = np.stack([0 * ids, ids >> 8, ids & 255], -1).astype(np.uint8)
        return {"image": [np.zeros((1, 200, 3), np.uint8)], "segmentation": [colours]}

    with pytest.raises(Unfit, match="it shows 400 classes with its neighbours, of at most 255"):
        Palette(n_pairs=2).compose([many(1), many(201)], rng())


@pytest.mark.parametrize("family", ["shift", "turn", "mirror", "negative", "channels", "hue"])
def test_a_transformation_is_the_same_in_all_pairs(family):
    composer, rules = Transformation(families=(family,)), set()
    items = [item for seed in range(2) for item in drawn(composer, seed)][:8]
    for seed in range(25):
        pairs = zip(*queries_and_answers(composer, items, seed), strict=True)
        fitting = [inverse_of(family, *pair) for pair in pairs]
        rule = set.intersection(*fitting)
        assert rule, "the pairs of a sentence do not agree"
        rules |= rule
    expected = {"shift": 12, "turn": 3, "mirror": 2, "negative": 1, "channels": 5, "hue": 3}
    assert len(rules) >= expected[family]


def test_a_transformation_of_a_long_picture_is_of_a_square_of_it():
    wide = {"image": [rng().integers(0, 256, (16, 40, 3), dtype=np.uint8)]}
    for seed in range(8):
        (query,), (answer,) = queries_and_answers(Transformation(n_pairs=1), [wide], seed)
        assert query.shape == answer.shape == (16, 16, 3)


def test_several_classes_are_meant_in_all_pairs_and_never_all():
    composer, counts = ClassMask(n_pairs=2, several=True), set()
    items = [item(1, 2, 3, 4), item(4, 3, 2, 1)]
    for seed in range(20):
        _, answers = queries_and_answers(composer, items, seed)
        meant = [
            set(maps.rgb_to_ids(one["segmentation"][0])[maps.rgb_to_mask(answer)].tolist())
            for one, answer in zip(items, answers, strict=True)
        ]
        assert meant[0] == meant[1]
        counts.add(len(meant[0]))
    assert counts == {1, 2, 3}


def test_a_pool_finds_items_that_share_a_class():
    items = [item(1, 2), item(3, 4), item(1, 3), item(5, 2)]
    with pytest.raises(Unfit, match=r"no class, beside another, suits 2 of the 2 .* larger pool"):
        ClassMask(n_pairs=2).compose(items[:2], rng())
    composer = ClassMask(n_pairs=2, pool=4)
    assert composer.max_items == 4
    assert composer.max_images == 4
    assert len(composer.group(KEYS, rng())[0]) == 4
    images, layout = composer.compose(items, rng())
    assert layout == "image,class_mask,image,class_mask"
    assert len(images) == 4
    # A picture of one class alone does not count.
    with pytest.raises(Unfit):
        ClassMask(n_pairs=2).compose([item(1, 2), item(1, 1)], rng())


@pytest.mark.parametrize(
    ("composer", "wrong", "words"),
    [
        (ClassMask(n_pairs=2, classes="parts"), item(1, 2), "it has no 'parts'"),
        (
            Palette(n_pairs=2),
            item(1, 2) | {"segmentation": [flat(1, 2)[:4]]},
            r"its 'image' is 16x8 pixels, its 'segmentation' 16x4",
        ),
        (
            ClassMask(n_pairs=2, classes="image"),
            {"image": [rng().integers(0, 256, (32, 32, 3), dtype=np.uint8)]},
            r"its 'image' has \d+ colours, .* name a role of flat colours",
        ),
        (Attribute(n_pairs=2), item(1, 2), "it has no 'instances'"),
    ],
    ids=["absent", "sizes", "photograph", "objects"],
)
def test_what_cannot_be_used_is_refused_in_one_line(composer, wrong, words):
    with pytest.raises(Unfit, match=words) as caught:
        composer.compose([wrong, wrong], rng())
    assert caught.value.position == 0
    assert "\n" not in caught.value.why


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClassMask(n_pairs=0),
        lambda: Palette(pool=4),
        lambda: Palette(n_pairs=2, pool=4),
        lambda: ClassMask(n_pairs=2, pool=4, several=True),
        lambda: Transformation(n_pairs=2, pool=4),
        lambda: Recolour(class_of="a+"),
        lambda: Transformation(families=()),
        lambda: Transformation(grid=1),
        lambda: Transformation(crop=0.0),
        lambda: Transformation(n_pairs=0),
    ],
)
def test_impossible_composers_are_refused(make):
    with pytest.raises(UserError):
        make()
