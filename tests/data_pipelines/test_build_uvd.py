"""From items to a data set: the same bytes whoever writes them, and nothing half-written whatever stops it."""

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipe_fakes import FakePhotos, save_tokenizer, small_recipe

from data_pipelines import build_uvd, near_duplicates
from data_pipelines.build import shard_writer
from data_pipelines.build.composing import ItemCache
from data_pipelines.build.encoding import VqganEncoder, shared_encoder
from data_pipelines.build.plan import key_items, plan
from data_pipelines.build.recipe import Entry, Recipe, from_config
from data_pipelines.build_uvd import build
from data_pipelines.configs import images_and_videos, medium, quickstart
from data_pipelines.sentences import Pairs
from data_pipelines.sources import PairedFiles
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.data.sentences.sentence_record import decode_example
from lvm_jax.errors import UserError
from lvm_jax.pictures.resize import resize_and_crop

write_with_beam = build_uvd._write_shards
TWO_THREADS = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def plain_loop(monkeypatch):
    """Writes the shards one after the other, without Beam: what is tested is the same, sooner."""

    def write(tasks, recipe, tokenizer, batch_size, fingerprint, beam_flags):
        writer = shard_writer.ShardWriter(
            recipe,
            shared_encoder(tokenizer, batch_size),
            fingerprint,
            ItemCache(),
            progress=lambda sentences: None,
        )
        for task in tasks:
            writer.write(task)

    monkeypatch.setattr(build_uvd, "_write_shards", write)


@pytest.fixture
def built(tmp_path, tokenizer, plain_loop) -> Path:
    build(small_recipe(), tokenizer, tmp_path / "built", batch_size=8)
    return tmp_path / "built" / "small" / "1.0.0"


