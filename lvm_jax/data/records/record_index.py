"""The index of a record file: where its records lie, what is in them, and which bytes they must be.

The index of `NAME` is the file `NAME.index` beside it:

| bytes | content |
|---|---|
| 8 | magic `LVMINDEX` |
| 4 | version, uint32: 2 |
| 4 | crc32c of everything after these 16 bytes |
| 8 | size of the data file, uint64 |
| 8 | number of records n, uint64 |
| 8 n | offset of each record, uint64 |
| 4 n | crc32c of its frame (length, data and their CRCs), uint32: one check for a reader, and an index that was made |
|     | for other records is found out at the first of them |
| 4 n | where its codes begin in its data, uint32 |
| 4 n | bytes of its codes, uint32; 0: it holds no sentence |
| 2 n | its largest code, uint16 |
| 2 n | its origin, uint16: a row of the table that ends the file |
| rest | JSON, a list of [source, category] |

With it rows are planned, sources are weighed and codes are read without parsing a record.
"""

import dataclasses
import json
import struct
from array import array

import crc32c
import numpy as np
from jaxtyping import UInt16, UInt32, UInt64

from lvm_jax.data.sentences.visual_sentence import NO_SENTENCE, Outline
from lvm_jax.errors import UserError

MAX_ORIGINS = 1 << 16
_MAGIC = b"LVMINDEX"
_VERSION = 2
_HEADER = struct.Struct("<8sII")
_COUNTS = struct.Struct("<QQ")
_COLUMNS = ("<u8", "<u4", "<u4", "<u4", "<u2", "<u2")
_MIN_FRAME = 16  # of a record without data


class BadIndex(Exception):
    """Why the bytes are not a usable index; the reader knows the file's name."""


class OldIndex(BadIndex):
    """An index of an earlier version: it can be made anew."""


@dataclasses.dataclass(frozen=True, eq=False)
class RecordIndex:
    """An index in memory, 24 bytes a record; the columns are those of the file.

    Attributes:
      origins: (source, category) by number.
    """

    data_size: int
    offsets: UInt64[np.ndarray, " n"]
    crcs: UInt32[np.ndarray, " n"]
    codes_at: UInt32[np.ndarray, " n"]
    codes_bytes: UInt32[np.ndarray, " n"]
    largest: UInt16[np.ndarray, " n"]
    origin: UInt16[np.ndarray, " n"]
    origins: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        """Number of records."""
        return len(self.offsets)

    def to_bytes(self) -> bytes:
        """The contents of the index file."""
        body = _COUNTS.pack(self.data_size, len(self))
        for column, dtype in zip(self._columns(), _COLUMNS, strict=True):
            body += np.ascontiguousarray(column, dtype).tobytes()
        body += json.dumps([list(origin) for origin in self.origins]).encode()
        return _HEADER.pack(_MAGIC, _VERSION, crc32c.crc32c(body)) + body

    @classmethod
    def from_bytes(cls, content: bytes) -> "RecordIndex":
        """Reads an index file; nothing is allocated by a number that has not been checked.

        Raises:
          OldIndex: an earlier version.
          BadIndex: cut short, damaged, or not an index.
        """
        if len(content) < _HEADER.size:
            raise BadIndex(f"is cut short at {len(content)} bytes")
        magic, version, crc = _HEADER.unpack_from(content)
        if magic == _MAGIC and 0 < version < _VERSION:
            raise OldIndex(f"is of version {version}, not {_VERSION}")
        if magic != _MAGIC or version != _VERSION:
            raise BadIndex(f"is not an index of version {_VERSION}")
        if len(content) < _HEADER.size + _COUNTS.size:
            raise BadIndex(f"is cut short at {len(content)} bytes")
        if crc32c.crc32c(memoryview(content)[_HEADER.size :]) != crc:
            raise BadIndex("is damaged (its CRC disagrees)")
        data_size, count = _COUNTS.unpack_from(content, _HEADER.size)
        at = _HEADER.size + _COUNTS.size
        columns = []
        for dtype in map(np.dtype, _COLUMNS):
            if count * dtype.itemsize > len(content) - at:
                raise BadIndex(f"is damaged: {count} records do not fit its {len(content)} bytes")
            columns.append(np.frombuffer(content, dtype, count, at))
            at += count * dtype.itemsize
        origins = _origins(content[at:])
        index = cls(data_size, *columns, origins=origins)  # pyright: ignore[reportCallIssue]
        index._check()
        return index

    def _columns(self) -> tuple[np.ndarray, ...]:
        return (
            self.offsets,
            self.crcs,
            self.codes_at,
            self.codes_bytes,
            self.largest,
            self.origin,
        )

    def _check(self) -> None:
        """That what it says is possible: a reader may then trust its numbers."""
        ends = np.append(self.offsets[1:], np.uint64(self.data_size)).astype(np.float64)
        sizes = ends - self.offsets - _MIN_FRAME
        if len(self) and (
            self.offsets[0] != 0
            or sizes.min() < 0
            or (self.codes_at.astype(np.float64) + self.codes_bytes > sizes)[
                self.codes_bytes > 0
            ].any()
            or (self.origin[self.codes_bytes > 0] >= len(self.origins)).any()
        ):
            raise BadIndex("is damaged: it describes records that cannot be")


class IndexBuilder:
    """Collects an index record by record."""

    def __init__(self) -> None:
        self._columns = tuple(array(code) for code in "QIIIHH")
        self._origins: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        """Records added so far."""
        return len(self._columns[0])

    def add(self, offset: int, crc: int, found: Outline = NO_SENTENCE) -> None:
        """Adds the record at `offset` whose frame has the CRC `crc`.

        Raises:
          UserError: more than `MAX_ORIGINS` pairs of source and category in one file.
        """
        origin = 0
        if found.codes_bytes:
            origin = self._origins.setdefault((found.source, found.category), len(self._origins))
            if origin == MAX_ORIGINS:
                raise UserError(
                    f"more than {MAX_ORIGINS} sources in one shard, the last is {found.source!r}: "
                    "`source` names a data set, `key` the item"
                )
        row = (offset, crc, found.codes_at, found.codes_bytes, found.largest, origin)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def finish(self, data_size: int) -> RecordIndex:
        """The index of all that was added, for a data file of `data_size` bytes."""
        columns = [
            np.asarray(column, dtype) for column, dtype in zip(self._columns, _COLUMNS, strict=True)
        ]
        return RecordIndex(data_size, *columns, origins=tuple(self._origins))  # pyright: ignore[reportCallIssue]


def _origins(text: bytes) -> tuple[tuple[str, int], ...]:
    try:
        return tuple((str(source), int(category)) for source, category in json.loads(text))
    except (ValueError, TypeError) as error:
        raise BadIndex("is damaged: its table of origins is not JSON") from error
