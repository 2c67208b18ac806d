"""TFRecord files with an offset index: atomic writing, random access, a CRC check on every read. No TensorFlow.

A record on disk is `length uint64 | masked crc32c(length) uint32 | data | masked crc32c(data) uint32`, little-endian.
The index of `NAME` is the file `NAME.index` beside it:

| bytes | content |
|---|---|
| 8 | magic `LVMINDEX` |
| 4 | version, uint32: 1 |
| 4 | crc32c of everything after these 16 bytes |
| 8 | size of the data file, uint64 |
| 8 | number of records n, uint64 |
| 8 n | offset of each record, uint64 |
| 4 n | bytes of the record's feature `codes`, uint32 (0: it has none), so that rows are packed without reading data |

Paths may be local or remote (gs://, through etils.epath, which needs `gcsfs` or TensorFlow for it). On a local disk a
shard is synced before it is renamed, and is read with pread; a remote file is read by seeking, one read at a time.
"""

import os
import struct
import threading
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, Any

import crc32c
import numpy as np
from etils import epath

from lvm_jax.data.example import CorruptRecord, feature_bytes
from lvm_jax.errors import UserError

__all__ = ["CorruptRecord", "RecordFile", "TFRecordWriter", "build_index", "index_path"]

MAX_RECORD_BYTES = 1 << 30
MAX_OPEN_FILES = 256
_MAGIC = b"LVMINDEX"
_VERSION = 1
_INDEX_HEADER = struct.Struct("<8sII")
_INDEX_COUNTS = struct.Struct("<QQ")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEAD_BYTES = _LENGTH.size + _CRC.size
_FRAME_BYTES = _HEAD_BYTES + _CRC.size


def masked_crc(data: bytes) -> int:
    """CRC32C of `data`, rotated and offset as TFRecord does so that a CRC of CRCs stays sound."""
    crc = crc32c.crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_path(path: epath.PathLike) -> epath.Path:
    """Where the index of the record file `path` lies."""
    path = epath.Path(path)
    return path.with_name(path.name + ".index")


