"""Another system's values and records: text items go from a source through a recipe to shards, and are verified."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pipe_fakes import FakePhotos, save_tokenizer, small_recipe

from data_pipelines import build_uvd
from data_pipelines.build import encoding as encoding_lib
from data_pipelines.build import shard_writer
from data_pipelines.build.composing import ItemCache
from data_pipelines.build.encoding import Encoding, RecordSummary, shared_encoder
from data_pipelines.build.plan import fingerprint, plan
from data_pipelines.build.recipe import Entry, Recipe
from data_pipelines.build.shard_writer import ShardTask, ShardWriter
from data_pipelines.items import Boxes, Kind, Mask, Text, Value, digest, num_bytes
from data_pipelines.sentences import Pairs, SingleImage
from data_pipelines.sentences.base import OneItem
from data_pipelines.verify import sample, verify
from lvm_jax.data.records import example
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_index import Facts, Schema
from lvm_jax.errors import UserError

LETTERS = Schema(
    columns=(("letters", "<u4"),),
    describe=lambda record: pytest.fail("the encoder says what the index needs"),
    features=(("letters", "bytes"), ("source", "text"), ("category", "int"), ("key", "text")),
    description="Letters.",
)


@dataclasses.dataclass(frozen=True)
class Poems:
    """Words that follow from the key; every second item repeats one line."""

    name: str = "poems"
    category: int = 1
    licence: str = "CC0-1.0"
    origin: str = "written for a test"

    def keys(self) -> list[str]:
        return [f"poem{i:02d}" for i in range(20)]

    def load(self, key: str) -> dict[str, list[Value]]:
        return {"line": [Text(f"line of {key}"), Text("and a refrain")]}


@dataclasses.dataclass(frozen=True)
class Lines(OneItem):
    """All lines of one poem."""

    max_images: int = 2

    def compose(self, items, rng):
        return items[0]["line"], "line*2"


class ByteEncoder:
    """Text to its UTF-8 bytes; counts what it encodes."""

    takes = frozenset({Kind.TEXT})
    fingerprint = "utf-8"
    schema = LETTERS

    def __init__(self, folder: str, batch_size: int):
        self.encoded: list[str] = []

    def check(self, recipe: Recipe) -> None:
        pass

    def manifest_fields(self) -> dict:
        return {
            "tokenizer_fingerprint": self.fingerprint,
            "codebook_size": 256,
            "image_size": 0,
            "tokens_per_image": 0,
        }

    def encode(self, values):
        self.encoded += [value.words for value in values]
        return [value.words.encode() for value in values]

    def record(self, sentence, encoded):
        source, letters = sentence.entry.source, b"\n".join(encoded)
        record = example.encode(
            {
                "letters": letters,
                "source": source.name.encode(),
                "category": int(source.category),
                "key": sentence.planned.key.encode(),
            }
        )
        return record, Facts((len(letters),), (source.name, int(source.category)))


def read_letters(record: bytes, manifest: Manifest) -> RecordSummary:
    fields = example.decode(record)
    (letters,), (key,), (source,), (category,) = (
        fields[name] for name in ("letters", "key", "source", "category")
    )
    if not letters.isascii():
        raise example.CorruptRecord("letters are ASCII")
    return RecordSummary(key.decode(), source.decode(), category, letters.count(b"\n") + 1)


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    monkeypatch.setitem(
        encoding_lib.ENCODINGS,
        "letters",
        Encoding(ByteEncoder, read_letters, lambda manifest: LETTERS),
    )
    encoding_lib._load.cache_clear()

    def write(tasks, recipe, tokenizer, batch_size, print_of_plan, beam_flags):
        encoder = shared_encoder(tokenizer, batch_size, recipe.encoding)
        writer = ShardWriter(recipe, encoder, print_of_plan, ItemCache(), lambda sentences: None)
        for task in tasks:
            writer.write(task)

    monkeypatch.setattr(build_uvd, "_write_shards", write)


def poems(**changes) -> Recipe:
    fields = {"encoding": "letters", "train_shards": 2, "validation_fraction": 0.2, **changes}
    return Recipe("poems", (Entry("poems", Poems(), Lines()),), 16, **fields)


def write_one(recipe: Recipe, encoder, folder: Path) -> None:
    task = ShardTask(
        str(folder / "shard"), str(folder / "s.json"), "train", (*plan(recipe)["train"],)
    )
    ShardWriter(recipe, encoder, "none", ItemCache(), lambda sentences: None).write(task)


def test_texts_go_from_source_to_shards_and_are_verified(tmp_path):
    manifest = build_uvd.build(poems(), "", tmp_path)
    folder = tmp_path / "poems" / "1.0.0"
    assert Manifest.load(folder) == manifest
    assert (manifest.encoding, manifest.tokenizer_fingerprint) == ("letters", "utf-8")
    found = verify(folder)
    assert sum(found.sentences.values()) == 20
    assert found.source_images == {"poems": 40}
    records = [
        example.decode(record)
        for path in sorted(folder.glob("*tfrecord-*"))
        if path.suffix != ".index"
        for record in RecordFile(path)
    ]
    assert sorted(fields["letters"][0] for fields in records) == [
        f"line of poem{i:02d}\nand a refrain".encode() for i in range(20)
    ]
    assert '"letters"' in (folder / "features.json").read_text()
    assert build_uvd.build(poems(), "", tmp_path) == manifest, "a finished data set stays"
    with pytest.raises(UserError, match=r"in the encoding 'letters': a page shows 'vqgan'"):
        sample(folder, 3, seed=0)


def test_a_wrong_record_of_another_encoding_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(ByteEncoder, "encode", lambda self, values: [b"\xff" for _ in values])
    build_uvd.build(poems(), "", tmp_path)
    with pytest.raises(UserError, match="record 0: letters are ASCII; build that shard again"):
        verify(tmp_path / "poems" / "1.0.0")


def test_a_text_is_encoded_once_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "IMAGES_AT_ONCE", 6)
    encoder = ByteEncoder("", 1)
    write_one(poems(), encoder, tmp_path)
    assert encoder.encoded.count("and a refrain") == 1
    assert len(encoder.encoded) == 1 + len(plan(poems())["train"])


def test_the_encoding_is_part_of_a_recipes_identity_unless_it_is_the_default():
    planned = plan(poems())
    assert fingerprint(poems(), planned, "x") != fingerprint(poems(encoding="vqgan"), planned, "x")
    assert "encoding" not in poems(encoding="vqgan").identity
    # Of a recipe from before there were encodings: a build that was begun then goes on.
    assert fingerprint(small_recipe(), plan(small_recipe()), "x") == "baf14dd73041c5b6"


def test_an_unknown_encoding_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"config.encoding is 'leters'; did you mean letters\?"):
        build_uvd.build(poems(encoding="leters"), "", tmp_path)


def test_encodings_and_composers_refuse_values_of_other_kinds(tmp_path):
    with pytest.raises(
        UserError, match=r"sentence 'poems/0/poem.*' holds text, but the recipe's enc"
    ):
        write_one(poems(), shared_encoder(save_tokenizer(tmp_path / "model"), 4), tmp_path)
    singles = dataclasses.replace(
        small_recipe(), entries=(Entry("single", FakePhotos(), SingleImage()),)
    )
    with pytest.raises(UserError, match=r"holds picture, but the recipe's encoding takes text"):
        write_one(singles, ByteEncoder("", 1), tmp_path)
    with pytest.raises(
        UserError, match=r"role 'line' holds text, but a sentence of pictures takes"
    ):
        Pairs("line", 1).compose(
            [{**FakePhotos().load("a"), **Poems().load("b")}], np.random.default_rng(0)
        )


def test_values_are_equal_if_their_digests_are():
    box = np.array([[0, 0, 4, 3]], np.float32)
    inside = np.zeros((3, 4), bool)
    values = [
        Text("cat"),
        Text("cats"),
        Boxes(box, ("cat",)),
        Boxes(box, ("dog",)),
        Boxes(box + 1, ("cat",)),
        Mask(inside),
        Mask(~inside),
        Mask(inside.T),
        np.zeros((3, 4, 3), np.uint8),
        np.zeros((4, 3, 3), np.uint8),
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(Mask(inside.copy())) == digest(Mask(inside))
    assert digest(Boxes(box.copy(), ("cat",))) == digest(values[2])
    assert [num_bytes(value) for value in (values[0], values[2], values[5], values[8])] == [
        3,
        16,
        12,
        36,
    ]
