"""The index of a record file: where its records lie, what their bytes must be, and what a schema says of each.

The index of `NAME` is the file `NAME.index` beside it, little-endian:

| bytes | content |
|---|---|
| 8 | magic `LVMINDEX` |
| 4 | version, uint32: 2 or 3 |
| 4 | crc32c of everything after these 16 bytes |
| 8 | size of the data file, uint64 |
| 8 | number of records n, uint64 |
| 4 | version 3 only: bytes of the JSON text that follows, uint32 |
| as many | version 3 only: JSON, `{"columns": [[NAME, TYPE], ...], "origins": [[SOURCE, CATEGORY], ...]}` |
| 8 n | offset of each record, uint64 |
| 4 n | crc32c of each frame (length, data and their CRCs), uint32: one check for a reader, which also finds out an |
|     | index of other records at the first of them |
| k n | each column of the schema, in order; a record with 0 in all of them holds nothing of the schema |
| 2 n | the origin of each record, uint16: a row of the table of origins |
| rest | version 2 only: the table of origins, JSON, a list of [source, category] |

Version 2 is for visual sentences with uint16 codes, as they were indexed before their periods were. It names no columns
because they are always these: `codes_at` uint32, where the codes begin in the record's data; `codes_bytes` uint32;
`largest` uint16, the largest code. Everything else is version 3, which names its columns.

Two columns `X_at` and `X_bytes` locate bytes inside a record's data: with them the loader plans rows, weights sources
and reads ids without parsing a record.

Shape legend: N records.
"""

import dataclasses
import json
import struct
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import google_crc32c
import numpy as np
from etils import epath
from jaxtyping import UInt16, UInt32, UInt64

from lvm_jax import files
from lvm_jax.data.records.framing import FRAME_BYTES
from lvm_jax.errors import BadData, UserError

MAX_ORIGINS = 1 << 16
_MAGIC = b"LVMINDEX"
_OLDEST, _NAMED = 2, 3
_VERSION_2 = (("codes_at", "<u4"), ("codes_bytes", "<u4"), ("largest", "<u2"))
_TYPES = {"<u2": "H", "<u4": "I", "<u8": "Q"}  # type of a column -> type code of an `array`
_HEADER = struct.Struct("<8sII")
_COUNTS = struct.Struct("<QQ")
_TEXT_BYTES = struct.Struct("<I")

Origins = tuple[tuple[str, int], ...]
Columns = tuple[tuple[str, str], ...]


class Facts(NamedTuple):
    """What an index says of one record; the default says that it holds nothing of the schema.

    Attributes:
      values: one a column; empty: 0 in every column.
      origin: (source, category) of the record.
    """

    values: tuple[int, ...] = ()
    origin: tuple[str, int] | None = None


NOTHING = Facts()


@dataclasses.dataclass(frozen=True)
class Schema:
    """What the records of a file are, and what its index says of each besides its place.

    Attributes:
      columns: (name, type) of each number that the index keeps; a type is "<u2", "<u4" or "<u8".
      describe: finds the facts in a record's data; `NOTHING` for a record of another schema.
      features: (name, kind) of each feature of a record, for TFDS; a kind is "bytes", "list of bytes", "int" or "text".
      description: what the records are, in a sentence.
      optional: names of columns that an index may lack, because older ones do. Who needs them opens files with a schema
        in which they are not optional.
    """

    columns: Columns
    describe: Callable[[bytes], Facts]
    features: tuple[tuple[str, Literal["bytes", "list of bytes", "int", "text"]], ...] = ()
    description: str = ""
    optional: tuple[str, ...] = ()

    def accepts(self, columns: Columns) -> bool:
        """Whether an index with these columns will do."""
        needed = {column for column in self.columns if column[0] not in self.optional}
        return needed <= set(columns) <= set(self.columns)

    def __post_init__(self) -> None:
        for name, kind in self.columns:
            if kind not in _TYPES:
                raise UserError(
                    f"column {name!r} of an index has type {kind!r}: it must be one of {', '.join(_TYPES)}"
                )


BARE = Schema((), lambda record: NOTHING)  # locates records and says nothing else of them


class BadIndex(BadData):
    """Says why bytes are not a usable index; the caller adds the file's name."""


class OldIndex(BadIndex):
    """An index of an earlier version or another schema, which can be made anew."""


