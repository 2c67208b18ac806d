"""Shards written before schemas had names: they open, give the batches that they gave, and are written the same.

`fixtures/scenes` was written by the code of that time (`shard_fakes.write_dataset`); the digests are of its batches.
"""

import dataclasses
import hashlib
import pathlib
import shutil

import numpy as np
import pytest
from shard_fakes import write_dataset

from lvm_jax.data.records import example
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.record_file import RecordFile, build_index
from lvm_jax.data.records.record_index import RecordIndex, index_path
from lvm_jax.data.sentences.sentence_record import SENTENCES, encode_example
from lvm_jax.data.sentences.token_loader import EvalLoader, TokenLoader

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "scenes" / "1.0.0"
KEYS = ("tokens", "segment_ids", "positions")
DIGESTS = {"packed": "a57ac4e2a1c74169", "concat": "8add145361d5762a"}
HELD_OUT_DIGEST = "6977c5c5a0795826"


@pytest.fixture
def shards(tmp_path):
    """A copy, so that nothing that a test makes lands in the fixture."""
    return pathlib.Path(shutil.copytree(FIXTURE, tmp_path / "scenes" / "1.0.0"))


def digest(batches):
    found = hashlib.sha256()
    for batch in batches:
        for key in KEYS:
            found.update(batch[key].tobytes())
    return found.hexdigest()[:16]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_data_set_is_written_to_the_byte(tmp_path):
    def records(s):
        return example.encode({"label": 3}) if s.key.endswith("4") else encode_example(s)

    splits = {"train": [1, 3, 2, 4, 1, 2], "validation": [2, 1]}
    folder, _ = write_dataset(tmp_path / "parsed", "scenes", splits, records=records)
    lengths = {"train": [3, 3], "validation": [1, 1]}
    manifests.write_tfds_metadata(folder, "scenes", "1.0.0", lengths, SENTENCES)
    found, expected = contents(pathlib.Path(folder)), contents(FIXTURE)
    assert found.keys() == expected.keys()
    for name, written in found.items():
        if name.endswith(".index"):
            # Periods are younger than the fixture; what its index says is still said.
            new, old = (RecordIndex.from_bytes(content) for content in (written, expected[name]))
            assert dataclasses.replace(new, columns=old.columns).to_bytes() == expected[name]
            for column in old.columns:
                np.testing.assert_array_equal(new[column], old[column])
            assert new.schema_columns == (*old.schema_columns, ("period", "<u4"))
        else:
            assert written == expected[name], name
    # The writer of sentences says what the schema would find by parsing.
    known, _ = write_dataset(tmp_path / "known", "scenes", {"validation": [2, 1]})
    for path in pathlib.Path(known).glob("*-validation.*"):
        assert path.read_bytes() == found[path.name]


def test_an_index_without_periods_is_kept_until_they_are_needed(shards, caplog):
    for path in shards.glob("*.tfrecord-?????-of-?????"):
        before = index_path(path).read_bytes()
        assert RecordFile(path, SENTENCES).index.to_bytes() == before
        assert index_path(path).read_bytes() == before
        assert not caplog.records
        RecordFile(path, dataclasses.replace(SENTENCES, optional=()))
        assert "says codes_at, codes_bytes, largest of each record: it is made anew" in caplog.text
        caplog.clear()
        after = index_path(path).read_bytes()
        build_index(path, SENTENCES)
        assert index_path(path).read_bytes() == after
        assert RecordIndex.from_bytes(after).schema_columns == SENTENCES.columns
        RecordFile(path, SENTENCES)
        assert not caplog.records


@pytest.mark.parametrize("packing", ["packed", "concat"])
def test_batches_are_those_of_before(shards, packing):
    with TokenLoader(shards, "train", 16, 4, 7, packing, threads=0) as loader:
        found = digest(loader.batch_at(step) for step in (0, 1, 2, 1_000_000))
    assert found == DIGESTS[packing]


def test_held_out_batches_are_those_of_before(shards):
    assert digest(EvalLoader(shards, "validation", 16, 2)) == HELD_OUT_DIGEST
