"""The recipe that teaches context: its shares, fresh scenes in every entry, and the same bytes whoever writes them."""

import collections
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipe_fakes import save_tokenizer

from data_pipelines.build.composing import ItemCache, SentenceMaker
from data_pipelines.build.plan import plan
from data_pipelines.build.recipe import Recipe, from_config
from data_pipelines.build_uvd import build
from data_pipelines.configs import in_context
from data_pipelines.hues import hue_name
from data_pipelines.items import digest, pictures
from lvm_jax.data.sentences.visual_sentence import expand_layout
from lvm_jax.errors import UserError

RULES = ("class_mask", "palette", "recolour", "attribute", "transformation")
THREADS = "--direct_running_mode=multi_threading"
ONE_THREAD, TWO_THREADS = ["--direct_num_workers=1", THREADS], ["--direct_num_workers=2", THREADS]


def recipe_of(arg: str | None = None, **keys) -> Recipe:
    config = in_context.get_config(arg)
    config.update(keys)
    return from_config(config)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_shares_are_as_named():
    assert sum(in_context.SHARES.values()) == pytest.approx(1)
    recipe = recipe_of("sentences=4000")
    assert {entry.name for entry in recipe.entries} == set(in_context.SHARES)
    planned = [sentence for of_split in plan(recipe).values() for sentence in of_split]
    counts = collections.Counter(sentence.entry for sentence in planned)
    for name, share in in_context.SHARES.items():
        # Groups of one kind or hue are completed by others, so an entry may have a few more.
        assert share * 4000 <= counts[name] + 8 <= share * 4000 * 1.06 + 30
    assert {entry.composer.max_images for entry in recipe.entries} == {16}


def test_every_entry_is_held_out_in_part_and_no_scene_is_in_both_splits():
    recipe = recipe_of("runlocal", image_size=16)
    shown = {"train": set(), "validation": set()}
    entries = {entry.name: entry for entry in recipe.entries}
    for split, planned in plan(recipe).items():
        assert {sentence.entry for sentence in planned} == set(in_context.SHARES)
        for sentence in planned:
            source = entries[sentence.entry].source
            for key in sentence.items:
                shown[split].add(digest(next(iter(source.load(key).values()))[0]))
    assert len(shown["validation"]) > 150
    assert not shown["train"] & shown["validation"]


def test_two_entries_that_draw_the_same_scenes_must_hold_out_the_same():
    config = in_context.get_config("runlocal")
    same = dict.fromkeys(("entries.depth.source.seed", "entries.normals.source.seed"), 77)
    config.update_from_flattened_dict(same)
    with pytest.raises(UserError, match=r"both show .* of drawn scenes of seed \d+, which could"):
        plan(from_config(config))
    recipe = from_config(config)
    together = tuple(
        dataclasses.replace(entry, items="scenes" if entry.name in ("depth", "normals") else "")
        for entry in recipe.entries
    )
    plan(dataclasses.replace(recipe, entries=together))


def test_a_part_shows_other_scenes_and_holds_out_the_same_objects(tmp_path):
    for name in "abcdefgh":
        path = tmp_path / "objects" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 4), 200, np.uint8)).save(path)
    folders = {"backgrounds": str(tmp_path / "objects"), "cutouts": str(tmp_path / "objects")}
    shown, held_out = [], []
    for arg in ("runlocal", "runlocal,part=1"):
        recipe = recipe_of(arg, image_size=16, **folders)
        entries, plans = {entry.name: entry for entry in recipe.entries}, plan(recipe)
        shown.append(
            {
                digest(next(iter(entries[sentence.entry].source.load(key).values()))[0])
                for sentence in plans["train"]
                for key in sentence.items
            }
        )
        held_out.append(
            {
                key.partition("#")[0]
                for sentence in plans["validation"]
                if sentence.entry.startswith("cutouts")
                for key in sentence.items
            }
        )
    assert len(shown[0] & shown[1]) < 0.01 * len(shown[0])
    assert held_out[0] == held_out[1] != set()


