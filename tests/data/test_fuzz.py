"""Readers of bytes from outside, on tens of thousands of damaged inputs: each is refused by name, or read right.

A hang would show as a test that does not end; the seeds are fixed, so that what fails fails again.
"""

import os
import random
import tracemalloc

import google_crc32c
import pytest
from etils import epath
from shard_fakes import CODEBOOK, PER_IMAGE, sentence

from lvm_jax import files
from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.framing import masked_crc
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_index import BadIndex, RecordIndex, index_path
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.data.sentences.sentence_record import (
    NO_SENTENCE,
    SENTENCES,
    decode_example,
    encode_example,
    outline,
)
from lvm_jax.errors import UserError

RECORDS = [
    b"visual sentence",
    b"",
    encode_example(sentence(0, 2)),
    encode_example(sentence(1, 3)),
    example.encode({"codes": b"abcd", "category": [1, -1], "more": [b"x" * 20, b""]}),
]
SHARDS, EXAMPLES, INDICES = 5_000, 16_000, 4_000
TRACED = 300  # of each, as tracing is slow
MEMORY_BYTES = (
    4 << 20
)  # inputs have hundreds of bytes; a length that is believed takes more than this


def mutated(data, rng):
    """Some bits, bytes or blocks of `data` changed, lost, doubled or made up."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 30))
        kind = rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = rng.choice((b"\xff", b"\0", b"\x80")) * length
        elif kind == 5:
            del data[at:]
        else:
            other = rng.randrange(len(data) + 1)
            data[at : at + length] = data[other : other + length]
    return bytes(data)


def with_a_forged_length(data, offsets, rng):
    """A record says that it is longer or shorter, with the right CRC of its length."""
    at = rng.choice(offsets)
    length = rng.choice((0, 1, 15, 16, 1 << 20, 1 << 30, 1 << 31, 1 << 40, (1 << 64) - 1))
    head = length.to_bytes(8, "little")
    return data[:at] + head + masked_crc(head).to_bytes(4, "little") + data[at + 12 :]


def traced(cases):
    """0..cases - 1, of which the last few must do with little memory."""
    yield from range(cases - TRACED)
    tracemalloc.start()
    try:
        yield from range(cases - TRACED, cases)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture
def shard(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "sync", lambda *args: None)  # nothing here outlives a power cut
    path = epath.Path(tmp_path / "a.tfrecord")
    with TFRecordWriter(path, SENTENCES) as writer:
        for record in RECORDS:
            writer.write(record)
    return path


def overwrite(path, data):
    """In place: file systems hurry to the disk what was emptied and written again, which was most of the time here."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
        file.write(data)
        file.truncate()


def check(error, words):
    """One line, not endless, that says `words`."""
    text = str(error)
    assert words in text
    assert "\n" not in text
    assert len(text) < 1000


def read_all(path):
    """The records that are read; those that are refused must be refused by name."""
    try:
        file = RecordFile(path, SENTENCES)
    except UserError as error:
        check(error, path.name)
        return []
    found = []
    for i in range(len(file)):
        try:
            found.append(file[i])
        except CorruptRecord as error:
            check(error, f"record {i} of {path}")
        except UserError as error:
            check(error, "rebuild it by")
    return found


def test_no_wrong_record_of_a_damaged_shard_is_accepted(shard):
    rng = random.Random(0)
    sound, index = shard.read_bytes(), index_path(shard).read_bytes()
    offsets = RecordFile(shard).index.offsets.tolist()
    accepted = 0
    for case in traced(SHARDS):
        forged = case % 10 < 2  # one with its index, one without
        damaged = with_a_forged_length(sound, offsets, rng) if forged else mutated(sound, rng)
        overwrite(shard, damaged)
        if case % 2:
            index_path(shard).unlink(missing_ok=True)  # one is made
        else:
            overwrite(index_path(shard), index)
        found = read_all(shard)
        assert all(record in RECORDS for record in found)
        accepted += len(found)
    assert accepted > SHARDS // 2  # the sound records beside the damage


def test_damaged_examples_are_refused_or_read():
    rng = random.Random(1)
    outcomes = {"decoded": 0, "refused": 0, "sentences": 0}
    for _ in traced(EXAMPLES):
        data = mutated(rng.choice(RECORDS[2:]), rng)
        try:
            example.decode(data)
            outcomes["decoded"] += 1
        except CorruptRecord:
            outcomes["refused"] += 1
        found = outline(data)
        if found != NO_SENTENCE:
            codes = data[found.codes_at : found.codes_at + found.codes_bytes]
            assert len(codes) == found.codes_bytes
            assert codes == example.decode(data)["codes"][0]
        try:
            read = decode_example(data, codebook_size=CODEBOOK, tokens_per_image=PER_IMAGE)
        except CorruptRecord as error:
            check(error, "")
            continue
        outcomes["sentences"] += 1
        assert read.codes.max() < CODEBOOK
        assert read.codes.tobytes() == codes
        assert len(read.roles) == len(read.codes)
    assert min(outcomes.values()) > 100, outcomes


def test_damaged_indices_are_refused(shard):
    """Also those with a CRC that is right: what they say is checked, and then each record against it."""
    rng = random.Random(2)
    index = index_path(shard).read_bytes()
    usable = 0
    for case in traced(INDICES):
        damaged = mutated(index, rng)
        if case % 2 and len(damaged) > 16:
            crc = google_crc32c.value(damaged[16:]).to_bytes(4, "little")
            damaged = index[:12] + crc + damaged[16:]
        try:
            RecordIndex.from_bytes(damaged)
            usable += damaged != index
        except BadIndex as error:
            check(error, "")
        if case % 4 == 1:
            overwrite(index_path(shard), damaged)
            assert all(record in RECORDS for record in read_all(shard))
    assert usable > 100  # forged, and nothing in them is impossible
