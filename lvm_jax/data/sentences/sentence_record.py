"""The record of a visual sentence, and the schema of such records.

A record is a `tf.train.Example` of the codes, without BOS and EOS, and where they came from:

| feature | type | meaning |
|---|---|---|
| codes | bytes | little-endian uint16, n_images * tokens_per_image |
| source | bytes | name of the data set |
| category | int64 | `Category` |
| key | bytes | where it came from, stable and unique |
| layout | bytes | the roles of its images in order: `image,depth,image,depth` or `frame*16` |

With a codebook of more than 65536 codes, `tokens`, little-endian uint32, takes the place of `codes`.
"""

import dataclasses
from typing import NamedTuple, TypeVar

import numpy as np
from etils import epath

from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_index import NOTHING, Facts, Schema
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.data.sentences.visual_sentence import (
    CATEGORIES,
    VisualSentence,
    layout_period,
    problem_of,
)
from lvm_jax.errors import UserError

T = TypeVar("T", bytes, int)

_NARROW_CODES = 1 << 16  # the largest codebook whose codes fit uint16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceSchema(Schema):
    """A schema of sentences with codes of a given width.

    Attributes:
      feature: the feature that holds the codes.
      id_type: type of a code, little-endian.
    """

    feature: str
    id_type: str

    @property
    def id_bytes(self) -> int:
        """Bytes of a code."""
        return np.dtype(self.id_type).itemsize


class Outline(NamedTuple):
    """What one can say of a record without its tokenizer: enough to pack rows, weight sources and find the codes.

    Attributes:
      codes_at: where the codes begin in the record, in bytes.
      codes_bytes: their length; 0 if the record is not a sentence.
      largest: the largest code.
      period: images of the shortest group of roles that its layout repeats; 0 if the layout cannot be read.
      source: name of the data set that the sentence came from.
      category: see `Category`.
    """

    codes_at: int
    codes_bytes: int
    largest: int
    period: int
    source: str
    category: int

    def facts(self) -> Facts:
        """The record's facts for the index."""
        return Facts(self[:4], self[4:]) if self.codes_bytes else NOTHING


NO_SENTENCE = Outline(0, 0, 0, 0, "", 0)


def _schema(feature: str, id_type: str) -> SentenceSchema:
    name = np.dtype(id_type).name
    return SentenceSchema(
        columns=(
            (f"{feature}_at", "<u4"),
            (f"{feature}_bytes", "<u4"),
            ("largest", id_type),
            ("period", "<u4"),
        ),
        describe=lambda record: _outline(record, feature, id_type).facts(),
        features=(
            (feature, "bytes"),
            ("source", "text"),
            ("category", "int"),
            ("key", "text"),
            ("layout", "text"),
        ),
        description=f"Visual sentences; {feature} are little-endian {name}, see manifest.json.",
        optional=("period",),
        feature=feature,
        id_type=id_type,
    )


SENTENCES = _schema("codes", "<u2")
WIDE_SENTENCES = _schema("tokens", "<u4")


def schema_of(codebook_size: int) -> SentenceSchema:
    """The schema of sentences whose codes are 0..codebook_size - 1."""
    return SENTENCES if codebook_size <= _NARROW_CODES else WIDE_SENTENCES


class SentenceWriter(TFRecordWriter):
    """Writes a shard of sentences; use it like `TFRecordWriter`.

    Args:
      path: of the shard.
      schema: `schema_of` the tokenizer's codebook.
    """

    def __init__(self, path: epath.PathLike, schema: SentenceSchema = SENTENCES):
        super().__init__(path, schema)
        self._id_type = schema.id_type

    def add(self, sentence: VisualSentence) -> None:
        """Appends a sentence.

        Raises:
          UserError: see `encode_example`; also if the codes' width is not the schema's, or the record is too long.
        """
        if sentence.codes.dtype != np.dtype(self._id_type):
            raise UserError(
                f"codes of {sentence.key!r} are {sentence.codes.dtype}: those of {self.path} are "
                f"{np.dtype(self._id_type).name}; convert them"
            )
        self.write(*encode_with_facts(sentence))


