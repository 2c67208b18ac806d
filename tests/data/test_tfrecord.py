import dataclasses
import os
import threading

import numpy as np
import pytest
from etils import epath

from lvm_jax.data.records import example, framing, open_files, record_file, writer
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_file import RecordFile, build_index
from lvm_jax.data.records.record_index import index_path
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.data.sentences.sentence_record import SENTENCES
from lvm_jax.errors import UserError

# Two records, b"visual sentence" and b"", as TensorFlow 2.21 writes them.
GOLDEN = bytes.fromhex(
    "0f00000000000000 6d532b09 76697375616c2073656e74656e6365 29865c0a"
    + "0000000000000000 29039807 d8ea82a2"
)
RECORDS = [
    b"visual sentence",
    b"",
    b"x" * 300,
    example.encode({"codes": b"abcd", "category": 3, "source": b"s"}),
]


@pytest.fixture
def path(tmp_path):
    path = epath.Path(tmp_path / "a.tfrecord")
    with TFRecordWriter(path, SENTENCES) as writer:
        for record in RECORDS:
            writer.write(record)
    return path


def test_crc32c_vectors():
    """RFC 3720, B.4, after undoing the mask."""

    def unmasked(data):
        rotated = (framing.masked_crc(data) - 0xA282EAD8) & 0xFFFFFFFF
        return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF

    assert unmasked(b"123456789") == 0xE3069283
    assert unmasked(bytes(32)) == 0x8A9136AA
    assert unmasked(b"\xff" * 32) == 0x62A8AB43
    assert unmasked(bytes(range(32))) == 0x46DD794E


def test_framing_is_tensorflows(tmp_path):
    with TFRecordWriter(tmp_path / "g") as writer:
        writer.write(b"visual sentence")
        writer.write(b"")
        assert len(writer) == 2
    assert (tmp_path / "g").read_bytes() == GOLDEN


def test_random_access(path):
    file = RecordFile(path)
    assert len(file) == 4
    assert [file[i] for i in (2, 0, -1, 1)] == [RECORDS[i] for i in (2, 0, 3, 1)]
    assert list(file) == RECORDS
    assert file.index["codes_bytes"].tolist() == [0, 0, 0, 4]
    at = int(file.index["codes_at"][3])
    assert file[3][at : at + 4] == b"abcd"
    assert file.index["largest"][3] == int.from_bytes(b"cd", "little")
    assert file.index.origins == (("s", 3),)
    for i in (4, -5):
        with pytest.raises(IndexError):
            file[i]


def test_every_flipped_bit_of_a_record_is_caught(path):
    sound = path.read_bytes()
    begin, end = 31 + 16, 31 + 16 + 316  # record 2: its head, data and CRC
    for byte in range(begin, end):
        damaged = bytearray(sound)
        damaged[byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        file = RecordFile(path)
        with pytest.raises(CorruptRecord, match=r"record 2 of .*a\.tfrecord at byte 47"):
            file[2]
        assert file[1] == RECORDS[1]
        assert file[3] == RECORDS[3]


def test_every_flipped_bit_of_an_index_is_caught(path):
    sound = index_path(path).read_bytes()
    for byte in range(len(sound)):
        damaged = bytearray(sound)
        damaged[byte] ^= 1 << byte % 8
        index_path(path).write_bytes(damaged)
        with pytest.raises(UserError, match="rebuild it by"):
            RecordFile(path)


def test_a_shard_cut_short(path):
    size = path.stat().length
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        UserError, match=f"cut short: {size - 5} bytes of the {size} in its index"
    ) as error:
        RecordFile(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="after 3 whole records: cut short"):
        build_index(path)


def test_a_shard_cut_short_while_it_is_read(path):
    file = RecordFile(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CorruptRecord, match="could be read"):
        file[3]


def test_a_shard_emptied_while_it_is_read(path):
    """Its pages are gone: touching the map there would end the process."""
    file = RecordFile(path)
    assert file[0] == RECORDS[0]
    os.truncate(path, 0)
    for i in range(len(file)):
        with pytest.raises(CorruptRecord, match=r"0 bytes of .* could be read"):
            file[i]


def test_an_index_of_another_file(path):
    path.write_bytes(path.read_bytes() + GOLDEN)
    with pytest.raises(UserError, match=r"is of another file: .* rebuild it by"):
        RecordFile(path)
    assert build_index(path) == 6
    assert RecordFile(path)[4] == b"visual sentence"


@pytest.mark.parametrize("content", [b"", b"LVM", b"LVMINDEX\2" + bytes(7)])
def test_an_index_cut_short(path, content):
    index_path(path).write_bytes(content)
    with pytest.raises(UserError, match="cut short"):
        RecordFile(path)


def test_missing_files(path):
    with pytest.raises(UserError, match="does not exist"):
        RecordFile(path.parent / "b")
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        RecordFile(path)


def test_a_missing_index_is_made(path, caplog):
    written = index_path(path).read_bytes()
    index_path(path).unlink()
    assert list(RecordFile(path, SENTENCES)) == RECORDS
    assert index_path(path).read_bytes() == written
    old = bytearray(written)
    old[8] = 1  # the version before
    index_path(path).write_bytes(old)
    assert list(RecordFile(path, SENTENCES)) == RECORDS
    assert index_path(path).read_bytes() == written
    assert "is of version 1, not 2: it is made anew" in caplog.text


def test_an_index_that_cannot_be_written_is_kept_in_memory(path, monkeypatch, caplog):
    index_path(path).unlink()

    def read_only(*args):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(record_file, "write_index", read_only)
    assert list(RecordFile(path)) == RECORDS
    assert not index_path(path).exists()
    assert "kept in memory" in caplog.text
    assert str(path) in caplog.text


