"""One string opens folders, tars, TFRecords and TFDS datasets; what is broken is named."""

import io
import sys
import tarfile
import types

import numpy as np
import pytest
from PIL import Image

from lvm_jax.data.images.loader import ImageLoader
from lvm_jax.data.images.sources import expand, open_images, split_source
from lvm_jax.data.records import example
from lvm_jax.data.records.record_index import index_path
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage


def encoded(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def values(source) -> list[int]:
    return [int(source.load(i)[0, 0, 0]) for i in range(len(source.names))]


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path):
    for shard in range(3):
        members = {}
        for i in range(4):
            members[f"a/{i}.png"] = encoded(10 * shard + i)
            members[f"a/{i}.txt"] = b"a caption"
            members[f"a/{i}.seg.webp"] = encoded(200)
        write_tar(tmp_path / f"train-{shard:02d}.tar", members)
    return tmp_path


def write_records(path, count: int, first: int = 0, feature: str = "image/encoded") -> None:
    with TFRecordWriter(path) as writer:
        for i in range(count):
            writer.write(example.encode({feature: encoded(first + i), "label": i}))


def test_tars_in_webdataset_layout(tars):
    source = open_images(f"{tars}/train-*.tar", "png")
    assert values(source) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert source.names[5] == "train-01.tar/a/1.png"
    assert values(open_images(f"{tars}/train-{{01..02}}.tar", "png")) == values(source)[4:]
    assert len(open_images(f"{tars}/train-00.tar").names) == 8  # every image, masks included
    with pytest.raises(UserError, match=r"hold no image \(\.jpg\)"):
        open_images(f"{tars}/train-*.tar", "jpg")


def test_a_damaged_tar_is_refused_and_a_damaged_member_is_named(tars):
    whole = (tars / "train-00.tar").read_bytes()
    (tars / "cut.tar").write_bytes(whole[: whole.rindex(b"PNG") + 20])
    with pytest.raises(UserError, match=r"cut\.tar is no whole tar"):
        open_images(tars / "cut.tar")
    (tars / "no.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"no\.tar is no whole tar"):
        open_images(tars / "no.tar")
    write_tar(tars / "bad.tar", {"x/0.png": b"broken", "x/1.png": encoded(1)})
    source = open_images(tars / "bad.tar")
    with pytest.raises(BadImage, match=r"bad\.tar/x/0\.png: cannot be decoded"):
        source.load(0)
    with pytest.raises(UserError, match="is compressed"):
        open_images(tars / "a.tar.gz")


def test_tfrecords_get_an_index_and_damaged_records_are_bad_images(tmp_path):
    for shard in range(2):
        path = tmp_path / f"train.tfrecord-{shard:05d}-of-00002"
        write_records(path, 3, 10 * shard)
        index_path(path).unlink()
    source = open_images(f"{tmp_path}/train.tfrecord-*")
    assert values(source) == [0, 1, 2, 10, 11, 12]
    assert source.names[4] == "train.tfrecord-00001-of-00002/000001"
    assert values(open_images(f"{tmp_path}/train.tfrecord-*")) == values(source)
    damaged = bytearray(path.read_bytes())
    damaged[-30] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(BadImage, match=r"00001-of-00002/000002: .*CRC"):
        open_images(f"{tmp_path}/train.tfrecord-*").load(5)
    with pytest.raises(
        UserError, match=r"set config\.data\.feature to one of image/encoded, label"
    ):
        open_images(f"{tmp_path}/train.tfrecord-*", "jpeg").load(0)
    with pytest.raises(BadImage, match="is not one value of bytes"):
        open_images(f"{tmp_path}/train.tfrecord-*", "label").load(0)


def test_tfds_is_imported_only_when_asked_for(monkeypatch):
    asked = {}

    def data_source(name, *, split, decoders, download):
        assert not download  # hundreds of hosts would
        asked.update(name=name, split=split, decoders=decoders)
        if name == "records":
            raise NotImplementedError("Random access is not implemented for tfrecord")
        return [{"image": encoded(3)}, {"image": np.full((2, 2, 1), 9, np.uint8)}]

    decode = types.SimpleNamespace(SkipDecoding=lambda: "skip")
    fake = types.SimpleNamespace(data_source=data_source, decode=decode)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    source = open_images("tfds://flowers/plain:train[:50%]")
    assert values(source) == [3, 9]
    assert source.load(1).shape == (2, 2, 3)
    assert asked == {
        "name": "flowers/plain",
        "split": "train[:50%]",
        "decoders": {"image": "skip"},
    }
    with pytest.raises(UserError, match="file_format=array_record"):
        open_images("tfds://records:train")
    with pytest.raises(UserError, match="names no split: write tfds://flowers:train"):
        open_images("tfds://flowers")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        open_images("tfds://flowers:train")


def test_patterns(tmp_path):
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "b.tfrecord", "b.tfrecord.index"):
        (tmp_path / name).write_bytes(b"")
    assert expand(f"{tmp_path}/a-{{08..10}}.tar") == [
        f"{tmp_path}/a-{n}.tar" for n in ("08", "09", "10")
    ]
    assert expand(f"{tmp_path}/b.tfrecord*") == [f"{tmp_path}/b.tfrecord"]
    named_like_a_pattern = tmp_path / "a[0-9]"
    named_like_a_pattern.mkdir()
    for name in ("a-1.tar", "b[1].tar", "b1.tar", "c-{1..2}.tar"):
        (named_like_a_pattern / name).write_bytes(b"")
    assert expand(f"{named_like_a_pattern}/a-*.tar") == [f"{named_like_a_pattern}/a-1.tar"]
    assert expand(f"{named_like_a_pattern}/a-{{1..1}}.tar") == [f"{named_like_a_pattern}/a-1.tar"]
    for name in ("b[1].tar", "c-{1..2}.tar"):
        assert expand(f"{named_like_a_pattern}/{name}") == [f"{named_like_a_pattern}/{name}"]
    assert expand(f"{named_like_a_pattern}/b[2-3].tar".replace("2-3", "!a")) == [
        f"{named_like_a_pattern}/b1.tar"
    ]
    with pytest.raises(UserError, match=r"a-11\.tar does not exist"):
        expand(f"{tmp_path}/a-{{10..11}}.tar")
    with pytest.raises(UserError, match="no file matches"):
        expand(f"{tmp_path}/c-*.tar")
    with pytest.raises(UserError, match="write the smaller number first"):
        expand(f"{tmp_path}/a-{{10..08}}.tar")


def test_the_loader_reads_any_source_and_the_split_goes_by_name(tars):
    where = f"{tars}/train-*.tar"
    source = open_images(where, "png")
    train, held_out = split_source(source, where, None, 0.25)
    assert sorted(train.names + held_out.names) == sorted(source.names)
    assert split_source(source, where, None, 0.25)[1].names == held_out.names
    listed = split_source(source, where, frozenset({"train-01.tar"}), 0.1)[1]
    assert values(listed) == [10, 11, 12, 13]
    with ImageLoader(train, 4, len(train.names), 0, "squash", flip=False) as loader:
        batch = next(loader)["images"]
    assert sorted(batch[:, 0, 0, 0]) == sorted(values(train))
