"""Recipes: what they refuse, which item is in which split, and that the plan follows from recipe and seed alone."""

import collections
import dataclasses
import itertools
import pathlib

import ml_collections
import pytest
from pipe_fakes import FakePhotos, FakeVideos, small_recipe

from data_pipelines.annotators import Blur, Canny, Grey
from data_pipelines.build import recipe as recipe_lib
from data_pipelines.build.plan import fingerprint, key_items, plan
from data_pipelines.build.recipe import Entry, Recipe, from_config
from data_pipelines.sentences import CategoryGroup, MultiAnnotation, Pairs, SingleImage, Video
from data_pipelines.sources import Annotated, DrawnClips
from lvm_jax.errors import UserError


@pytest.fixture
def config(monkeypatch) -> ml_collections.ConfigDict:
    monkeypatch.setitem(recipe_lib.SOURCES, "photos", FakePhotos)
    monkeypatch.setitem(recipe_lib.SOURCES, "clips", FakeVideos)
    config = ml_collections.ConfigDict({"name": "small", "image_size": 16, "root": "/data"})
    root = config.get_ref("root")
    config.entries = {
        "depth": {
            "source": {"kind": "photos", "root": root + "/photos"},
            "composer": {"kind": "pairs", "annotation": "depth", "n_pairs": 2},
            "epochs": 3,
        },
        "clips": {
            "source": {"kind": "clips"},
            "composer": {"kind": "video", "n_frames": 4, "strides": (1, 2)},
        },
    }
    return config


def test_a_config_becomes_sources_and_composers(config):
    config.root = "/elsewhere"
    config.entries.depth.epochs = 5
    recipe = from_config(config)
    assert recipe.entries == (
        Entry("clips", FakeVideos(), Video(4, (1, 2))),
        Entry("depth", FakePhotos(root="/elsewhere/photos"), Pairs("depth", 2), epochs=5),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(sed=3), "config.sed does not exist in Recipe; did you mean 'seed'"),
        (lambda c: c.update(max_bad_items=-1), "config.max_bad_items is -1: at least 0"),
        (
            lambda c: c.entries.update(words={"source": "/data", "composer": {}}),
            "config.entries.words.source is '/data': it must be a mapping",
        ),
        (lambda c: c.update(resise="crop"), "config.resise does not exist in Recipe"),
        (lambda c: c.update(resize="crops"), "config.resize is 'crops'"),
        (lambda c: c.entries.depth.update(epoch=3), "config.entries.depth.epoch does not exist"),
        (lambda c: c.entries.depth.source.update(kind="photo"), "'photo'; did you mean photos"),
        (lambda c: c.entries.depth.composer.update(kind="pair"), "'pair'; did you mean pairs"),
        (
            lambda c: c.entries.depth.composer.update(pairs=1),
            "composer.pairs does not exist in Pairs",
        ),
        (lambda c: c.entries.depth.source.update(count="ten"), "source.count is 'ten'"),
        (
            lambda c: setattr(c, "entries", {}),
            "no entry with a folder: give one, such as --config.root=DIR",
        ),
        (lambda c: c.entries.depth.update(together="(a"), "together is no regular expression"),
        (lambda c: c.entries.depth.update(together="a+"), "it needs a (group)"),
        (lambda c: c.entries.depth.update(epochs=0), "epochs is 0: at least 1"),
        (
            lambda c: c.update(max_images=3),
            "sentences of 4 images, the limit config.max_images is 3",
        ),
        (lambda c: c.update(validation_fraction=0.0), "validation_fraction is 0.0"),
    ],
)
def test_mistakes_name_the_key_and_the_nearest(config, change, words):
    config.unlock()
    change(config)
    with pytest.raises(UserError) as caught:
        from_config(config)
    assert words in str(caught.value)


def test_a_composer_of_classes_says_that_it_finds_none():
    entry = Entry("flat", FakePhotos(), CategoryGroup(4))
    with pytest.raises(
        UserError, match=r"class_of=.* finds a class in 0 of their keys, such as 'ph"
    ):
        plan(Recipe("small", (entry,), 16))


def test_an_entry_without_a_folder_is_left_out(config):
    config.entries.depth.source.root = ""
    assert [entry.name for entry in from_config(config).entries] == ["clips"]


def test_two_sources_of_one_name_are_refused():
    entries = (
        Entry("a", FakePhotos(count=3), SingleImage()),
        Entry("b", FakePhotos(count=4), SingleImage()),
    )
    with pytest.raises(UserError, match="already named 'photos'"):
        Recipe("small", entries, 16)


def test_no_item_is_in_two_splits_whatever_the_entry():
    recipe = small_recipe()
    sets = {entry.name: entry.item_set for entry in recipe.entries}
    splits = collections.defaultdict(set)
    for split, planned in plan(recipe).items():
        for sentence in planned:
            for item in sentence.items:
                splits[sets[sentence.entry], item].add(split)
    assert len(splits) == 20 + 6
    assert all(len(of_item) == 1 for of_item in splits.values())
    held_out = {name for name, of_item in splits.items() if of_item == {"validation"}}
    assert sum(name == "photos" for name, _ in held_out) >= 2
    assert sum(name == "videos" for name, _ in held_out) >= 2