def test_an_index_older_than_its_shard(path):
    """The same sizes in the same places, so that only the records give it away."""
    stale = index_path(path).read_bytes()
    with TFRecordWriter(path) as writer:
        for record in RECORDS:
            writer.write(record[::-1])
    index_path(path).write_bytes(stale)
    with pytest.raises(UserError, match=r"record 0 .* is sound, but not the one in"):
        RecordFile(path)[0]
    os.utime(index_path(path), ns=(0, 0))
    with pytest.raises(UserError, match=r"older than its shard .* rebuild it by"):
        RecordFile(path)


def test_an_index_of_impossible_records(path):
    index = RecordFile(path).index
    for change in (
        {"offsets": index.offsets[::-1]},
        {
            "columns": {
                **index.columns,
                "codes_bytes": index["codes_bytes"] + np.uint32(1 << 20),
            }
        },
        {"columns": {**index.columns, "codes_at": index["codes_at"] + np.uint32(1 << 31)}},
        {"origins": ()},
        {"data_size": 40},
    ):
        wrong = dataclasses.replace(index, **change)
        index_path(path).write_bytes(wrong.to_bytes())
        with pytest.raises(UserError, match="records that cannot be: rebuild it by"):
            RecordFile(path)


def test_building_an_index_gives_what_the_writer_gave(path):
    written = index_path(path).read_bytes()
    index_path(path).unlink()
    assert build_index(path, SENTENCES) == 4
    assert index_path(path).read_bytes() == written


def test_index_of_a_file_with_a_bad_record(path):
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 1  # in the data of record 2
    path.write_bytes(damaged)
    assert build_index(path) == 4
    with pytest.raises(CorruptRecord):
        RecordFile(path)[2]
    assert RecordFile(path)[3] == RECORDS[3]


def test_absurd_lengths_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = epath.Path(tmp_path / "a")

    def frame(length):
        head = length.to_bytes(8, "little")
        return head + framing.masked_crc(head).to_bytes(4, "little") + b"x" * 100

    path.write_bytes(frame(1 << 60))
    with pytest.raises(UserError, match=f"a record of {1 << 60} bytes exceeds"):
        build_index(path)
    path.write_bytes(frame(1 << 20))
    with pytest.raises(UserError, match="cut short, 112 of 1048592 bytes"):
        build_index(path)
    path.write_bytes(b"a text file, not records at all")
    with pytest.raises(UserError, match="not a TFRecord file"):
        build_index(path)
    monkeypatch.setattr(writer, "MAX_RECORD_BYTES", 10)
    with TFRecordWriter(path) as opened, pytest.raises(UserError, match="11 bytes exceeds 10"):
        opened.write(b"x" * 11)


def fail_while_writing(path, error):
    with TFRecordWriter(path) as writer:
        writer.write(b"1")
        raise error


def test_nothing_is_left_of_a_writer_that_fails(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        fail_while_writing(path, KeyboardInterrupt)
    assert list(tmp_path.iterdir()) == []


def test_nothing_stands_under_the_final_name_before_the_end(tmp_path):
    with TFRecordWriter(tmp_path / "a") as writer:
        writer.write(b"1")
        assert not (tmp_path / "a").exists()
        assert not (tmp_path / "a.index").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.index"]
    with pytest.raises(UserError, match="is not open"):
        writer.write(b"2")


def test_a_file_that_was_there_survives_a_failure(path):
    before = path.read_bytes(), index_path(path).read_bytes()
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(path, ZeroDivisionError)
    assert (path.read_bytes(), index_path(path).read_bytes()) == before
    assert list(RecordFile(path)) == RECORDS


def test_the_index_is_named_before_the_data(tmp_path, monkeypatch):
    path = tmp_path / "a"

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(writer, "write_index", fail)
    with pytest.raises(OSError, match="disk full"), TFRecordWriter(path) as opened:
        opened.write(b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_file_is_read_anew(path):
    assert RecordFile(path)[0] == RECORDS[0]
    with TFRecordWriter(path) as writer:
        for record in RECORDS:
            writer.write(record.upper())
    assert RecordFile(path)[0] == b"VISUAL SENTENCE"


def test_no_more_descriptors_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(open_files, "OPEN_FILES", open_files.OpenFiles(limit=3))
    files = []
    for i in range(10):
        with TFRecordWriter(tmp_path / str(i)) as writer:
            writer.write(str(i).encode())
        files.append(RecordFile(tmp_path / str(i)))
    for _ in range(2):
        assert [file[0] for file in files] == [str(i).encode() for i in range(10)]
    assert len(open_files.OPEN_FILES._files) == 3


def test_threads_share_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(open_files, "OPEN_FILES", open_files.OpenFiles(limit=1))
    files = []
    for name in "ab":
        with TFRecordWriter(tmp_path / name) as writer:
            for i in range(100):
                writer.write(f"{name}{i}".encode() * (i + 1))
        files.append(RecordFile(tmp_path / name))
    errors = []

    def read(seed):
        for i in np.random.default_rng(seed).permutation(100).tolist():
            for file, name in zip(files, "ab", strict=True):
                if file[i] != f"{name}{i}".encode() * (i + 1):
                    errors.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_remote_paths(remote):
    """gs:// with a file system in memory in the place of Google's."""
    path = epath.Path("gs://bucket/a.tfrecord")
    with TFRecordWriter(path) as writer:
        for record in RECORDS:
            writer.write(record)
    assert list(RecordFile("gs://bucket/a.tfrecord")) == RECORDS
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.tfrecord", "a.tfrecord.index"]