def encode_with_facts(sentence: VisualSentence) -> tuple[bytes, Facts]:
    """Encodes a sentence, and gives the record's facts for the index without parsing it again."""
    record = encode_example(sentence)
    # Little-endian first, as they are stored; `copy=False` makes that free on most machines.
    codes = sentence.codes.astype(sentence.codes.dtype.newbyteorder("<"), copy=False).tobytes()
    outline = Outline(
        record.index(codes),  # an earlier chance match would do: readers want these very bytes
        len(codes),
        int(sentence.codes.max()),
        layout_period(sentence.layout),
        sentence.source,
        int(sentence.category),
    )
    return record, outline.facts()


def encode_example(sentence: VisualSentence) -> bytes:
    """Encodes a sentence as a serialized `tf.train.Example`; equal sentences give equal bytes.

    Raises:
      UserError: the codes are not a uint16 or uint32 matrix with one image a row, the category is unknown, or layout
        and codes disagree on the number of images.
    """
    codes = sentence.codes
    schema = {2: SENTENCES, 4: WIDE_SENTENCES}.get(codes.dtype.itemsize)
    if codes.ndim != 2 or codes.dtype.kind != "u" or schema is None or codes.size == 0:
        raise UserError(
            f"codes of {sentence.key!r} are {codes.dtype} {codes.shape}: "
            "they must be uint16 or uint32 (n_images, tokens_per_image)"
        )
    problem = problem_of(sentence.category, sentence.layout, len(codes))
    if problem:
        raise UserError(f"sentence {sentence.key!r} of {sentence.source!r}: {problem}")
    return example.encode(
        {
            schema.feature: codes.astype(schema.id_type).tobytes(),
            "source": sentence.source.encode(),
            "category": int(sentence.category),
            "key": sentence.key.encode(),
            "layout": sentence.layout.encode(),
        }
    )


def decode_example(data: bytes, *, codebook_size: int, tokens_per_image: int) -> VisualSentence:
    """Decodes the sentence of a record.

    Raises:
      CorruptRecord: not an Example of `schema_of(codebook_size)`, a code >= `codebook_size`, a fraction of an image, an
        unknown category, or a layout with another number of images.
    """
    schema = schema_of(codebook_size)
    features = example.decode(data)
    raw = _single(features, schema.feature, bytes)
    try:
        source, key, layout = (
            _single(features, name, bytes).decode() for name in ("source", "key", "layout")
        )
    except UnicodeDecodeError as error:
        raise CorruptRecord(f"its text is not UTF-8: {error}") from error
    category = _single(features, "category", int)
    image_bytes = schema.id_bytes * tokens_per_image
    if not raw or len(raw) % image_bytes:
        raise CorruptRecord(
            f"sentence {key!r} has {len(raw)} bytes of codes: whole images are {image_bytes} bytes each"
        )
    codes = np.frombuffer(raw, schema.id_type).reshape(-1, tokens_per_image)
    largest = int(codes.max())
    if largest >= codebook_size:
        raise CorruptRecord(
            f"sentence {key!r} has code {largest}: codes are 0..{codebook_size - 1}"
        )
    problem = problem_of(category, layout, len(codes))
    if problem:
        raise CorruptRecord(f"sentence {key!r}: {problem}")
    # In native byte order, the only one that JAX takes.
    return VisualSentence(
        codes.astype(codes.dtype.newbyteorder("="), copy=False), source, category, key, layout
    )


def outline(data: bytes) -> Outline:
    """The outline of a record; `NO_SENTENCE` unless it is an Example with one value each of codes, source, category."""
    return _outline(data, SENTENCES.feature, SENTENCES.id_type)


def _outline(data: bytes, feature: str, id_type: str) -> Outline:
    # No error: an index also has to describe damaged and foreign records, whose readers count them.
    try:
        features = example.decode(data)
        codes = _single(features, feature, bytes)
        source = _single(features, "source", bytes).decode()
        category = _single(features, "category", int)
    except (CorruptRecord, UnicodeDecodeError):
        return NO_SENTENCE
    if not codes or len(codes) % np.dtype(id_type).itemsize or category not in CATEGORIES:
        return NO_SENTENCE
    largest = int(np.frombuffer(codes, id_type).max())
    period = _period(features)
    return Outline(data.index(codes), len(codes), largest, period, source, category)


def _period(features: dict) -> int:
    try:
        return layout_period(_single(features, "layout", bytes).decode())
    except (CorruptRecord, UnicodeDecodeError, UserError):
        return 0


def _single(features: dict, name: str, kind: type[T]) -> T:
    values = features.get(name, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        raise CorruptRecord(f"feature {name!r} is not one value of type {kind.__name__}")
    return values[0]
