"""A visual sentence, its record, and the ids around its codes.

A sentence is the codes of its images, one image after the other; a record holds them without BOS and EOS:

| feature | type | meaning |
|---|---|---|
| codes | bytes | little-endian uint16, n_images * tokens_per_image |
| source | bytes | name of the data set |
| category | int64 | `Category` |
| key | bytes | where it came from, stable and unique |
| layout | bytes | the roles of its images in order: `image,depth,image,depth` or `frame*16` |
"""

import dataclasses
import enum
import functools
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt16

from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.errors import UserError

T = TypeVar("T", bytes, int)

MAX_CODEBOOK_SIZE = 1 << 16
MAX_IMAGES = 1 << 16
_RESERVED_IDS = 100
_LAYOUT_PART = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\*([1-9][0-9]{0,5}))?")


class Category(enum.IntEnum):
    """The five kinds of UVD (LVM paper, section 3.1)."""

    UNLABELLED_IMAGE = 1
    ANNOTATED_IMAGE = 2
    UNLABELLED_VIDEO = 3
    ANNOTATED_VIDEO = 4
    OBJECT_3D = 5


_CATEGORIES = frozenset(Category)


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """The ids above the codes `0..codebook_size-1`. As published, 100 ids are reserved, of which three are in use."""

    codebook_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise UserError(
                f"codebook_size is {self.codebook_size}: codes are uint16, so it must be 1..{MAX_CODEBOOK_SIZE}"
            )

    @property
    def bos(self) -> int:
        """Begins a sentence."""
        return self.codebook_size

    @property
    def eos(self) -> int:
        """Ends a sentence."""
        return self.codebook_size + 1

    @property
    def pad(self) -> int:
        """Fills a row where there is no sentence."""
        return self.codebook_size + 2

    @property
    def vocab_size(self) -> int:
        """Codes and reserved ids together."""
        return self.codebook_size + _RESERVED_IDS


@dataclasses.dataclass(frozen=True, eq=False)
class VisualSentence:
    """The codes of a sequence of images, and where they came from."""

    codes: UInt16[np.ndarray, "n_images tokens_per_image"]
    source: str
    category: int
    key: str
    layout: str

    @property
    def roles(self) -> list[str]:
        """The role of each image."""
        return expand_layout(self.layout)


def encode_example(sentence: VisualSentence) -> bytes:
    """The record of a sentence, a serialized `tf.train.Example`; equal sentences give equal bytes.

    Raises:
      UserError: codes that are not a uint16 matrix with an image a row, an unknown category, or a layout that has
        another number of images than the codes.
    """
    codes = sentence.codes
    if codes.ndim != 2 or codes.dtype != np.uint16 or codes.size == 0:
        raise UserError(
            f"codes of {sentence.key!r} are {codes.dtype} {codes.shape}: "
            "they must be uint16 (n_images, tokens_per_image)"
        )
    problem = _problem(sentence.category, sentence.layout, len(codes))
    if problem:
        raise UserError(f"sentence {sentence.key!r} of {sentence.source!r}: {problem}")
    return example.encode(
        {
            "codes": codes.astype("<u2").tobytes(),
            "source": sentence.source.encode(),
            "category": int(sentence.category),
            "key": sentence.key.encode(),
            "layout": sentence.layout.encode(),
        }
    )


def decode_example(data: bytes, *, codebook_size: int, tokens_per_image: int) -> VisualSentence:
    """The sentence of a record.

    Raises:
      CorruptRecord: not an Example of this schema, a code >= `codebook_size`, a fraction of an image, an unknown
        category, or a layout of another number of images.
    """
    features = example.decode(data)
    raw = _single(features, "codes", bytes)
    try:
        source, key, layout = (
            _single(features, name, bytes).decode() for name in ("source", "key", "layout")
        )
    except UnicodeDecodeError as error:
        raise CorruptRecord(f"its text is not UTF-8: {error}") from error
    category = _single(features, "category", int)
    if not raw or len(raw) % (2 * tokens_per_image):
        raise CorruptRecord(
            f"sentence {key!r} has {len(raw)} bytes of codes: whole images are {2 * tokens_per_image} bytes each"
        )
    codes = np.frombuffer(raw, "<u2").reshape(-1, tokens_per_image)
    largest = int(codes.max())
    if largest >= codebook_size:
        raise CorruptRecord(
            f"sentence {key!r} has code {largest}: codes are 0..{codebook_size - 1}"
        )
    problem = _problem(category, layout, len(codes))
    if problem:
        raise CorruptRecord(f"sentence {key!r}: {problem}")
    return VisualSentence(codes.astype(np.uint16, copy=False), source, category, key, layout)


