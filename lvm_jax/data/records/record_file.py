"""Reading a record file: random access, a CRC check on every read, and an index made on demand.

A file that TensorFlow or TFDS wrote has no index: it is scanned once, and the index is written beside it. If the folder
is read-only, the index stays in memory, with a warning.
"""

import functools
from collections.abc import Iterator
from typing import NoReturn

import google_crc32c
import numpy as np
from absl import logging
from etils import epath

from lvm_jax.data.records import open_files
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.framing import (
    DATA_AT,
    FRAME_BYTES,
    MAX_RECORD_BYTES,
    TAIL_BYTES,
    check_frame,
    checked_length,
    is_sound,
)
from lvm_jax.data.records.open_files import Bytes
from lvm_jax.data.records.record_index import (
    BARE,
    NOTHING,
    BadIndex,
    IndexBuilder,
    OldIndex,
    RecordIndex,
    Schema,
    index_path,
    write_index,
)
from lvm_jax.errors import UserError

_SPOT_CHECKS = 8  # records that are read if a shard is newer than its index


class RecordFile:
    """Random access to the records of one file: `len(f)`, `f[i] -> bytes`. Threads may share it.

    Args:
      path: of the file, local or remote. A local file is mapped; a remote one is read by seeking.
      schema: what the index must say of each record; any other index is made anew. None accepts any index.

    Attributes:
      path: of the file.
      index: see `record_index`; made, and written beside the file, if there is none or an old one.
      frames: the same bytes, for callers who keep the numbers of the index themselves.

    Raises:
      UserError: the file is missing, damaged or cut short, or its index is damaged or belongs to another file.
    """

    def __init__(self, path: epath.PathLike, schema: Schema | None = None):
        self.path = epath.Path(path)
        size, version = open_files.stat(self.path)
        self.index, written = _open_index(self.path, schema)
        self.frames = FrameReader(self.path, version)
        if size < self.index.data_size:
            raise UserError(
                f"{self.path} is cut short: {size} bytes of the {self.index.data_size} in its index; "
                "copy or build it again"
            )
        if size != self.index.data_size:
            raise UserError(
                f"{index_path(self.path)} is of another file: it says {self.index.data_size} bytes, "
                f"{self.path.name} has {size}; {_REBUILD}"
            )
        if version > written:
            # Either the files were copied in this order, or the shard was written anew: a few records tell which.
            for i in np.linspace(0, len(self) - 1, min(len(self), _SPOT_CHECKS)).astype(int):
                try:
                    self[int(i)]
                except CorruptRecord:
                    continue  # damage, not another shard: whoever reads the record counts it

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> bytes:
        """Record `i`; negative `i` counts from the end.

        Raises:
          IndexError: no such record.
          CorruptRecord: a CRC or the length disagrees with the bytes; the message names file, record and offset.
          UserError: the record is sound, but the index was made for another one.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"record {i} of {len(self)} in {self.path}")
        i %= len(self)
        begin = int(self.index.offsets[i])
        # The index has no sizes: frames lie back to back, so a record ends where the next one begins.
        end = int(self.index.offsets[i + 1]) if i + 1 < len(self) else self.index.data_size
        framed = self.frames.read(begin, end - begin, int(self.index.crcs[i]), i)
        return framed[DATA_AT:-TAIL_BYTES]

    def __iter__(self) -> Iterator[bytes]:
        return (self[i] for i in range(len(self)))


class FrameReader:
    """The checked bytes of a record file, for callers who know where the records lie.

    Attributes:
      path: of the file.
    """

    def __init__(self, path: epath.Path, version: int):
        self.path = path
        self._file = (str(path), version)

    def read(self, begin: int, size: int, crc: int, i: int) -> bytes:
        """Record `i` in its frame (the data begin at `DATA_AT`).

        Args:
          begin, size: where the index says the frame lies, in bytes.
          crc: what the index says its CRC is.
          i: for messages.

        Raises: as in `RecordFile`.
        """
        framed = self.open()[begin : begin + size]
        if google_crc32c.value(framed) != crc:
            self.explain(framed, begin, size, i)
        return framed

    def open(self) -> Bytes:
        """The file, for `[begin:end]` of many frames; do not keep it, or its descriptor stays open."""
        return open_files.OPEN_FILES.get(*self._file)

    def explain(self, framed: bytes, begin: int, size: int, i: int) -> NoReturn:
        """Raises what is wrong with a frame whose CRC differs from the index's."""
        where = f"record {i} of {self.path} at byte {begin}"
        try:
            if len(framed) != size:
                raise CorruptRecord(f"{len(framed)} bytes of {size} could be read")
            check_frame(framed)
        except CorruptRecord as error:
            raise CorruptRecord(f"{where}: {error}") from error
        raise UserError(
            f"{where} is sound, but not the one in {index_path(self.path).name}, which is older than its shard or of "
            f"another: {_REBUILD}"
        )


