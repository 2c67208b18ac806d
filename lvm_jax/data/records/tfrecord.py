"""TFRecord files with an offset index: atomic writing, random access, a CRC check on every read. No TensorFlow.

A record on disk is `length uint64 | masked crc32c(length) uint32 | data | masked crc32c(data) uint32`, little-endian.
The index is another file, `NAME.index`, described in `record_index`. A file that has none, as TensorFlow or TFDS leave
it, is scanned once, and the index is put beside it; where that may not be written it is kept in memory, with a warning.

Paths may be local or remote (gs://, through etils.epath, which needs `gcsfs` or TensorFlow for it). On a local disk a
shard is synced before it is renamed, and is mapped to be read; a remote file is read by seeking, one read at a time.
"""

import mmap
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, Any, NoReturn

import crc32c
import numpy as np
from absl import logging
from etils import epath

from lvm_jax import files
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_index import BadIndex, IndexBuilder, OldIndex, RecordIndex
from lvm_jax.data.sentences.visual_sentence import NO_SENTENCE, outline
from lvm_jax.errors import UserError

__all__ = ["CorruptRecord", "RecordFile", "TFRecordWriter", "build_index", "index_path"]

MAX_RECORD_BYTES = 1 << 30
MAX_OPEN_FILES = 256
_SPOT_CHECKS = 8  # records looked at where a shard is newer than its index
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
DATA_AT = _LENGTH.size + _CRC.size  # where the data begin in a frame
_FRAME_BYTES = DATA_AT + _CRC.size


def masked_crc(data: bytes | memoryview) -> int:
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
        self._temporary = files.temporary_name(self.path)
        self._file: IO[bytes] | None = None
        self._index = IndexBuilder()
        self._position = 0

    def __len__(self) -> int:
        """Number of records written."""
        return len(self._index)

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
        frame = head + record + _CRC.pack(masked_crc(record))
        self._file.write(frame)
        self._index.add(self._position, crc32c.crc32c(frame), outline(record))
        self._position += _FRAME_BYTES + len(record)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        file, self._file = self._file, None
        assert file is not None  # __enter__ opened it
        try:
            if kind is None:
                _sync(file, self.path)
            file.close()
            if kind is None:
                _write_index(self.path, self._index.finish(self._position))
                # The data gets its name last: a shard that can be seen is complete.
                self._temporary.replace(self.path)
                _sync_folder(self.path.parent)
        finally:
            self._temporary.unlink(missing_ok=True)


class RecordFile:
    """Random access to the records of one file: `len(f)`, `f[i] -> bytes`. Safe to share between threads.

    Descriptors are opened when first read, and the process keeps at most `MAX_OPEN_FILES` of them.

    Attributes:
      path: of the records.
      index: what `record_index` describes; made, and written beside the file, if there is none or an old one.
      frames: the same bytes for who brings the numbers of the index.

    Raises:
      UserError: the file is missing, damaged or cut short, or its index is damaged or of another file.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        size, version = _stat(self.path)
        self.index, written = _open_index(self.path)
        self.frames = FrameReader(self.path, version)
        if size < self.index.data_size:
            raise UserError(
                f"{self.path} is cut short: {size} bytes of the {self.index.data_size} in its index; "
                "copy or build it again"
            )
        if size != self.index.data_size:
            raise UserError(
                f"{index_path(self.path)} is of another file: it says {self.index.data_size} bytes, "
                f"{self.path.name} has {size}; rebuild it by {_rebuild(self.path)}"
            )
        if version > written:  # copying may do that, and so may a shard written anew
            for i in np.linspace(0, len(self) - 1, min(len(self), _SPOT_CHECKS)).astype(int):
                try:
                    self[int(i)]
                except CorruptRecord:
                    continue  # for its reader to count

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> bytes:
        """Record `i`, negative from the end.

        Raises:
          IndexError: no such record.
          CorruptRecord: a CRC or the length disagrees with the bytes; the message names file, record and offset.
          UserError: the record is sound, but not the one that the index was made for.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"record {i} of {len(self)} in {self.path}")
        i %= len(self)
        begin = int(self.index.offsets[i])
        end = int(self.index.offsets[i + 1]) if i + 1 < len(self) else self.index.data_size
        frame = self.frames.read(begin, end - begin, int(self.index.crcs[i]), i)
        return frame[DATA_AT : -_CRC.size]

    def __iter__(self) -> Iterator[bytes]:
        return (self[i] for i in range(len(self)))