def index_path(path: epath.PathLike) -> epath.Path:
    """The path of the index of the record file `path`."""
    path = epath.Path(path)
    return path.with_name(path.name + ".index")


def write_index(path: epath.Path, index: "RecordIndex") -> None:
    """Writes the index of the record file `path` atomically."""
    final = index_path(path)
    with files.replacing(final) as temporary, temporary.open("wb") as file:
        file.write(index.to_bytes())
        files.sync(file, final)


@dataclasses.dataclass(frozen=True, eq=False)
class RecordIndex:
    """An index in memory: 14 bytes a record plus the columns. `index[NAME]` is the column of that name.

    Attributes:
      data_size: size of the record file in bytes.
      offsets: of each frame, in bytes.
      crcs: of each frame.
      columns: of the schema, by name, in order.
      origin: of each record, a row of `origins`.
      origins: (source, category) by number.
    """

    data_size: int
    offsets: UInt64[np.ndarray, " N"]
    crcs: UInt32[np.ndarray, " N"]
    columns: Mapping[str, np.ndarray]
    origin: UInt16[np.ndarray, " N"]
    origins: Origins

    def __len__(self) -> int:
        """Number of records."""
        return len(self.offsets)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column of the schema."""
        return self.columns[name]

    @property
    def schema_columns(self) -> Columns:
        """Names and types of the columns."""
        return tuple((name, column.dtype.str) for name, column in self.columns.items())

    def to_bytes(self) -> bytes:
        """The contents of the index file."""
        origins = [list(origin) for origin in self.origins]
        # An index without periods that is written again keeps its bytes.
        named = self.schema_columns != _VERSION_2
        body = [_COUNTS.pack(self.data_size, len(self))]
        if named:
            text = json.dumps({"columns": self.schema_columns, "origins": origins}).encode()
            body += [_TEXT_BYTES.pack(len(text)), text]
        for kind, column in zip(
            _stored(self.schema_columns),
            (self.offsets, self.crcs, *self.columns.values(), self.origin),
            strict=True,
        ):
            body.append(np.ascontiguousarray(column, kind).tobytes())
        if not named:
            body.append(json.dumps(origins).encode())
        content = b"".join(body)
        version = _NAMED if named else _OLDEST
        return _HEADER.pack(_MAGIC, version, google_crc32c.value(content)) + content

    @classmethod
    def from_bytes(cls, content: bytes) -> "RecordIndex":
        """Reads an index file; allocates nothing by an unchecked number, and the arrays are views of `content`.

        Raises:
          OldIndex: an earlier version.
          BadIndex: cut short, damaged, or not an index.
        """
        version = _checked_version(content)
        at = _HEADER.size + _COUNTS.size
        data_size, count = _COUNTS.unpack_from(content, _HEADER.size)
        named, origins = _VERSION_2, ()
        if version == _NAMED:
            named, origins, at = _read_text(content, at)
        arrays = []
        # A sound CRC does not make the count right: check it before each array.
        for kind in map(np.dtype, _stored(named)):
            if count * kind.itemsize > len(content) - at:
                raise BadIndex(f"is damaged: {count} records do not fit its {len(content)} bytes")
            arrays.append(np.frombuffer(content, kind, count, at))
            at += count * kind.itemsize
        if version == _OLDEST:
            origins = _origins(_json(content[at:]))
        offsets, crcs, *values, origin = arrays
        columns = dict(zip((name for name, _ in named), values, strict=True))
        index = cls(data_size, offsets, crcs, columns, origin, origins)
        index._check()
        return index

    def _check(self) -> None:
        """Checks that its numbers are possible, so that a reader may trust them."""
        if not len(self):
            return
        # In float64, exact to 2^53: unsigned numbers would wrap around just where an offset is impossible.
        ends = np.append(self.offsets[1:], np.uint64(self.data_size)).astype(np.float64)
        sizes = ends - self.offsets - FRAME_BYTES
        possible = self.offsets[0] == 0 and sizes.min() >= 0
        for name, size in self.columns.items():
            at = self.columns.get(name.removesuffix("_bytes") + "_at")
            if name.endswith("_bytes") and at is not None:
                inside = at.astype(np.float64) + size <= sizes
                possible = possible and bool(inside[size > 0].all())
        # A record that holds nothing has origin 0, even if the table of origins is empty.
        described = np.zeros(len(self), bool)
        for column in self.columns.values():
            described |= column > 0
        if not possible or (self.origin[described] >= len(self.origins)).any():
            raise BadIndex("is damaged: it describes records that cannot be")


class IndexBuilder:
    """Collects an index record by record."""

    def __init__(self, schema: Schema) -> None:
        self._columns = schema.columns
        # `array` stores plain numbers and grows in place: a list of ints would take several times the memory.
        self._arrays = tuple(array(_TYPES[kind]) for kind in _stored(schema.columns))
        self._origins: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        """Records added so far."""
        return len(self._arrays[0])

    def add(self, offset: int, crc: int, facts: Facts = NOTHING) -> None:
        """Adds the record at `offset`, whose frame has the CRC `crc`.

        Raises:
          UserError: more than `MAX_ORIGINS` pairs of source and category in one file.
        """
        origin = 0
        if facts.origin is not None:
            origin = self._origins.setdefault(facts.origin, len(self._origins))
            if origin == MAX_ORIGINS:
                raise UserError(
                    f"more than {MAX_ORIGINS} sources in one shard, the last is {facts.origin[0]!r}: "
                    "`source` names a data set, `key` the item"
                )
        values = facts.values or (0,) * len(self._columns)
        for column, value in zip(self._arrays, (offset, crc, *values, origin), strict=True):
            column.append(value)

    def finish(self, data_size: int) -> RecordIndex:
        """The index of all records added, for a data file of `data_size` bytes."""
        arrays = [
            np.asarray(column, kind)
            for column, kind in zip(self._arrays, _stored(self._columns), strict=True)
        ]
        offsets, crcs, *values, origin = arrays
        columns = dict(zip((name for name, _ in self._columns), values, strict=True))
        return RecordIndex(data_size, offsets, crcs, columns, origin, tuple(self._origins))


def _stored(columns: Columns) -> tuple[str, ...]:
    """The types of all arrays in an index file, in order: offset, CRC, the schema's columns, origin."""
    return ("<u8", "<u4", *(kind for _, kind in columns), "<u2")


