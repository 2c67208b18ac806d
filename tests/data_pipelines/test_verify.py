"""The verifier believes nothing: each kind of lie is found."""

import json
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from pipe_fakes import save_tokenizer, small_recipe

from data_pipelines import build_uvd
from data_pipelines import verify as verifying
from data_pipelines.build import shard_writer
from data_pipelines.build.composing import ItemCache
from data_pipelines.build.encoding import VqganEncoder, shared_encoder
from data_pipelines.verify import render_page, sample, verify
from lvm_jax.data.records.manifest import Manifest, shard_name
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.shards import find_dataset
from lvm_jax.data.sentences.sentence_record import SentenceWriter, decode_example
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.vqgan import VQGAN


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> VqganEncoder:
    return shared_encoder(save_tokenizer(tmp_path_factory.mktemp("tokenizer")), 8)


@pytest.fixture(scope="module")
def original(tmp_path_factory, encoder) -> Path:
    """A data set, written without Beam."""
    tokenizer = save_tokenizer(tmp_path_factory.mktemp("again"))

    def write(tasks, recipe, tokenizer, batch_size, fingerprint, beam_flags):
        writer = shard_writer.ShardWriter(
            recipe, encoder, fingerprint, ItemCache(), progress=lambda count: None
        )
        for task in tasks:
            writer.write(task)

    output = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_uvd, "_write_shards", write)
        build_uvd.build(small_recipe(), tokenizer, output, batch_size=8)
    return output / "small" / "1.0.0"


@pytest.fixture
def dataset(original, tmp_path) -> Path:
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


def first_shard(dataset: Path) -> Path:
    return dataset / shard_name("small", "train", 0, 3)


def rewrite(dataset: Path, change, split: str = "train", count: int = 3) -> None:
    """Replaces the first record of the first shard of a split, with all CRCs right."""
    path = dataset / shard_name("small", split, 0, count)
    sentences = [
        decode_example(record, codebook_size=32, tokens_per_image=64) for record in RecordFile(path)
    ]
    fields = {**vars(sentences[0]), **change(sentences)}
    with SentenceWriter(path) as writer:
        for sentence in (VisualSentence(**fields), *sentences[1:]):
            writer.add(sentence)


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_an_honest_data_set_passes_and_is_counted(dataset, encoder):
    found, manifest = verify(dataset, encoder.vqgan), Manifest.load(dataset)
    assert found.sentences == {name: split["sentences"] for name, split in manifest.splits.items()}
    assert found.images == {name: split["images"] for name, split in manifest.splits.items()}
    assert found.source_images == {n: source["images"] for n, source in manifest.sources.items()}


def test_every_flipped_byte_is_found(dataset):
    path = first_shard(dataset)
    honest = path.read_bytes()
    places = np.random.default_rng(0).integers(0, len(honest), 8)
    for place in (0, len(honest) - 1, *places):
        lying = bytearray(honest)
        lying[place] ^= 1
        path.write_bytes(lying)
        with pytest.raises(UserError, match="build that shard again"):
            verify(dataset)
    path.write_bytes(honest)
    verify(dataset)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["splits"]["train"].update(sentences=1), "says 1 sentences of split 'train'"),
        (lambda m: m["splits"]["validation"].update(images=7), "says 7 images of split 'valid"),
        (
            lambda m: m["splits"]["train"].update(shards=2),
            "3 shards of 'train', the manifest says 2",
        ),
        (lambda m: m["sources"]["photos"].update(sentences=2), "2 sentences of source 'photos'"),
        (lambda m: m["sources"]["videos"].update(category=4), "category is 3, the manifest says 4"),
        (lambda m: m["sources"].pop("videos"), "source 'videos' is not in the manifest"),
        (lambda m: m.update(codebook_size=2), "codes are 0..1"),
        (lambda m: m.update(tokens_per_image=100), "whole images are 200 bytes each"),
    ],
)
def test_a_manifest_that_lies_is_found(dataset, change, words):
    edit(dataset / "manifest.json", change)
    with pytest.raises(UserError) as caught:
        verify(dataset)
    assert words in str(caught.value)


def test_a_key_used_twice_is_found(dataset):
    rewrite(dataset, lambda sentences: {"key": sentences[1].key})
    with pytest.raises(UserError, match="its key occurs twice"):
        verify(dataset)