_REBUILD = "rebuild it by deleting it, and it is made anew when the file is next opened"


def build_index(path: epath.PathLike, schema: Schema = BARE) -> int:
    """Scans a record file and writes its index, replacing any other.

    Returns:
      The number of records.

    Raises:
      UserError: see `scan`.
    """
    path = epath.Path(path)
    index = scan(path, schema)
    write_index(path, index)
    return len(index)


def scan(path: epath.Path, schema: Schema = BARE) -> RecordIndex:
    """Makes the index of a record file by reading all of it.

    Memory holds one record and the index. A record whose data disagree with their CRC is indexed as empty, and its
    reader counts it.

    Raises:
      UserError: the file is missing or ends within a record, or a length is damaged, so that the rest cannot be found.
    """
    size, _ = open_files.stat(path)
    builder, position = IndexBuilder(schema), 0
    with path.open("rb") as file:
        while position < size:
            where = f"{path} at byte {position}, after {len(builder)} whole records"
            head = file.read(DATA_AT)
            length = _length_within(head, size - position, where)
            data, tail = file.read(length), file.read(TAIL_BYTES)
            crc = functools.reduce(google_crc32c.extend, (head, data, tail), 0)
            if is_sound(data, tail):
                builder.add(position, crc, schema.describe(data))
            else:
                # Readers compare with the index's CRC only: the true CRC would let the damaged record pass.
                builder.add(position, crc ^ 1, NOTHING)
            position += FRAME_BYTES + length
    return builder.finish(size)


def _length_within(head: bytes, left: int, where: str) -> int:
    """The bytes of data in the frame that begins with `head`, when `left` bytes of the file are left."""
    try:
        length = checked_length(head)
    except CorruptRecord as error:
        raise UserError(
            f"{where}: {error}: not a TFRecord file, or damaged; copy or write it again"
        ) from error
    if length > MAX_RECORD_BYTES:
        raise UserError(
            f"{where}: a record of {length} bytes exceeds {MAX_RECORD_BYTES}; write it again"
        )
    if length > left - FRAME_BYTES:
        raise UserError(
            f"{where}: cut short, {left} of {length + FRAME_BYTES} bytes; copy it again"
        )
    return length


def _open_index(path: epath.Path, schema: Schema | None) -> tuple[RecordIndex, int]:
    """The index of a record file, and when it was written (the version that `open_files.stat` gives)."""
    where = index_path(path)
    try:
        if where.exists():
            index = RecordIndex.from_bytes(where.read_bytes())
            if schema is not None and not schema.accepts(index.schema_columns):
                names = [name for name, _ in index.schema_columns]
                raise OldIndex(f"says {', '.join(names) or 'nothing'} of each record")
            return index, open_files.stat(where)[1]
    except OldIndex as error:
        logging.warning("%s %s: it is made anew", where, error)
    except BadIndex as error:
        raise UserError(f"{where} {error}: {_REBUILD}") from error
    index = scan(path, schema or BARE)
    try:
        write_index(path, index)
    except OSError as error:
        logging.warning(
            "the index of %s is kept in memory: %s cannot be written: %s", path, where, error
        )
    return index, open_files.stat(path)[1]