def test_a_list_decides_what_is_held_out(tmp_path):
    (tmp_path / "validation.txt").write_text(
        "photos/photo003.png\nphotos/photo011.png\nelsewhere/photo004.png\n"
    )
    entries = (Entry("photos", FakePhotos(), SingleImage()),)
    planned = plan(Recipe("small", entries, 16, held_out=str(tmp_path / "validation.txt")))
    assert {item for s in planned["validation"] for item in s.items} == {
        "photo003.png",
        "photo011.png",
    }
    assert not {"photo003.png", "photo011.png"} & {
        item for s in planned["train"] for item in s.items
    }


def test_a_folder_of_the_list_holds_out_all_that_is_in_it(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Folders(FakePhotos):
        def keys(self) -> list[str]:
            return [f"{folder}/{i}.png" for folder in ("cats", "cats_2", "dogs") for i in range(3)]

    (tmp_path / "validation.txt").write_text("photos/cats\nphotos/dogs/1.png\n")
    entries = (Entry("photos", Folders(), SingleImage()),)
    planned = plan(Recipe("small", entries, 16, held_out=str(tmp_path / "validation.txt")))
    held_out = sorted(item for sentence in planned["validation"] for item in sentence.items)
    assert held_out == ["cats/0.png", "cats/1.png", "cats/2.png", "dogs/1.png"]


def test_a_negative_seed_is_refused():
    entry = Entry("clips", DrawnClips(seed=-3), Video())
    with pytest.raises(UserError, match=r"config\.entries\.clips\.source\.seed is -3: at least 0"):
        Recipe("small", (entry,), 16)
    with pytest.raises(UserError, match=r"config\.seed is -1: at least 0"):
        Recipe("small", (), 16, seed=-1)


def test_an_item_keeps_its_split_when_the_source_grows():
    def held_out(count: int) -> set[str]:
        recipe = small_recipe(FakePhotos(count=count))
        planned = plan(recipe)["validation"]
        return {item for sentence in planned for item in sentence.items if "photo" in item}

    small, large = held_out(200), held_out(400)
    assert 20 <= len(small) <= 60, "the fraction is 0.2 of 200"
    assert small == {item for item in large if item < "photo200"}


@pytest.mark.parametrize("count", [8, 20])
def test_a_small_source_gives_validation_enough_for_one_sentence(count):
    entries = (Entry("depth", FakePhotos(count=count), Pairs("depth", 4)),)
    planned = plan(Recipe("small", entries, 16, validation_fraction=0.001))
    assert len({item for s in planned["validation"] for item in s.items}) == 4


def test_validation_takes_at_most_half_of_a_source():
    sizes = set()
    for name in "abcdef":
        entries = (Entry("single", FakePhotos(name=name, count=7), SingleImage()),)
        sizes.add(len(plan(Recipe("small", entries, 16, validation_fraction=0.5))["validation"]))
    assert max(sizes) == 3


def test_cuts_of_one_film_are_in_one_split():
    @dataclasses.dataclass(frozen=True)
    class Cuts(FakeVideos):
        def keys(self) -> list[str]:
            return sorted(
                [f"film{i}_{cut}.mp4" for i in range(12) for cut in range(3)] + ["lone.mp4"]
            )

    for seed_of_names in ("a", "b", "c"):
        videos = Cuts(name=seed_of_names)
        entry = Entry("cuts", videos, Video(4, (1,)), together=r"(.+?)(?:_\d+)?\.mp4")
        planned = plan(Recipe("small", (entry,), 16, validation_fraction=0.3))
        films = {
            split: {s.items[0].split("_")[0] for s in of_split}
            for split, of_split in planned.items()
        }
        assert films["train"].isdisjoint(films["validation"])
        assert len(films["train"] | films["validation"]) == 13


def test_a_photograph_is_in_one_split_whatever_source_and_composer_show_it():
    photos = [FakePhotos(name=name, count=60) for name in "abcd"]
    roles = Annotated(photos[3], (("edges", Canny()), ("grey", Grey())))
    entries = (
        Entry("single", photos[0], SingleImage(), epochs=2, items="photos"),
        Entry("pairs", photos[1], Pairs("depth", 3), epochs=3, items="photos"),
        Entry("class", photos[2], CategoryGroup(3, class_of="(photo).*"), items="photos"),
        Entry("many", roles, MultiAnnotation(("edges", "grey"), 6), epochs=2, items="photos"),
    )
    planned = plan(Recipe("small", entries, 16, validation_fraction=0.2))
    of = {split: {i for s in planned[split] for i in s.items} for split in planned}
    assert of["train"].isdisjoint(of["validation"])
    assert of["train"] | of["validation"] == set(photos[0].keys())
    for split in planned:
        assert {s.entry for s in planned[split]} == {"single", "pairs", "class", "many"}
    again = plan(Recipe("small", entries[1:2], 16, validation_fraction=0.2, seed=9))
    assert {i for s in again["validation"] for i in s.items} == of["validation"]


def test_entries_that_show_the_same_files_must_name_one_item_set():
    one = Entry("one", FakePhotos(name="a"), SingleImage())
    other = Entry("other", Annotated(FakePhotos(name="b"), (("e", Canny()),)), Pairs("e", 2))
    with pytest.raises(UserError, match=r"one and config.entries.other both show 'photo000.png'"):
        plan(Recipe("small", (one, other), 16))
    same = dataclasses.replace(other, source=FakePhotos(name="b", root="./nowhere/"))
    with pytest.raises(UserError, match=r"both show .* of nowhere, which could be in"):
        plan(Recipe("small", (one, same), 16))
    elsewhere = dataclasses.replace(other, source=FakePhotos(name="b", root="elsewhere"))
    plan(Recipe("small", (one, elsewhere), 16))


def test_a_key_that_occurs_twice_is_named():
    @dataclasses.dataclass(frozen=True)
    class Twice(FakePhotos):
        def keys(self) -> list[str]:
            return [*super().keys(), "photo004.png"]

    with pytest.raises(UserError, match=r"source 'photos' has the key 'photo004.png' twice"):
        plan(small_recipe(Twice()))


def test_annotators_of_an_entry_are_built_checked_and_part_of_the_identity(config):
    config.entries.depth.annotators = {"soft": {"kind": "blur", "radius": (0.1, 0.2)}}
    recipe = from_config(config)
    (entry,) = (entry for entry in recipe.entries if entry.name == "depth")
    source = FakePhotos(root="/data/photos")
    assert entry.source == Annotated(source, (("soft", Blur(radius=(0.1, 0.2))),))
    told = recipe.identity["entries"]["depth"]["source"]
    assert told["source"]["kind"] == "FakePhotos"
    assert told["annotators"][0][1] == {"kind": "Blur", "radius": [0.1, 0.2]}
    config.entries.depth.annotators.soft.kind = "blurr"
    with pytest.raises(
        UserError, match=r"depth.annotators.soft.kind is 'blurr'; did you mean blur"
    ):
        from_config(config)


def test_the_recipe_in_the_docs_is_one():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "data_pipelines.md").read_text()
    namespace = {}
    exec(page.split("```python\n")[1].split("```")[0], namespace)
    recipe = from_config(namespace["get_config"]())
    assert len(recipe.entries) == page.split("```python\n")[1].split("```")[0].count('"composer"')
    for kind in (*recipe_lib.SOURCES, *recipe_lib.COMPOSERS, *recipe_lib.ANNOTATORS):
        assert f"`{kind}`" in page, f"the page does not tell what {kind!r} is"