def test_an_item_in_two_splits_is_found(dataset):
    held_out = dataset / shard_name("small", "validation", 0, 1)
    sentence = decode_example(RecordFile(held_out)[0], codebook_size=32, tokens_per_image=64)
    entry, _, items = sentence.key.split("/", 2)
    rewrite(dataset, lambda _: {**vars(sentence), "key": f"{entry}/99/{items}"})
    with pytest.raises(UserError, match="an item belongs to one split"):
        verify(dataset)


def test_lengths_that_tfds_would_believe_are_checked(dataset):
    edit(
        dataset / "dataset_info.json",
        lambda info: (
            info["splits"][0]["shardLengths"].reverse()
            or info["splits"][0]["shardLengths"].append("1")
        ),
    )
    with pytest.raises(UserError, match="says shard lengths"):
        verify(dataset)


def test_a_missing_shard_and_another_tokenizer_are_found(dataset, tmp_path):
    other = VqganEncoder(save_tokenizer(tmp_path / "other", seed=1), 8)
    with pytest.raises(UserError, match="tokenizer_fingerprint is"):
        verify(dataset, other.vqgan)
    first_shard(dataset).unlink()
    with pytest.raises(UserError, match="lacks 1 of 3 shards"):
        verify(dataset)


def test_the_data_set_is_found_below_the_output(dataset, tmp_path):
    (tmp_path / "out" / "small").mkdir(parents=True)
    with pytest.raises(UserError, match="holds 0 finished data sets"):
        find_dataset(tmp_path / "out")
    shutil.copytree(dataset, tmp_path / "out" / "small" / "1.0.0")
    assert Path(find_dataset(tmp_path / "out")) == tmp_path / "out" / "small" / "1.0.0"
    assert Path(find_dataset(dataset)) == dataset
    shutil.copytree(dataset, tmp_path / "out" / "small" / "1.0.1")
    with pytest.raises(UserError, match="holds 2 finished data sets"):
        find_dataset(tmp_path / "out")


def test_the_page_shows_the_decoded_images_under_their_labels(dataset, encoder):
    sentences = sample(dataset, 5, seed=0)
    assert [s.key for s in sentences] == [s.key for s in sample(dataset, 5, seed=0)]
    assert [s.key for s in sentences] != [s.key for s in sample(dataset, 5, seed=1)]
    page = render_page(sentences, encoder.vqgan)
    longest = max(len(sentence.codes) for sentence in sentences)
    assert page.shape == (5 * (96 + 28 + 4), longest * (96 + 4), 3), "16 pixels are shown as 96"
    codes = np.concatenate([sentence.codes for sentence in sentences]).astype(np.int32)
    decoded = iter(np.asarray(jax.jit(lambda model, ids: model.decode(ids))(encoder.vqgan, codes)))
    for row, sentence in enumerate(sentences):
        for column in range(len(sentence.codes)):
            image = next(decoded).repeat(6, 0).repeat(6, 1)
            top, left = row * 128 + 28, column * 100
            drawn = page[top : top + 96, left : left + 96]
            assert np.abs(drawn.astype(int) - np.round(image * 255)).max() <= 1
        label = page[row * 128 + 14 : row * 128 + 28, :100]
        assert label.min() < 200, "the role is written above the first image"


def test_a_page_is_a_png_in_any_folder_and_another_name_is_refused_before_anything_is_read(
    dataset, encoder, tmp_path, monkeypatch
):
    def run(page: Path) -> None:
        named = {"shards": str(dataset), "tokenizer": "loaded", "page": str(page)}
        flags = types.SimpleNamespace(**named, rows=2, seed=0)
        monkeypatch.setattr(verifying, "flags", types.SimpleNamespace(FLAGS=flags))
        verifying.main()

    def load(folder: str) -> VQGAN:
        return encoder.vqgan

    monkeypatch.setattr(verifying.VQGAN, "from_pretrained", load)
    run(tmp_path / "new" / "page.PNG")
    with Image.open(tmp_path / "new" / "page.PNG") as page:
        assert page.format == "PNG"
    monkeypatch.setattr(verifying, "verify", lambda *_: pytest.fail("read the shards first"))
    with pytest.raises(UserError, match=r"--page is .*page.xyz: the page is a PNG, so name it"):
        run(tmp_path / "page.xyz")