def _checked_version(content: bytes) -> int:
    """Checks an index's CRC and that its counts are there; returns its version."""
    if len(content) < _HEADER.size:
        raise BadIndex(f"is cut short at {len(content)} bytes")
    magic, version, crc = _HEADER.unpack_from(content)
    if magic == _MAGIC and 0 < version < _OLDEST:
        raise OldIndex(f"is of version {version}, not {_OLDEST}")
    if magic != _MAGIC or version not in (_OLDEST, _NAMED):
        raise BadIndex(f"is not an index of version {_OLDEST} or {_NAMED}")
    if len(content) < _HEADER.size + _COUNTS.size:
        raise BadIndex(f"is cut short at {len(content)} bytes")
    # As an array: google_crc32c takes no memoryview, and slicing the bytes would copy the whole index.
    body: Any = np.frombuffer(content, np.uint8, offset=_HEADER.size)
    if google_crc32c.value(body) != crc:
        raise BadIndex("is damaged (its CRC disagrees)")
    return version


def _read_text(content: bytes, at: int) -> tuple[Columns, Origins, int]:
    """Reads the columns and origins at byte `at` of version 3; also returns where the arrays begin."""
    begin = at + _TEXT_BYTES.size
    if begin > len(content):
        raise BadIndex(f"is cut short at {len(content)} bytes")
    end = begin + _TEXT_BYTES.unpack_from(content, at)[0]
    text: Any = _json(content[begin:end])
    try:
        columns = tuple((str(name), str(kind)) for name, kind in text["columns"])
        origins = text["origins"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadIndex("is damaged: it does not name its columns") from error
    if len(dict(columns)) != len(columns) or not {kind for _, kind in columns} <= set(_TYPES):
        raise BadIndex(f"is damaged: its columns are {str(columns)[:200]}")
    return columns, _origins(origins), end


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadIndex("is damaged: its table of origins is not JSON") from error


def _origins(table: object) -> Origins:
    try:
        return tuple((str(source), int(category)) for source, category in table)  # pyright: ignore[reportGeneralTypeIssues]
    except (ValueError, TypeError) as error:
        raise BadIndex("is damaged: its table of origins is not a list of pairs") from error