def contents(folder: Path) -> dict[str, str]:
    """File name -> digest, of everything below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def records(folder: Path, manifest: Manifest) -> list:
    return [
        decode_example(
            record,
            codebook_size=manifest.codebook_size,
            tokens_per_image=manifest.tokens_per_image,
        )
        for path in sorted(folder.glob("*tfrecord-*"))
        if path.suffix != ".index"
        for record in RecordFile(path)
    ]


def test_every_planned_sentence_is_written_with_the_codes_of_its_images(built, tokenizer):
    manifest, recipe = Manifest.load(built), small_recipe()
    found = {sentence.key: sentence for sentence in records(built, manifest)}
    planned = [sentence for split in plan(recipe).values() for sentence in split]
    assert set(found) == {sentence.key for sentence in planned}
    encoder = VqganEncoder(tokenizer, batch_size=8)
    pairs = [sentence for sentence in found.values() if sentence.key.startswith("depth/")]
    for sentence in pairs[:3]:
        items = [FakePhotos().load(key) for key in key_items(sentence.key)]
        images, layout = Pairs("depth", 2).compose(items, np.random.default_rng(0))
        expected = encoder.encode([resize_and_crop(image, 16, "squash") for image in images])
        np.testing.assert_array_equal(sentence.codes, expected)
        assert (sentence.layout, sentence.source, sentence.category) == (layout, "photos", 2)


def test_the_manifest_counts_what_was_written_and_keeps_the_licences(built, tokenizer):
    manifest = Manifest.load(built)
    found = records(built, manifest)
    assert sum(split["sentences"] for split in manifest.splits.values()) == len(found)
    assert sum(split["images"] for split in manifest.splits.values()) == sum(
        len(s.codes) for s in found
    )
    assert manifest.splits["train"]["shards"] == 3
    assert manifest.sources["videos"]["licence"] == "CC-BY-4.0"
    assert manifest.sources["videos"]["sentences"] == sum(s.source == "videos" for s in found) == 12
    assert manifest.tokenizer_fingerprint == shared_encoder(tokenizer, 8).fingerprint
    assert (built / "dataset_info.json").exists()


def test_beam_with_two_workers_writes_the_same_bytes_as_a_plain_loop(
    built, tmp_path, tokenizer, monkeypatch
):
    from apache_beam.runners.portability import prism_runner

    monkeypatch.setattr(
        prism_runner.PrismRunner,
        "run_pipeline",
        lambda *_: pytest.fail("Beam looks for an engine to download"),
    )
    monkeypatch.setattr(build_uvd, "_write_shards", write_with_beam)
    build(small_recipe(), tokenizer, tmp_path / "beam", batch_size=8, beam_flags=TWO_THREADS)
    assert contents(tmp_path / "beam" / "small" / "1.0.0") == contents(built)


def test_a_run_that_was_stopped_continues_with_the_missing_shards(
    built, tmp_path, tokenizer, monkeypatch
):
    whole = contents(built)
    write = shard_writer.ShardWriter.write
    written = []

    def stopping(self, task):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(task.path)
        return write(self, task)

    again = tmp_path / "again"
    monkeypatch.setattr(shard_writer.ShardWriter, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        build(small_recipe(), tokenizer, again, batch_size=8)
    folder = again / "small" / "1.0.0"
    assert not (folder / "manifest.json").exists()
    rewritten = []
    monkeypatch.setattr(
        shard_writer.ShardWriter,
        "write",
        lambda self, task: rewritten.append(task.path) or write(self, task),
    )
    build(small_recipe(), tokenizer, again, batch_size=8)
    assert len(rewritten) == len(whole_shards(built)) - 2
    assert not set(rewritten) & set(written)
    assert contents(folder) == whole


def whole_shards(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*tfrecord-*")) if p.suffix != ".index"]


def test_a_shard_stopped_in_its_middle_is_absent(built, tmp_path, tokenizer, monkeypatch):
    encode, calls = VqganEncoder.encode, []

    def dying(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return encode(self, images)

    monkeypatch.setattr(shard_writer, "IMAGES_AT_ONCE", 8)
    monkeypatch.setattr(VqganEncoder, "encode", dying)
    with pytest.raises(RuntimeError, match="power cut"):
        build(small_recipe(), tokenizer, tmp_path / "cut", batch_size=8)
    assert list(contents(tmp_path / "cut" / "small" / "1.0.0")) == ["build/recipe.json"]


def test_a_picture_is_encoded_once_a_shard(built, tmp_path, tokenizer, monkeypatch):
    encode, seen = VqganEncoder.encode, []

    def counting(self, images):
        seen.extend(image.tobytes() for image in images)
        return encode(self, images)

    monkeypatch.setattr(shard_writer, "IMAGES_AT_ONCE", 8)
    monkeypatch.setattr(VqganEncoder, "encode", counting)
    recipe = small_recipe(train_shards=1)
    manifest = build(recipe, tokenizer, tmp_path / "once", batch_size=8)
    assert len(seen) == len(set(seen)), "one shard a split, and no picture is in both"
    assert len(seen) < sum(split["images"] for split in manifest.splits.values())


def test_the_manifest_goes_before_a_shard_is_written_again(built, tokenizer, monkeypatch):
    whole_shards(built)[0].unlink()

    def stop(self, task):
        raise KeyboardInterrupt

    monkeypatch.setattr(shard_writer.ShardWriter, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        build(small_recipe(), tokenizer, built.parent.parent, batch_size=8)
    assert not (built / "manifest.json").exists()


@pytest.mark.parametrize("damage", ["shard", "index", "summary", "cut short"])
def test_a_shard_that_was_lost_or_cut_is_written_again(built, tokenizer, damage):
    before = contents(built)
    shard = whole_shards(built)[1]
    if damage == "shard":
        shard.unlink()
    elif damage == "index":
        Path(f"{shard}.index").unlink()
    elif damage == "summary":
        (built / "build" / "train-00001.json").unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    build(small_recipe(), tokenizer, built.parent.parent, batch_size=8)
    assert contents(built) == before


def test_a_finished_data_set_is_not_touched(built, tokenizer, monkeypatch):
    monkeypatch.setattr(build_uvd, "_write_shards", lambda *_: pytest.fail("wrote again"))
    before = {path: path.stat().st_mtime_ns for path in whole_shards(built)}
    build(small_recipe(), tokenizer, built.parent.parent, batch_size=8)
    assert {path: path.stat().st_mtime_ns for path in whole_shards(built)} == before


def test_an_output_of_another_tokenizer_or_recipe_is_refused(built, tokenizer, tmp_path):
    output, before = built.parent.parent, contents(built)
    other = save_tokenizer(tmp_path / "other_tokenizer", seed=1)
    mine, theirs = (shared_encoder(folder, 8).fingerprint for folder in (other, tokenizer))
    with pytest.raises(UserError) as caught:
        build(small_recipe(), other, output, batch_size=8)
    assert mine in str(caught.value)
    assert theirs in str(caught.value)
    with pytest.raises(UserError, match=r"build.recipe.seed: 0 -> 5.*another --output"):
        build(small_recipe(seed=5), tokenizer, output, batch_size=8)
    with pytest.raises(UserError, match="the items of a source changed"):
        build(_fewer_items(small_recipe()), tokenizer, output, batch_size=8)
    assert contents(built) == before


def _fewer_items(recipe: Recipe) -> Recipe:
    """Equal fields, other keys: a file was removed from the folder."""

    class FakePhotos(type(recipe.entries[0].source)):
        def keys(self):
            return super().keys()[:-1]

    entries = tuple(
        dataclasses.replace(entry, source=FakePhotos(**dataclasses.asdict(entry.source)))
        if entry.items == "photos"
        else entry
        for entry in recipe.entries
    )
    return dataclasses.replace(recipe, entries=entries)


def test_a_tokenizer_of_another_image_size_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"config.image_size is 32, .* takes 16"):
        build(dataclasses.replace(small_recipe(), image_size=32), tokenizer, tmp_path)


def test_bad_items_up_to_the_limit_are_skipped_named_and_not_replaced(
    tmp_path, tokenizer, plain_loop, capsys
):
    photos = FakePhotos(bad=("photo003.png", "photo004.png"))
    # Two photographs, each in two sources, all in one shard: exactly as many as are allowed.
    recipe = small_recipe(photos, max_bad_items=4, train_shards=1)
    manifest = build(recipe, tokenizer, tmp_path, batch_size=8)
    keys = {s.key for s in records(tmp_path / "small" / "1.0.0", manifest)}
    planned = {s.key for split in plan(recipe).values() for s in split}
    with_bad = {key for key in planned if set(key_items(key)) & set(photos.bad)}
    assert not with_bad & {s.key for s in plan(recipe)["validation"]}
    assert len(with_bad) > 4
    assert keys == planned - with_bad
    assert (
        "skipped 4 bad items (limit 4): photos:photo003.png (it is truncated)"
        in capsys.readouterr().out
    )


def test_more_bad_items_than_the_limit_are_an_error_until_they_are_mended(
    tmp_path, tokenizer, plain_loop, built
):
    photos = FakePhotos(bad=("photo003.png", "photo004.png"))
    with pytest.raises(
        UserError, match=r"bad items, the limit config.max_bad_items is 3: .*photo003.png \(it is"
    ):
        build(small_recipe(photos, max_bad_items=3), tokenizer, tmp_path, batch_size=8)
    folder = tmp_path / "small" / "1.0.0"
    assert not (folder / "manifest.json").exists()
    mended = dataclasses.replace(small_recipe(photos))
    for entry in mended.entries[:2]:
        object.__setattr__(entry.source, "load", lambda key: FakePhotos().load(key))
    build(mended, tokenizer, tmp_path, batch_size=8)
    shards = {name: digest for name, digest in contents(folder).items() if "tfrecord" in name}
    assert shards == {
        name: digest for name, digest in contents(built).items() if "tfrecord" in name
    }


def full_disk(monkeypatch, after: int, what: str) -> None:
    """The disk is full after so many records, or at the first summary."""
    written = []

    def failing(write):
        def call(*args):
            written.append(args)
            if len(written) > after:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(*args)

        return call

    if what == "record":
        monkeypatch.setattr(TFRecordWriter, "write", failing(TFRecordWriter.write))
    else:
        monkeypatch.setattr(os, "replace", failing(os.replace))


@pytest.mark.parametrize("with_beam", [False, True], ids=["plain", "beam"])
@pytest.mark.parametrize(("what", "after"), [("record", 25), ("rename", 3), ("rename", 5)])
def test_a_full_disk_is_one_line_leaves_nothing_half_written_and_can_be_continued(
    with_beam, what, after, built, tmp_path, tokenizer, monkeypatch
):
    output = tmp_path / "full"
    with monkeypatch.context() as patch:
        if with_beam:
            patch.setattr(build_uvd, "_write_shards", write_with_beam)
        full_disk(patch, after, what)
        with pytest.raises(UserError, match=r"^no space is left to write .*: free some and run"):
            build(small_recipe(), tokenizer, output, batch_size=8, beam_flags=TWO_THREADS)
    folder = output / "small" / "1.0.0"
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name]
    assert not (folder / "manifest.json").exists()
    whole = contents(built)
    assert {name: whole[name] for name in contents(folder)} == contents(folder)
    build(small_recipe(), tokenizer, output, batch_size=8)
    assert contents(folder) == whole


def test_wrong_annotations_are_counted_named_and_skipped(tmp_path, tokenizer, plain_loop, capsys):
    root = tmp_path / "voc"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 21, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels[:, : 24 - 4 * (i == 3)]).save(root / "masks" / f"{i:02d}.png")
        if i != 7:
            Image.fromarray(pixels).convert("RGB").save(root / "images" / f"{i:02d}.png")
    roles = (("image", "images/{key}.png"), ("segmentation", "masks/{key}.png"))
    source = PairedFiles(str(root), roles, masks=("segmentation",))
    entry = Entry("voc", source, Pairs("segmentation", 2), epochs=3)
    recipe = Recipe("voc", (entry,), 16, train_shards=1, max_bad_items=2, validation_fraction=0.2)
    manifest = build(recipe, tokenizer, tmp_path / "out", batch_size=8)
    told = capsys.readouterr().out
    assert "skipped 2 bad items (limit 2)" in told
    assert "paired_files:03 (03.png is 20x20 pixels, its image 24x20)" in told
    assert "paired_files:07 (has no image: 07.png does not exist)" in told
    keys = [s.key for s in records(tmp_path / "out" / "voc" / "1.0.0", manifest)]
    assert keys
    assert not {"03", "07"} & {item for key in keys for item in key_items(key)}


def test_near_duplicates_are_left_out_named_and_looked_for_once(
    tmp_path, tokenizer, plain_loop, capsys, monkeypatch, image_folder
):
    again = Image.open(image_folder / "holidays" / "image 03.png")
    again.resize((60, 40), Image.Resampling.BICUBIC).save(image_folder / "z.jpg", quality=80)
    changes = {"near_duplicates": 4}
    recipe = readers_recipe(image_folder, **changes)
    manifest = build(recipe, tokenizer, tmp_path / "out", batch_size=8)
    named = "left out 1 near-duplicates: images/z.jpg (as holidays/image 03.png)"
    assert named in capsys.readouterr().out
    folder = tmp_path / "out" / "images_and_videos" / "1.0.0"
    keys = {item for s in records(folder, manifest) for item in key_items(s.key)}
    assert keys == {f"holidays/image {i:02d}.png" for i in range(12)}
    noted = json.loads((folder / "build" / "near_duplicates.json").read_text())
    assert noted["left_out"] == {"images": {"z.jpg": "holidays/image 03.png"}}
    monkeypatch.setattr(
        near_duplicates, "duplicates_of_sets", lambda *_: pytest.fail("looked again")
    )
    build(recipe, tokenizer, tmp_path / "out", batch_size=8)


@pytest.fixture
def image_folder(tmp_path) -> Path:
    folder = tmp_path / "my_images" / "holidays"
    folder.mkdir(parents=True)
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"image {i:02d}.png")
    return folder.parent


def command(images: Path, tokenizer: str, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "data_pipelines.build_uvd"),
        "--config=data_pipelines/configs/images_and_videos.py:runlocal",
        *("--config.image_size=16", f"--config.images={images}"),
        *(f"--tokenizer={tokenizer}", f"--output={output}", "--batch_size=1", *more),
    ]


def readers_recipe(images: Path, **changes) -> Recipe:
    """The recipe of `command` with the same changes."""
    config = images_and_videos.get_config("runlocal")
    with config.unlocked():
        config.image_size, config.images = 16, str(images)
        config.update_from_flattened_dict(changes)
    return from_config(config)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_the_command_stopped_at_any_moment_goes_on_to_the_same_bytes(
    ending, tmp_path, tokenizer, plain_loop, image_folder
):
    # The first shard is early, the last late.
    changes = {"entries.images.epochs": 120, "train_shards": 36}
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        command(image_folder, tokenizer, tmp_path / "stopped", *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    folder = tmp_path / "stopped" / "images_and_videos" / "1.0.0"
    while process.poll() is None and not list(folder.glob("build/train-*.json")):
        time.sleep(0.01)
    process.send_signal(ending)
    _, errors = process.communicate(timeout=60)
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert errors.strip().endswith("interrupted; the same command continues from here")
        assert not list(folder.glob(".*")), "something half-written was left behind"
    else:
        assert process.returncode == -signal.SIGKILL
    assert not list(temporary.glob("beam*")), "Beam left a folder behind"
    assert not (folder / "manifest.json").exists()
    left = whole_shards(folder)
    assert 1 <= len(left) < 37

    recipe = readers_recipe(image_folder, **changes)
    build(recipe, tokenizer, tmp_path / "stopped", batch_size=1)
    build(recipe, tokenizer, tmp_path / "at_once", batch_size=1)
    assert contents(folder) == contents(tmp_path / "at_once" / "images_and_videos" / "1.0.0")


def test_a_readers_mistake_is_one_line(tmp_path, tokenizer):
    told = subprocess.run(
        command(tmp_path / "absent", tokenizer, tmp_path / "out"), capture_output=True, text=True
    )
    assert told.returncode == 2
    assert told.stderr.splitlines() == [
        f"error: {tmp_path / 'absent'} is not a folder: give the folder that holds the images"
    ]
    assert not (tmp_path / "out").exists()


def test_maps_and_bodies_of_the_medium_recipe_are_in_one_split():
    recipe = from_config(medium.get_config("runlocal"))
    assert len(recipe.entries) == 5, "walks and bodies need no folder"
    planned = plan(recipe)
    scenes = {
        split: {item.partition("/")[0] for sentence in sentences for item in sentence.items}
        for split, sentences in planned.items()
    }
    assert len(scenes["train"] | scenes["validation"]) == 32 + 18
    assert not scenes["train"] & scenes["validation"]
    assert {s.entry for s in planned["validation"]} == {entry.name for entry in recipe.entries}


def test_the_config_files_build_recipes():
    recipe = from_config(quickstart.get_config())
    assert {entry.source.category for entry in recipe.entries} == {1, 2, 3, 4, 5}
    assert max(entry.composer.max_images for entry in recipe.entries) == 8
    small = from_config(quickstart.get_config("runlocal"))
    assert max(entry.composer.max_images for entry in small.entries) == 4
    tier = medium.get_config()
    tier.images, tier.cutouts, tier.meshes = "photos", "stamps", "furniture"
    recipe = from_config(tier)
    assert {entry.source.category for entry in recipe.entries} == {1, 2, 3, 4, 5}
    assert {entry.item_set for entry in recipe.entries} == {
        "photographs",
        "cutouts",
        "doom",
        "dm_control",
        "meshes",
    }
    with pytest.raises(UserError, match=r"give one, such as --config.images=DIR"):
        from_config(images_and_videos.get_config())
    config = images_and_videos.get_config()
    config.videos = "somewhere"
    assert [entry.name for entry in from_config(config).entries] == ["videos"]
