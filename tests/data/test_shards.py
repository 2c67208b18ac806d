import shutil

import numpy as np
import pytest
from etils import epath
from shard_fakes import CODEBOOK, write_dataset

from lvm_jax import files
from lvm_jax.data.records import example
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.record_file import build_index
from lvm_jax.data.records.shards import find_dataset, find_shards
from lvm_jax.data.sentences.sentence_record import SENTENCES, encode_example
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.errors import UserError


def flip_byte(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_all_the_ways_to_name_shards(dataset, tmp_path):
    folder, _ = dataset
    files = [folder / f"uvd_scenes-train.tfrecord-0000{i}-of-00002" for i in range(2)]
    for shards in (
        folder,
        str(folder),
        folder.parent,
        folder.parent.parent,
        [folder, folder],
        tmp_path / "shards" / "*" / "1.0.0",
        f"{tmp_path}/shards/*/*/uvd_*",
        f"{tmp_path}/shards/*/*/*.tfrecord*",
        files,
        files[::-1],
    ):
        assert find_shards(shards, "train") == {folder: files}
    assert find_shards(files[1], "train") == {folder: files[1:]}


@pytest.mark.parametrize("name", ["a[1]", "b*", "c?", "d,e", "f{0..2}"])
def test_a_folder_may_be_named_like_a_pattern(tmp_path, name):
    root = tmp_path / name
    folder, written = write_dataset(root)
    first, second = (folder / f"uvd_scenes-train.tfrecord-0000{i}-of-00002" for i in range(2))
    for shards in (str(folder), str(root), [root], f"{folder}/uvd_*"):
        if "," in name and "*" in str(shards):
            continue  # several patterns are separated by commas
        assert find_shards(shards, "train") == {folder: [first, second]}
    assert find_dataset(root) == folder
    assert len(SentenceStore(str(root), "train")) == len(written["train"])


def test_patterns_in_a_bucket_are_first_taken_literally(remote):
    for name in ("a[1]/x1", "a[1]/x2", "a1/x1"):
        epath.Path(f"gs://bucket/{name}").parent.mkdir(parents=True, exist_ok=True)
        epath.Path(f"gs://bucket/{name}").write_bytes(b"1")
    two = ["gs://bucket/a[1]/x1", "gs://bucket/a[1]/x2"]
    assert [*map(str, files.expand("gs://bucket/a[1]/x*"))] == two
    assert [*map(str, files.expand("gs://bucket/a*/x1"))] == ["gs://bucket/a1/x1", two[0]]
    assert [*map(str, files.expand("gs://bucket/a[1]"))] == ["gs://bucket/a[1]"]
    assert files.expand("gs://bucket/b*/x") == []


def test_lengths_come_from_the_index(dataset):
    folder, written = dataset
    store = SentenceStore(folder, "train")
    expected = written["train"]
    assert store.lengths.tolist() == [s.codes.size for s in expected]
    for i, s in enumerate(expected):
        read = store.sentence(i)
        assert read.key == s.key
        np.testing.assert_array_equal(read.codes, s.codes)


def test_several_data_sets(tmp_path):
    _, clips = write_dataset(tmp_path, "clips", {"train": [1, 2], "test": [1]})
    _, turns = write_dataset(tmp_path, "turns", {"train": [3]}, shards=1)
    store = SentenceStore(tmp_path, "train")
    keys = [store.sentence(i).key for i in range(len(store))]
    assert keys == [s.key for s in clips["train"] + turns["train"]]
    assert set(store.manifest.sources) == {"clips", "turns"}
    assert store.manifest.splits["train"]["sentences"] == 3


def test_a_data_set_and_its_copy_are_refused(tmp_path):
    folder, _ = write_dataset(tmp_path / "here", splits={"train": [1, 2, 3], "test": []})
    copy = tmp_path / "there" / "scenes" / "1.0.0"
    shutil.copytree(folder, copy)
    with pytest.raises(UserError, match=r"here/.*-00000-of-00002 and .*there/.* the same records"):
        SentenceStore([folder, copy], "train")
    assert len(SentenceStore([folder, folder.parent / "*"], "train")) == 3, "one folder, two names"


def test_another_tokenizer_is_refused(tmp_path):
    write_dataset(tmp_path, "clips")
    write_dataset(tmp_path, "turns", tokenizer_fingerprint="ff")
    with pytest.raises(UserError, match=r"'0123456789abcdef' in .*clips.* and 'ff' in .*turns"):
        SentenceStore(tmp_path, "train")


def test_nothing_there(dataset, tmp_path):
    folder, _ = dataset
    (tmp_path / "empty").mkdir()
    for shards, message in [
        (tmp_path / "nowhere", "match nothing"),
        (tmp_path / "no*", "match nothing"),
        (tmp_path / "empty", "has no shards"),
        ([], "has no shards"),
    ]:
        with pytest.raises(UserError, match=message):
            find_shards(shards, "train")
    with pytest.raises(UserError, match="has no split 'test': it has train"):
        find_shards(folder, "test")


def test_an_empty_split(tmp_path):
    folder, _ = write_dataset(tmp_path, splits={"train": []})
    with pytest.raises(UserError, match=r"'train' of .* has no sentence"):
        SentenceStore(folder, "train")


def test_two_versions(dataset):
    folder, _ = dataset
    Manifest.load(folder).save(
        folder.parent
    )  # a stray manifest one level up is a data set without shards
    (folder.parent / "manifest.json").unlink()
    other = folder.parent / "1.1.0"
    other.mkdir()
    Manifest.load(folder).save(other)
    for shards in (folder.parent, folder.parent.parent):
        with pytest.raises(UserError, match=r"has the versions 1\.0\.0, 1\.1\.0: name one"):
            find_shards(shards, "train")


def test_a_missing_shard(dataset):
    folder, _ = dataset
    (folder / "uvd_scenes-train.tfrecord-00000-of-00002").unlink()
    with pytest.raises(
        UserError, match="lacks 1 of 2 shards of uvd_scenes-train, the first is number 00000"
    ):
        SentenceStore(folder, "train")


def test_two_writings_of_a_split_in_one_folder(dataset):
    folder, _ = dataset
    for i in range(3):
        (folder / f"uvd_scenes-train.tfrecord-0000{i}-of-00003").touch()
    with pytest.raises(UserError, match=r"uvd_scenes-train in [23] shards and in [23]: delete"):
        SentenceStore(folder, "train")


def test_remote_shards(remote):
    """gs:// with a file system in memory in the place of Google's."""
    folder, written = write_dataset("gs://bucket/shards")
    for shards in (
        "gs://bucket/shards",
        "gs://bucket/*/scenes/1.0.0",
        f"{folder}/uvd_*-train.tfrecord*",
    ):
        store = SentenceStore(shards, "train")
        assert [store.sentence(i).key for i in range(len(store))] == [
            s.key for s in written["train"]
        ]


def test_a_missing_manifest(dataset):
    folder, _ = dataset
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json does not exist"):
        SentenceStore(folder / "uvd_*", "train")


def test_bad_records_are_counted_named_and_skipped_up_to_the_limit(dataset, caplog):
    folder, written = dataset
    for shard in range(2):
        flip_byte(folder / f"uvd_scenes-train.tfrecord-0000{shard}-of-00002", 20)
    store = SentenceStore(folder, "train", max_corrupt=1)
    assert store.sentence(0) is None
    assert store.sentence(0) is None
    assert store.corrupt == 1
    assert store.sentence(1).key == written["train"][1].key
    assert caplog.text.count("skipped a bad record (1 of at most 1): record 0 of") == 1
    assert "00000-of-00002" in caplog.text
    with pytest.raises(UserError, match=r"limit of 1: .*00001-of-00002"):
        store.sentence(4)


def test_a_code_out_of_range_is_a_bad_record(tmp_path, caplog):
    def too_large(s):
        codes = s.codes.copy()
        codes[0, 1] = CODEBOOK if s.key.endswith("2") else codes[0, 1]
        return encode_example(type(s)(codes, s.source, s.category, s.key, s.layout))

    folder, _ = write_dataset(tmp_path, records=too_large)
    store = SentenceStore(folder, "train")
    assert [i for i in range(len(store)) if store.sentence(i) is None] == [2]
    assert f"has code {CODEBOOK}" in caplog.text


def test_a_fraction_of_an_image_is_known_from_the_index(tmp_path, caplog):
    def cut(s):
        return example.encode({"codes": b"123"}) if s.key.endswith("2") else encode_example(s)

    folder, _ = write_dataset(tmp_path, records=cut)
    store = SentenceStore(folder, "train")
    assert store.lengths[2] == 0
    assert store.corrupt == 1
    assert "holds no whole image of 8 bytes" in caplog.text
    with pytest.raises(UserError, match="limit of 0"):
        SentenceStore(folder, "train", max_corrupt=0)


def test_only_bad_records(tmp_path):
    folder, _ = write_dataset(tmp_path, records=lambda s: b"")
    with pytest.raises(UserError, match="only bad records"):
        SentenceStore(folder, "train")


def test_an_index_of_other_records_in_the_same_places(tmp_path):
    """The stale index that its data size does not give away: a record of as many bytes, but an image less."""

    def shorter(s):
        codes, key = s.codes[:2], s.key + "." * s.codes[2:].nbytes
        return encode_example(type(s)(codes, s.source, s.category, key, "frame*2"))

    folder, _ = write_dataset(tmp_path / "a", splits={"train": [3]}, shards=1)
    other, _ = write_dataset(tmp_path / "b", splits={"train": [3]}, shards=1, records=shorter)
    shard = "uvd_scenes-train.tfrecord-00000-of-00001"
    (folder / shard).write_bytes((other / shard).read_bytes())
    with pytest.raises(
        UserError, match=r"record 0 of .* is sound, but not the one in .* rebuild it by"
    ):
        SentenceStore(folder, "train").sentence(0)
    build_index(folder / shard, SENTENCES)
    assert len(SentenceStore(folder, "train").sentence(0).codes) == 2


def test_shards_of_another_encoding_are_refused_in_one_line(tmp_path):
    folder, _ = write_dataset(tmp_path, encoding="pool")
    with pytest.raises(UserError, match="is in the encoding 'pool': this loader reads 'vqgan'"):
        SentenceStore(str(folder), "train")