def test_colour_masks_are_of_one_colour_in_all_pairs():
    recipe, maker = recipe_of("runlocal"), SentenceMaker(recipe_of("runlocal"), ItemCache())
    made = [maker.make(s, {}) for s in plan(recipe)["train"] if s.entry == "colour_mask"]
    assert len(made) > 3
    for sentence in filter(None, made):
        assert expand_layout(sentence.layout) == ["image", "attribute"] * 2
        pictures_, masks = sentence.values[::2], sentence.values[1::2]
        names = {
            hue_name(tuple(np.asarray(x)[np.asarray(m)[..., 0] > 0].mean(0)))
            for x, m in zip(pictures_, masks, strict=True)
        }
        assert len(names - {None}) == 1


def test_photographs_add_entries_and_backgrounds(tmp_path):
    for i in range(8):
        Image.new("RGB", (60, 40), (20 * i, 90, 200)).save(tmp_path / f"{i}.png")
    recipe = recipe_of("runlocal", images=str(tmp_path), backgrounds=str(tmp_path))
    added = {entry.name for entry in recipe.entries} - set(in_context.SHARES)
    assert added == {
        "photographs",
        *(f"photographs_{name}" for name in (*in_context.RESTORATIONS, "transformation")),
    }
    maker, seen = SentenceMaker(recipe, ItemCache()), set()
    for sentence in plan(recipe)["train"]:
        if sentence.entry not in seen:
            seen.add(sentence.entry)
            made = maker.make(sentence, bad := {})
            assert made is not None, bad
            assert {np.shape(x) for x in pictures(made.values, sentence.key, "a test")} == {
                (64, 64, 3)
            }
    assert seen == set(in_context.SHARES) | added


def test_the_layouts_name_the_tasks():
    recipe = recipe_of("runlocal")
    maker, roles = SentenceMaker(recipe, ItemCache()), {}
    for sentence in plan(recipe)["validation"]:
        if sentence.entry not in roles:
            made = maker.make(sentence, {})
            assert made is not None
            roles[sentence.entry] = expand_layout(made.layout)
    assert {name: roles[name] for name in RULES} == {name: ["image", name] * 2 for name in RULES}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_the_bytes_do_not_depend_on_the_workers_nor_on_interruptions(tmp_path, tokenizer):
    recipe = recipe_of("runlocal", image_size=16)
    manifest = build(recipe, tokenizer, tmp_path, beam_flags=TWO_THREADS)
    counts = {split: info["sentences"] for split, info in manifest.splits.items()}
    assert counts == {split: len(planned) for split, planned in plan(recipe).items()}
    folder = tmp_path / "in_context" / "1.0.0"
    whole = contents(folder)
    # As after a kill: one shard was never written. One worker writes it now.
    for path in (*folder.glob("*train.tfrecord-00001*"), folder / "build" / "train-00001.json"):
        path.unlink()
    (folder / "manifest.json").unlink()
    build(recipe, tokenizer, tmp_path, beam_flags=ONE_THREAD)
    assert contents(folder) == whole


def test_photographs_and_objects_come_on_top(tmp_path):
    for name in ("photos/a.png", "photos/b.png", "objects/animals/cat.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((80, 80, 4), 200, np.uint8)).save(path)
    folders = {"backgrounds": str(tmp_path / "photos"), "cutouts": str(tmp_path / "objects")}
    licences = {"images_licence": "CC0-1.0", "cutouts_licence": "GPL-2.0"}
    recipe = recipe_of(
        "sentences=400,photographs=3,cutouts=5",
        images=folders["backgrounds"],
        **folders,
        **licences,
    )
    entries = {entry.name: entry for entry in recipe.entries}
    assert set(entries) > {"cutouts_mask", "cutouts_box", "photographs", "photographs_colorization"}
    assert (entries["photographs"].epochs, entries["photographs_colorization"].epochs) == (18, 3)
    assert entries["photographs_inpainting"].source.licence == "CC0-1.0"
    assert entries["cutouts_box"].source.licence == "GPL-2.0"
    assert entries["cutouts_mask"].source.keys() == [f"animals/cat.png#{i}" for i in range(5)]