def test_the_plan_follows_from_recipe_and_seed():
    assert plan(small_recipe()) == plan(small_recipe())
    here, there = plan(small_recipe())["train"], plan(small_recipe(seed=1))["train"]
    assert here != there


def test_the_plan_is_shuffled_over_entries_and_its_keys_are_unique():
    planned = plan(small_recipe())
    keys = [sentence.key for split in planned.values() for sentence in split]
    assert len(set(keys)) == len(keys)
    order = [sentence.entry for sentence in planned["train"]]
    switches = sum(a != b for a, b in itertools.pairwise(order))
    assert switches > len(order) / 4
    assert collections.Counter(order)["depth"] == 4 * -(-len(set_of(planned, "depth")) // 2)


def set_of(planned, entry: str) -> set[str]:
    return {item for s in planned["train"] if s.entry == entry for item in s.items}


def test_a_sentence_key_tells_its_items_whatever_they_are_called():
    @dataclasses.dataclass(frozen=True)
    class Odd(FakePhotos):
        def keys(self) -> list[str]:
            return sorted(["a|b/c.png", "50%.png", "%7C", "d+e", "f", "g"])

    planned = plan(small_recipe(Odd()))
    for sentence in (*planned["train"], *planned["validation"]):
        assert tuple(key_items(sentence.key)) == sentence.items


def test_the_fingerprint_is_of_recipe_items_and_tokenizer_but_not_of_the_bad_item_limit():
    def of(recipe: Recipe, tokenizer: str = "t") -> str:
        return fingerprint(recipe, plan(recipe), tokenizer)

    same = of(small_recipe())
    assert same == of(small_recipe(max_bad_items=7))
    others = {
        of(small_recipe(), "u"),
        of(small_recipe(seed=1)),
        of(small_recipe(resize="center")),
        of(small_recipe(FakePhotos(count=21))),
    }
    assert same not in others
    assert len(others) == 4


def test_sources_too_small_for_the_recipe_are_named():
    with pytest.raises(UserError, match=r"source 'photos' has no items"):
        plan(small_recipe(FakePhotos(count=0)))
    with pytest.raises(UserError, match=r"config.entries.depth: 1 items of 'photos' are left"):
        plan(small_recipe(FakePhotos(count=2)))
    lonely = Entry("one", FakePhotos(count=1), SingleImage())
    with pytest.raises(UserError, match="split 'validation' has no sentences"):
        plan(Recipe("small", (lonely,), 16))
