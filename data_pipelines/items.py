"""What an item is made of: lists of values by role, and each value of one kind.

| kind | value | from |
|---|---|---|
| picture | uint8 array (H, W, 3), RGB, any size | every source of this package |
| text | `Text` | captions, labels, questions |
| boxes | `Boxes` | detection sets |
| mask | `Mask` | segmentation sets |

A source loads items, a composer picks values from them, an encoding turns values into the fields of a record.
Composers and encodings say which kinds they take; another kind is a mistake in the recipe, reported in one line.

Shape legend: H, W of a picture, N boxes.
"""

import dataclasses
import enum
import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from lvm_jax.errors import UserError

Picture = UInt8[np.ndarray, "H W 3"]


class Kind(enum.StrEnum):
    """The kinds of values, named as in messages."""

    PICTURE = "picture"
    TEXT = "text"
    BOXES = "boxes"
    MASK = "mask"


@dataclasses.dataclass(frozen=True)
class Text:
    """Words as written."""

    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes in a picture.

    Attributes:
      corners_N4: (x0, y0, x1, y1) in pixels of the item's picture; x1 and y1 are exclusive.
      labels: the class of each box.
    """

    corners_N4: Float32[np.ndarray, "N 4"]
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """The pixels of one object or class."""

    inside_HW: Bool[np.ndarray, "H W"]

    @property
    def picture(self) -> Picture:
        """White inside, black outside."""
        return np.repeat(self.inside_HW[..., None].astype(np.uint8) * 255, 3, axis=2)


# A bare array is a picture: nearly all values are pictures, and a wrapper would add nothing.
Value = Picture | Text | Boxes | Mask
# By role: {"image": [x], "caption": [Text("a cat")]}.
Item = Mapping[str, Sequence[Value]]
PictureItem = dict[str, list[Picture]]  # {"image": [x], "depth": [d]}, {"frame": [x] * 48}


def kind_of(value: Value) -> Kind:
    """The kind of a value."""
    if isinstance(value, Text):
        return Kind.TEXT
    if isinstance(value, Boxes):
        return Kind.BOXES
    if isinstance(value, Mask):
        return Kind.MASK
    return Kind.PICTURE


def refuse_other_kinds(
    values: Iterable[Value], takes: Container[Kind], what: str, taker: str
) -> None:
    """Raises if the taker does not take a value's kind.

    Args:
      values: the values to hand over.
      takes: the kinds that the taker takes.
      what: names the values in the message, such as `role 'caption'`.
      taker: names the taker, such as `a sentence of pictures`.

    Raises:
      UserError: there is a value of another kind.
    """
    for value in values:
        kind = kind_of(value)
        if kind not in takes:
            known = " or ".join(k for k in Kind if k in takes)
            raise UserError(
                f"{what} holds {kind}, but {taker} takes {known}: name another role, composer or encoding in the recipe"
            )


def pictures(values: Sequence[Value], what: str, taker: str) -> list[Picture]:
    """The values, if all are pictures; arguments as in `refuse_other_kinds`.

    Raises:
      UserError: one of them is not.
    """
    refuse_other_kinds(values, (Kind.PICTURE,), what, taker)
    return [value for value in values if isinstance(value, np.ndarray)]


def drawn(values: Sequence[Value]) -> list[Value]:
    """What a tokenizer of pictures sees: pictures, and masks as pictures; no text."""
    return [
        value.picture if isinstance(value, Mask) else value
        for value in values
        if not isinstance(value, Text)
    ]


def num_bytes(value: Value) -> int:
    """Roughly the memory that a value takes."""
    if isinstance(value, Text):
        return len(value.words)
    if isinstance(value, Boxes):
        return value.corners_N4.nbytes
    return (value.inside_HW if isinstance(value, Mask) else value).nbytes


def digest(value: Value) -> bytes:
    """SHA-256 of kind and content: the same for equal values and no others."""
    found = hashlib.sha256(kind_of(value).encode())
    for part in _contents(value):
        found.update(part)
    return found.digest()


def _contents(value: Value) -> tuple[bytes, ...]:
    if isinstance(value, Text):
        return (value.words.encode(),)
    if isinstance(value, Boxes):
        return (*_of_array(value.corners_N4), "\0".join(value.labels).encode())
    return _of_array(value.inside_HW if isinstance(value, Mask) else value)


def _of_array(array: np.ndarray) -> tuple[bytes, bytes]:
    # The shape too: one row of 12 pixels and 3 rows of 4 have the same bytes.
    return str(array.shape).encode(), array.tobytes()
