"""The record of a pool: one picture, one class in it, and what may be asked about it; and the schema of such records.

| feature | type | meaning |
|---|---|---|
| picture | bytes | codes, little-endian uint16 |
| boxed | bytes | codes of the picture with its boxes drawn, or nothing |
| mask | bytes | codes of the black and white picture of the mask, or nothing |
| caption | text | what is said about it; "" if nothing is |
| boxes | bytes | left, top, right, bottom as shares of the picture's edges, little-endian float32, four a box |
| class | text | name of the class |
| unseen | int64 | 1 if the class is kept from training |
| area | int64 | pixels of the mask, or of the boxes where there is none, in a picture of the tokenizer's size |
| shows | text | the photograph or scene; records that show the same one never share a row, nor are they in two splits |
| source | text | name of the data set |
| category | int64 | a number that the source gives itself |
| key | text | where it came from, stable and unique |
| licence | text | of picture and annotation |

Words are stored, not their ids: the same pool serves every text tokenizer.

Shape legend: N codes of a picture.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from lvm_jax.data.in_context.words import Box
from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_index import NOTHING, Facts, Schema
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.errors import UserError

CODE_TYPE = "<u2"
MOST_CODES = 1 << 16  # of a codebook
# Bits of the column `holds`.
MASK, CAPTION, BOXES, BOXED, UNSEEN = (1 << bit for bit in range(5))

Codes = Int[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True, eq=False)
class PoolRecord:
    """A picture and what may be asked about one class in it; the fields are those of the record (see the module)."""

    picture: Codes
    class_name: str
    shows: str
    source: str
    key: str
    licence: str
    mask: Codes | None = None
    boxed: Codes | None = None
    caption: str = ""
    boxes: tuple[Box, ...] = ()
    unseen: bool = False
    area: int = 0
    category: int = 0

    @property
    def holds(self) -> int:
        """The bits of what it has."""
        has = {
            MASK: self.mask is not None,
            CAPTION: bool(self.caption),
            BOXES: bool(self.boxes),
            BOXED: self.boxed is not None,
            UNSEEN: self.unseen,
        }
        return sum(bit for bit, is_there in has.items() if is_there)


class PoolWriter(TFRecordWriter):
    """Writes a shard of a pool; use it like `TFRecordWriter`."""

    def __init__(self, path: epath.PathLike):
        super().__init__(path, POOL)

    def add(self, record: PoolRecord) -> None:
        """Appends a record; errors as in `encode_pool_record`."""
        self.write(*encode_pool_record(record))


def name_hash(name: str) -> int:
    """64 bits of a class's or a picture's name, as the index has them."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def encode_pool_record(record: PoolRecord) -> tuple[bytes, Facts]:
    """A serialized `tf.train.Example`, and the facts that the index keeps; equal records give equal bytes.

    Raises:
      UserError: it cannot be asked about: no class, neither mask nor caption, a mask of another size, a box outside its
        picture, or a code that uint16 cannot hold.
    """
    problem = _problem(record)
    if problem:
        raise UserError(f"record {record.key!r} of {record.source!r}: {problem}")
    content = example.encode(
        {
            "picture": _to_bytes(record.picture),
            "boxed": _to_bytes(record.boxed),
            "mask": _to_bytes(record.mask),
            "caption": record.caption.encode(),
            "boxes": np.array(record.boxes, "<f4").tobytes(),
            "class": record.class_name.encode(),
            "unseen": int(record.unseen),
            "area": record.area,
            "shows": record.shows.encode(),
            "source": record.source.encode(),
            "category": record.category,
            "key": record.key.encode(),
            "licence": record.licence.encode(),
        }
    )
    return content, _facts(record)


def decode_pool_record(data: bytes) -> PoolRecord:
    """Decodes a record.

    Raises:
      CorruptRecord: not an Example of `POOL`, or one that cannot be asked about.
    """
    features = example.decode(data)
    caption, class_name, shows, source, key, licence = (
        _text(features, name) for name in ("caption", "class", "shows", "source", "key", "licence")
    )
    picture, boxed, mask = (_codes(features, name) for name in ("picture", "boxed", "mask"))
    if picture is None:
        raise CorruptRecord(f"record {key!r} has no picture")
    unseen, area, category = (_int(features, name) for name in ("unseen", "area", "category"))
    record = PoolRecord(
        picture=picture,
        class_name=class_name,
        shows=shows,
        source=source,
        key=key,
        licence=licence,
        mask=mask,
        boxed=boxed,
        caption=caption,
        boxes=_boxes(features),
        unseen=bool(unseen),
        area=area,
        category=category,
    )
    problem = _problem(record)
    if problem:
        raise CorruptRecord(f"record {record.key!r}: {problem}")
    return record