class FrameReader:
    """The checked bytes of a record file, for who knows where the records lie.

    Attributes:
      path: of the records.
    """

    def __init__(self, path: epath.Path, version: int):
        self.path = path
        self._file = (str(path), version)

    def read(self, begin: int, size: int, crc: int, i: int) -> bytes:
        """Record `i` in its frame (the data begin at `DATA_AT`), which the index puts at `begin`, `size` bytes long.

        `crc` is that of the index. Errors as in `RecordFile`.
        """
        file = self.open()
        frame = file.read(size, begin)
        if crc32c.crc32c(frame) != crc:
            self.explain(frame, begin, size, i)
        return frame

    def open(self) -> "_LocalFile | _RemoteFile":
        """The file, for `read(size, begin)` of many frames; let go of it soon."""
        return _OPEN_FILES.get(*self._file)

    def explain(self, frame: bytes, begin: int, size: int, i: int) -> NoReturn:
        """Raises what is wrong with a frame whose CRC is not the index's."""
        where = f"record {i} of {self.path} at byte {begin}"
        try:
            if len(frame) != size:
                raise CorruptRecord(f"{len(frame)} bytes of {size} could be read")
            _unframed(frame)
        except CorruptRecord as error:
            raise CorruptRecord(f"{where}: {error}") from error
        raise UserError(
            f"{where} is sound, but not the one in {index_path(self.path).name}, which is older than its shard or of "
            f"another: rebuild it by {_rebuild(self.path)}"
        )


def build_index(path: epath.PathLike) -> int:
    """Scans a record file (TensorFlow or TFDS wrote it) and writes its index, whatever index it had.

    Returns:
      The number of records.

    Raises:
      UserError: as `scan`.
    """
    path = epath.Path(path)
    index = scan(path)
    _write_index(path, index)
    return len(index)


def scan(path: epath.Path) -> RecordIndex:
    """The index of a record file, made by reading all of it.

    Memory is bounded by one record and the index. A record whose data disagree with their CRC is indexed as one that
    holds no sentence, for its reader to count.

    Raises:
      UserError: the file is missing or ends within a record, or a length is damaged: nothing can be found behind it.
    """
    size, _ = _stat(path)
    builder, position = IndexBuilder(), 0
    with path.open("rb") as file:
        while position < size:
            where = f"{path} at byte {position}, after {len(builder)} whole records"
            try:
                head = file.read(DATA_AT)
                length = _checked_length(head)
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
            data, tail = file.read(length), file.read(_CRC.size)
            sound = tail == _CRC.pack(masked_crc(data))
            crc = crc32c.crc32c(tail, crc32c.crc32c(data, crc32c.crc32c(head)))
            # The CRC of a damaged record must not make it sound.
            builder.add(
                position, crc if sound else crc ^ 1, outline(data) if sound else NO_SENTENCE
            )
            position += _FRAME_BYTES + length
    return builder.finish(size)


def _checked_length(head: bytes) -> int:
    if len(head) != DATA_AT:
        raise CorruptRecord("the file ends within a length")
    if masked_crc(head[:8]) != _CRC.unpack(head[8:])[0]:
        raise CorruptRecord("the CRC of its length disagrees")
    return _LENGTH.unpack(head[:8])[0]


def _unframed(frame: bytes) -> bytes:
    length = _checked_length(frame[:DATA_AT])
    if length != len(frame) - _FRAME_BYTES:
        raise CorruptRecord(f"its length is {length}, its index says {len(frame) - _FRAME_BYTES}")
    data = frame[DATA_AT:-4]
    if masked_crc(data) != _CRC.unpack(frame[-4:])[0]:
        raise CorruptRecord(f"the CRC of its {length} bytes disagrees")
    return data


def _write_index(path: epath.Path, index: RecordIndex) -> None:
    final = index_path(path)
    with files.replacing(final) as temporary, temporary.open("wb") as file:
        file.write(index.to_bytes())
        _sync(file, final)


def _open_index(path: epath.Path) -> tuple[RecordIndex, int]:
    """The index of a record file, and when it was written (as `_stat`'s version)."""
    where = index_path(path)
    try:
        if where.exists():
            return RecordIndex.from_bytes(where.read_bytes()), _stat(where)[1]
    except OldIndex as error:
        logging.warning("%s %s: it is made anew", where, error)
    except BadIndex as error:
        raise UserError(f"{where} {error}: rebuild it by {_rebuild(path)}") from error
    index = scan(path)
    try:
        _write_index(path, index)
    except OSError as error:
        logging.warning(
            "the index of %s is kept in memory: %s cannot be written: %s", path, where, error
        )
    return index, _stat(path)[1]


def _rebuild(path: epath.Path) -> str:
    return f"lvm_jax.data.records.tfrecord.build_index({str(path)!r})"


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
    """A mapped file; what is read is copied out, so that it stays as it was checked."""

    def __init__(self, path: str):
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size = len(self._map)

    def refresh(self) -> None:
        """Looks whether the file has been cut since: pages behind its end must not be touched."""
        self._size = min(self._size, self._map.size())

    def read(self, size: int, offset: int) -> bytes:
        end = offset + size
        return self._map[offset : end if end <= self._size else self._size]


class _RemoteFile:
    """A remote file read by seeking, one thread at a time."""

    def __init__(self, path: str):
        self._file = epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """A stored object is never cut, only replaced."""

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
            file = self._files[key]
        file.refresh()
        return file


_OPEN_FILES = _OpenFiles(MAX_OPEN_FILES)