class TFRecordWriter:
    """Writes a record file and its index; neither has its final name before both are complete.

    Use it as a context manager. Leaving it normally syncs and renames the index, then the data; leaving it by an
    exception removes what was written, and a file that stood there before remains as it was.

        with TFRecordWriter("uvd_coco-train.tfrecord-00000-of-00016") as writer:
            writer.write(encode_example(sentence))
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.tmp")
        self._file: IO[bytes] | None = None
        self._offsets = array("Q")
        self._sizes = array("I")
        self._position = 0

    def __len__(self) -> int:
        """Number of records written."""
        return len(self._offsets)

    def __enter__(self) -> "TFRecordWriter":
        self._file = self._temporary.open("wb")
        return self

    def write(self, record: bytes) -> None:
        """Appends one record.

        Raises:
          UserError: the record is longer than `MAX_RECORD_BYTES`, or the writer is not open.
        """
        if self._file is None:
            raise UserError(
                f"{self.path} is not open: write inside `with TFRecordWriter(path) as writer`"
            )
        if len(record) > MAX_RECORD_BYTES:
            raise UserError(
                f"a record of {len(record)} bytes exceeds {MAX_RECORD_BYTES}: split the sentence"
            )
        length = _LENGTH.pack(len(record))
        head = length + _CRC.pack(masked_crc(length))
        self._file.write(head + record + _CRC.pack(masked_crc(record)))
        self._offsets.append(self._position)
        self._sizes.append(feature_bytes(record, "codes"))
        self._position += _FRAME_BYTES + len(record)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        file, self._file = self._file, None
        assert file is not None  # __enter__ opened it
        try:
            if kind is None:
                _sync(file, self.path)
            file.close()
            if kind is None:
                _write_index(self.path, self._position, self._offsets, self._sizes)
                # The data gets its name last: a shard that can be seen is complete.
                self._temporary.replace(self.path)
                _sync_folder(self.path.parent)
        finally:
            self._temporary.unlink(missing_ok=True)


class RecordFile:
    """Random access to the records of one file: `len(f)`, `f[i] -> bytes`. Safe to share between threads.

    `codes_bytes` is the index's second column, uint32 (n,). Descriptors are opened when first read, and the process
    keeps at most `MAX_OPEN_FILES` of them.

    Raises:
      UserError: the file is missing or cut short, or its index is missing, damaged or of another file.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self.data_size, self._offsets, self.codes_bytes = _read_index(self.path)
        size, version = _stat(self.path)
        self._file = (str(self.path), version)
        if size < self.data_size:
            raise UserError(
                f"{self.path} is cut short: {size} bytes of the {self.data_size} in its index; "
                "copy or build it again"
            )
        if size != self.data_size:
            raise UserError(
                f"{index_path(self.path)} is of another file: it says {self.data_size} bytes, "
                f"{self.path.name} has {size}; rebuild it by {_rebuild(self.path)}"
            )

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, i: int) -> bytes:
        """Record `i`, negative from the end.

        Raises:
          IndexError: no such record.
          CorruptRecord: a CRC or the length disagrees with the bytes; the message names file, record and offset.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"record {i} of {len(self)} in {self.path}")
        i %= len(self)
        begin = int(self._offsets[i])
        end = int(self._offsets[i + 1]) if i + 1 < len(self) else self.data_size
        frame = _OPEN_FILES.get(*self._file).read(end - begin, begin)
        try:
            if len(frame) != end - begin:
                raise CorruptRecord(f"{len(frame)} bytes of {end - begin} could be read")
            return _unframed(frame)
        except CorruptRecord as error:
            raise CorruptRecord(f"record {i} of {self.path} at byte {begin}: {error}") from error

    def __iter__(self) -> Iterator[bytes]:
        return (self[i] for i in range(len(self)))


def build_index(path: epath.PathLike) -> int:
    """Scans a record file that has no index (TensorFlow or TFDS wrote it) and writes one.

    Memory is bounded by one record and the index. A record whose data disagree with their CRC is indexed with 0 bytes
    of codes, for its reader to count.

    Returns:
      The number of records.

    Raises:
      UserError: the file is missing or ends within a record, or a length is damaged: nothing can be found behind it.
    """
    path = epath.Path(path)
    size, _ = _stat(path)
    offsets, codes_bytes, position = array("Q"), array("I"), 0
    with path.open("rb") as file:
        while position < size:
            where = f"{path} at byte {position}, after {len(offsets)} whole records"
            try:
                length = _checked_length(file.read(_HEAD_BYTES))
            except CorruptRecord as error:
                raise UserError(
                    f"{where}: {error}: not a TFRecord file, or damaged; copy or write it again"
                ) from error
            if length > MAX_RECORD_BYTES:
                raise UserError(
                    f"{where}: a record of {length} bytes exceeds {MAX_RECORD_BYTES}; write it again"
                )
            if length > size - position - _FRAME_BYTES:
                raise UserError(
                    f"{where}: cut short, {size - position} of {length + _FRAME_BYTES} bytes; copy it again"
                )
            data, crc = file.read(length), file.read(_CRC.size)
            sound = masked_crc(data) == _CRC.unpack(crc)[0]
            offsets.append(position)
            codes_bytes.append(feature_bytes(data, "codes") if sound else 0)
            position += _FRAME_BYTES + length
    _write_index(path, size, offsets, codes_bytes)
    return len(offsets)


def _checked_length(head: bytes) -> int:
    if len(head) != _HEAD_BYTES:
        raise CorruptRecord("the file ends within a length")
    if masked_crc(head[:8]) != _CRC.unpack(head[8:])[0]:
        raise CorruptRecord("the CRC of its length disagrees")
    return _LENGTH.unpack(head[:8])[0]


def _unframed(frame: bytes) -> bytes:
    length = _checked_length(frame[:_HEAD_BYTES])
    if length != len(frame) - _FRAME_BYTES:
        raise CorruptRecord(f"its length is {length}, its index says {len(frame) - _FRAME_BYTES}")
    data = frame[_HEAD_BYTES:-4]
    if masked_crc(data) != _CRC.unpack(frame[-4:])[0]:
        raise CorruptRecord(f"the CRC of its {length} bytes disagrees")
    return data


def _write_index(path: epath.Path, data_size: int, offsets: array, codes_bytes: array) -> None:
    body = _INDEX_COUNTS.pack(data_size, len(offsets))
    body += np.asarray(offsets, "<u8").tobytes() + np.asarray(codes_bytes, "<u4").tobytes()
    final = index_path(path)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_INDEX_HEADER.pack(_MAGIC, _VERSION, crc32c.crc32c(body)) + body)
            _sync(file, final)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def _read_index(path: epath.Path) -> tuple[int, np.ndarray, np.ndarray]:
    """Data size, offsets (n,) uint64 and bytes of codes (n,) uint32."""
    index = index_path(path)
    if not index.exists():
        _stat(path)  # says so if the data are missing too
        raise UserError(
            f"{path} has no index {index.name} beside it: write one by {_rebuild(path)}"
        )
    content = index.read_bytes()
    body = content[_INDEX_HEADER.size :]
    if len(body) < _INDEX_COUNTS.size:
        raise UserError(
            f"{index} is cut short at {len(content)} bytes: rebuild it by {_rebuild(path)}"
        )
    magic, version, crc = _INDEX_HEADER.unpack_from(content)
    if magic != _MAGIC or version != _VERSION:
        raise UserError(
            f"{index} is not an index of version {_VERSION}: rebuild it by {_rebuild(path)}"
        )
    data_size, count = _INDEX_COUNTS.unpack_from(body)
    if crc32c.crc32c(body) != crc or len(body) != _INDEX_COUNTS.size + 12 * count:
        raise UserError(f"{index} is damaged (its CRC disagrees): rebuild it by {_rebuild(path)}")
    offsets = np.frombuffer(body, "<u8", count, _INDEX_COUNTS.size)
    return data_size, offsets, np.frombuffer(body, "<u4", count, _INDEX_COUNTS.size + 8 * count)


def _rebuild(path: epath.Path) -> str:
    return f"lvm_jax.data.tfrecord.build_index({str(path)!r})"


def _stat(path: epath.Path) -> tuple[int, int]:
    """Size in bytes, and a number that changes when the file is replaced."""
    try:
        if _is_local(path):
            status = os.stat(path)
            return status.st_size, status.st_mtime_ns
        status = path.stat()
        return status.length, status.mtime
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check the path of the shards") from error


def _sync(file: Any, path: epath.Path) -> None:
    file.flush()
    if _is_local(path):  # a remote store makes a file durable when it is closed
        os.fsync(file.fileno())


def _sync_folder(folder: epath.Path) -> None:
    if _is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_local(path: epath.PathLike) -> bool:
    return "://" not in str(path)


class _LocalFile:
    """A descriptor that is closed when the last thread that reads from it lets go."""

    def __init__(self, path: str):
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        os.close(self._descriptor)


class _RemoteFile:
    """A remote file read by seeking, one thread at a time."""

    def __init__(self, path: str):
        self._file = epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def read(self, size: int, offset: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


class _OpenFiles:
    """The most recently read files of the process; a pod's shards can outnumber its descriptors."""

    def __init__(self, limit: int):
        self._limit = limit
        self._files: OrderedDict[tuple[str, int], _LocalFile | _RemoteFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, version: int) -> _LocalFile | _RemoteFile:
        """The file at `path`; another `version` of it is another file."""
        key = (path, version)
        with self._lock:
            if key not in self._files:
                self._files[key] = _LocalFile(path) if _is_local(path) else _RemoteFile(path)
                if len(self._files) > self._limit:
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            return self._files[key]


_OPEN_FILES = _OpenFiles(MAX_OPEN_FILES)
