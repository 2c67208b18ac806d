"""Ids that two bytes cannot hold pass through records, index, packing and loader; and indices name their columns."""

import collections

import numpy as np
import pytest
from etils import epath

from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_index import (
    BadIndex,
    Facts,
    RecordIndex,
    Schema,
    index_path,
)
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.data.sentences.sentence_record import (
    SENTENCES,
    WIDE_SENTENCES,
    SentenceWriter,
    decode_example,
    encode_example,
    schema_of,
)
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.token_loader import EvalLoader, TokenLoader
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary

PER_IMAGE = 4
SEQ_LEN = 4 * PER_IMAGE
# Text, specials between, images behind: the largest id is 151,935.
VOCABULARY = Vocabulary.of(
    {"text": 151_643, "specials": 3, "image": 290},
    {"bos": 151_643, "eos": 151_644, "pad": 151_645},
)


def sentence(i, images):
    """Ids all over the vocabulary, its specials left out; the last is its largest."""
    ids = np.random.default_rng(i).integers(0, VOCABULARY["text"].stop, (images, PER_IMAGE))
    ids[:, 0] = VOCABULARY["image"].start + np.arange(images)
    ids[-1, -1] = VOCABULARY.size - 1
    return VisualSentence(ids.astype(np.uint32), "words", 3, f"words/{i}", f"frame*{images}")


@pytest.fixture
def corpus(tmp_path):
    folder = manifests.dataset_folder(tmp_path, "words", "1.0.0")
    folder.mkdir(parents=True)
    counts = np.random.default_rng(0).integers(1, 4, 20).tolist()
    sentences = [sentence(i, images) for i, images in enumerate(counts)]
    for shard in range(2):
        path = folder / manifests.shard_name("words", "train", shard, 2)
        with SentenceWriter(path, schema_of(VOCABULARY.size)) as writer:
            for each in sentences[shard::2]:
                writer.add(each)
    infos = {"sentences": len(counts), "images": sum(counts)}
    about = {"category": 3, "licence": "CC0", "origin": "made up", **infos}
    splits = {"train": {**infos, "shards": 2}}
    manifests.Manifest("f" * 16, VOCABULARY.size, 16, PER_IMAGE, splits, {"words": about}).save(
        folder
    )
    return folder, sentences


def test_the_largest_id_is_larger_than_two_bytes_and_the_vocabulary_ends_with_it():
    assert VOCABULARY.size - 1 == 151_935
    assert schema_of(1 << 16) is SENTENCES
    assert schema_of((1 << 16) + 1) is WIDE_SENTENCES


def test_records_and_index(corpus):
    folder, sentences = corpus
    path = folder / manifests.shard_name("words", "train", 1, 2)
    file = RecordFile(path, WIDE_SENTENCES)
    assert file.index.schema_columns == WIDE_SENTENCES.columns
    assert (file.index["largest"] == 151_935).all()
    for i, (record, each) in enumerate(zip(file, sentences[1::2], strict=True)):
        at, size = int(file.index["tokens_at"][i]), int(file.index["tokens_bytes"][i])
        assert record[at : at + size] == each.codes.astype("<u4").tobytes()
        read = decode_example(record, codebook_size=VOCABULARY.size, tokens_per_image=PER_IMAGE)
        np.testing.assert_array_equal(read.codes, each.codes)
        assert read.codes.dtype == np.uint32
    written = index_path(path).read_bytes()
    index_path(path).unlink()
    RecordFile(path, WIDE_SENTENCES)
    assert index_path(path).read_bytes() == written, "found by parsing what the writer knew"


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_every_id_comes_out_of_the_loader(corpus, packing):
    folder, sentences = corpus
    with TokenLoader(
        folder, "train", SEQ_LEN, 1, 7, packing, vocabulary=VOCABULARY, threads=0
    ) as loader:
        batches = [loader.batch_at(i) for i in range(loader.rows_per_pass)]
    tokens = np.concatenate([batch["tokens"][0] for batch in batches])
    assert tokens.dtype == np.int32
    assert tokens.max() == 151_935
    expected = collections.Counter(
        np.concatenate([s.codes.reshape(-1) for s in sentences]).tolist()
    )
    found = collections.Counter(tokens.tolist())
    specials = [VOCABULARY.bos, VOCABULARY.eos, VOCABULARY.pad]
    for batch in batches:
        padding = batch["segment_ids"] == 0
        assert (batch["tokens"][padding] == VOCABULARY.pad).all()
    for id in specials:
        del found[id]
    if packing == "concat":
        assert found == expected
    else:  # the end of a row may show the beginning of a sentence again
        assert found >= expected
        assert set(found) == set(expected)


def test_rows_of_one_sentence_are_its_ids(corpus):
    folder, _ = corpus
    store = SentenceStore(folder, "train")
    (first, *_) = EvalLoader(folder, "train", SEQ_LEN, 4, vocabulary=VOCABULARY)
    for row in range(4):
        codes = store.sentence(row).codes.reshape(-1)
        real = first["segment_ids"][row] == 1
        np.testing.assert_array_equal(
            first["tokens"][row][real], [VOCABULARY.bos, *codes, VOCABULARY.eos]
        )


def test_codes_of_the_wrong_width_are_refused(tmp_path):
    with SentenceWriter(tmp_path / "a") as writer:
        with pytest.raises(UserError, match=r"are uint32: those of .* are uint16; convert them"):
            writer.add(sentence(0, 1))
        with pytest.raises(UserError, match="uint16 or uint32"):
            encode_example(VisualSentence(np.ones((1, 4), np.uint64), "s", 3, "k", "frame"))


def area_and_category(record):
    """A made-up schema: how large something is, and which thing it is."""
    area, category = record.split(b":")
    return Facts((int(area), int(category)), ("things", int(category)))


AREAS = Schema((("area", "<u8"), ("category_id", "<u2")), area_and_category)


def test_an_index_of_any_columns(tmp_path, caplog):
    path = epath.Path(tmp_path / "areas")
    with TFRecordWriter(path, AREAS) as writer:
        for record in (b"12:3", b"5000000000:65535"):
            writer.write(record)
        writer.write(b"unread", Facts((7, 1), ("others", 1)))
    index = RecordFile(path).index
    assert index["area"].tolist() == [12, 5_000_000_000, 7]
    assert index["category_id"].tolist() == [3, 65535, 1]
    assert [index.origins[i] for i in index.origin] == [
        ("things", 3),
        ("things", 65535),
        ("others", 1),
    ]
    assert RecordFile(path, AREAS)[1] == b"5000000000:65535"
    content = index_path(path).read_bytes()
    for cut in range(len(content)):
        with pytest.raises(BadIndex):
            RecordIndex.from_bytes(content[:cut])
    # Who needs other columns gets an index with them.
    assert RecordFile(path, SENTENCES).index.schema_columns == SENTENCES.columns
    assert "says area, category_id of each record: it is made anew" in caplog.text


def test_a_column_of_another_type_is_refused():
    with pytest.raises(UserError, match="column 'area' of an index has type '<f4'"):
        Schema((("area", "<f4"),), area_and_category)