def box_problem(box: Sequence[float]) -> str:
    """Why shares of the edges are no box inside a picture; "" if they are one."""
    left, top, right, bottom = box
    if all(map(math.isfinite, box)) and 0 <= left <= right <= 1 and 0 <= top <= bottom <= 1:
        return ""
    return (
        f"box {tuple(box)} lies outside its picture: corners are shares of its edges, left to right and top to bottom, "
        "from 0 to 1"
    )


def _problem(record: PoolRecord) -> str:
    """Why a record cannot be asked about; "" if it can."""
    if not record.class_name or not record.shows:
        return "it names no class or no picture that it shows"
    if record.mask is None and not record.caption:
        return "it has neither a mask nor a caption: nothing can be asked about it"
    size = len(record.picture)
    for name, codes in (("mask", record.mask), ("boxed", record.boxed)):
        if codes is not None and len(codes) != size:
            return f"its {name} has {len(codes)} codes, its picture {size}: encode them at one size"
    return next(filter(None, map(box_problem, record.boxes)), "")


def _facts(record: PoolRecord) -> Facts:
    values = (name_hash(record.class_name), name_hash(record.shows), record.holds)
    return Facts(values, (record.source, record.category))


def _describe(data: bytes) -> Facts:
    # No error: an index also has to describe damaged and foreign records, whose readers count them.
    try:
        return _facts(decode_pool_record(data))
    except CorruptRecord:
        return NOTHING


POOL = Schema(
    columns=(("class_hash", "<u8"), ("shows_hash", "<u8"), ("holds", "<u2")),
    describe=_describe,
    features=(
        ("picture", "bytes"),
        ("boxed", "bytes"),
        ("mask", "bytes"),
        ("caption", "text"),
        ("boxes", "bytes"),
        ("class", "text"),
        ("unseen", "int"),
        ("area", "int"),
        ("shows", "text"),
        ("source", "text"),
        ("category", "int"),
        ("key", "text"),
        ("licence", "text"),
    ),
    description="Pictures by class, each with codes of its mask, or words; codes are little-endian uint16.",
)


def _to_bytes(codes: Codes | None) -> bytes:
    if codes is None:
        return b""
    if codes.size and not 0 <= codes.min() <= codes.max() < MOST_CODES:
        raise UserError(
            f"codes are {codes.min()}..{codes.max()}: a pool holds at most {MOST_CODES} different ones"
        )
    return codes.astype(CODE_TYPE).tobytes()


def _codes(features: Mapping[str, Any], name: str) -> Codes | None:
    content = _one(features, name, bytes)
    if len(content) % 2:
        raise CorruptRecord(f"feature {name!r} has {len(content)} bytes, codes have two each")
    return np.frombuffer(content, CODE_TYPE).astype(np.int32) if content else None


def _boxes(features: Mapping[str, Any]) -> tuple[Box, ...]:
    content = _one(features, "boxes", bytes)
    if len(content) % 16:
        raise CorruptRecord(f"feature 'boxes' has {len(content)} bytes, boxes have 16 each")
    return tuple(tuple(box) for box in np.frombuffer(content, "<f4").reshape(-1, 4).tolist())


def _text(features: Mapping[str, Any], name: str) -> str:
    try:
        return _one(features, name, bytes).decode()
    except UnicodeDecodeError as error:
        raise CorruptRecord(f"its {name} is not UTF-8: {error}") from error


def _int(features: Mapping[str, Any], name: str) -> int:
    return _one(features, name, int)


def _one(features: Mapping[str, Any], name: str, kind: type) -> Any:
    values = features.get(name, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        raise CorruptRecord(f"feature {name!r} is not one value of type {kind.__name__}")
    return values[0]