class Outline(NamedTuple):
    """What the index of a shard says of a record: enough to plan rows, to weigh sources, and to find the codes.

    Attributes:
      codes_at: where the codes begin in the record, in bytes.
      codes_bytes: their length; 0: the record is no sentence.
      largest: the largest code.
      source: name of the data set the sentence came from.
      category: see `Category`.
    """

    codes_at: int
    codes_bytes: int
    largest: int
    source: str
    category: int


NO_SENTENCE = Outline(0, 0, 0, "", 0)


def outline(data: bytes) -> Outline:
    """The outline of a record; `NO_SENTENCE` where it is no Example with codes, source and category, one of each."""
    try:
        features = example.decode(data)
        codes = _single(features, "codes", bytes)
        source = _single(features, "source", bytes).decode()
        category = _single(features, "category", int)
    except (CorruptRecord, UnicodeDecodeError):
        return NO_SENTENCE
    if not codes or len(codes) % 2 or category not in _CATEGORIES:
        return NO_SENTENCE
    # Any place where these very bytes lie will do.
    return Outline(
        data.index(codes), len(codes), int(np.frombuffer(codes, "<u2").max()), source, category
    )


def expand_layout(layout: str) -> list[str]:
    """The role of each image: `"frame*3,mask"` gives `["frame", "frame", "frame", "mask"]`.

    Raises:
      UserError: a part that is not `role` or `role*N`, or more than `MAX_IMAGES` images.
    """
    return list(_expand(layout))


def compact_layout(roles: Sequence[str]) -> str:
    """The inverse of `expand_layout`: runs of a role become `role*N`.

    Raises:
      UserError: no role at all, or one with other characters than letters, digits, `_` and `-`.
    """
    runs = [(role, len(list(group))) for role, group in itertools.groupby(roles)]
    layout = ",".join(role if count == 1 else f"{role}*{count}" for role, count in runs)
    if len(_expand(layout)) != len(roles):
        raise UserError(
            f"roles {list(roles)!r} do not survive in a layout: name them with letters, digits, _ and -"
        )
    return layout


@functools.lru_cache(maxsize=4096)  # a corpus has few layouts and many records
def _expand(layout: str) -> tuple[str, ...]:
    roles: list[str] = []
    for part in layout.split(","):
        match = _LAYOUT_PART.fullmatch(part)
        if not match:
            raise UserError(
                f"layout {layout!r} has the part {part!r}: write role or role*N, such as frame*16,mask"
            )
        count = int(match[2] or 1)
        if len(roles) + count > MAX_IMAGES:
            raise UserError(
                f"layout {layout!r} has more than {MAX_IMAGES} images: shorten the sentence"
            )
        roles += [match[1]] * count
    return tuple(roles)


def _problem(category: int, layout: str, n_images: int) -> str | None:
    """What is wrong with the fields around the codes, if anything."""
    if category not in _CATEGORIES:
        return f"category {category} is not one of {', '.join(f'{c.value} {c.name.lower()}' for c in Category)}"
    try:
        described = len(_expand(layout))
    except UserError as error:
        return str(error)
    if described != n_images:
        return f"layout {layout!r} describes {described} images, its codes are {n_images}"
    return None


def _single(features: dict, name: str, kind: type[T]) -> T:
    values = features.get(name, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        raise CorruptRecord(f"feature {name!r} is not one value of type {kind.__name__}")
    return values[0]
