"""The record of a conversation about pictures, and the schema of such records.

| feature | type | meaning |
|---|---|---|
| images | bytes, one value a picture | PNG, WebP or JPEG files, in the order of the placeholders; lossless for pages |
| conversation | text | the published list of {from, value} as JSON, see `conversation` |
| source | text | name of the data set |
| category | int64 | a number that the source gives itself |
| key | text | where it came from, stable and unique |
| licence | text | of pictures and words |
| facets | text, any number of values | `NAME=VALUE` of what may not be in two splits, such as `font=DejaVuSans` |

Ids are not stored: the same shards serve every text tokenizer.
"""

import dataclasses

from etils import epath

from lvm_jax.data.image_text.conversation import BadConversation, Conversation
from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_index import NOTHING, Facts, Schema
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.errors import UserError

# How pictures may be stored. Other formats of Pillow are not opened: some start another program.
FORMATS = ("PNG", "WEBP", "JPEG")


@dataclasses.dataclass(frozen=True)
class ImageText:
    """A conversation about pictures, and where it came from; the fields are those of the record (see the module)."""

    images: tuple[bytes, ...]
    conversation: Conversation
    source: str
    key: str
    licence: str
    category: int = 0
    facets: tuple[str, ...] = ()


class ImageTextWriter(TFRecordWriter):
    """Writes a shard of image-text records; use it like `TFRecordWriter`."""

    def __init__(self, path: epath.PathLike):
        super().__init__(path, IMAGE_TEXT)

    def add(self, record: ImageText) -> None:
        """Appends a record; errors as in `encode_image_text`."""
        self.write(*encode_image_text(record))


def encode_image_text(record: ImageText) -> tuple[bytes, Facts]:
    """A serialized `tf.train.Example`, and the facts that the index keeps; equal records give equal bytes.

    Raises:
      UserError: pictures and placeholders disagree, or an answer is missing.
    """
    problem = _problem(record)
    if problem:
        raise UserError(f"record {record.key!r} of {record.source!r}: {problem}")
    content = example.encode(
        {
            "images": record.images,
            "conversation": record.conversation.to_json().encode(),
            "source": record.source.encode(),
            "category": record.category,
            "key": record.key.encode(),
            "licence": record.licence.encode(),
            "facets": [facet.encode() for facet in record.facets],
        }
    )
    return content, _facts(record)


def decode_image_text(data: bytes) -> ImageText:
    """Decodes a record; its pictures stay files.

    Raises:
      CorruptRecord: not an Example of `IMAGE_TEXT`, a conversation in another layout, without its last answer, or with
        another number of pictures.
    """
    features = example.decode(data)
    texts = {name: _text(features, name) for name in ("conversation", "source", "key", "licence")}
    images, facets = _many(features, "images"), _many(features, "facets")
    category = features.get("category", [])
    if len(category) != 1 or not isinstance(category[0], int):
        raise CorruptRecord("feature 'category' is not one integer")
    try:
        record = ImageText(
            images,
            Conversation.from_json(texts.pop("conversation")),
            **texts,
            category=category[0],
            facets=tuple(facet.decode() for facet in facets),
        )
    except BadConversation as error:
        raise CorruptRecord(f"record {texts['key']!r}: {error}") from error
    except UnicodeDecodeError as error:
        raise CorruptRecord(f"its facets are not UTF-8: {error}") from error
    problem = _problem(record)
    if problem:
        raise CorruptRecord(f"record {record.key!r}: {problem}")
    return record


def _problem(record: ImageText) -> str:
    """Why a record cannot be trained on; "" if it can."""
    try:
        record.conversation.check_pictures(len(record.images))
    except BadConversation as error:
        return str(error)
    return "" if record.conversation.turns[-1].answer is not None else "its last turn has no answer"


def _facts(record: ImageText) -> Facts:
    answers = sum(map(len, record.conversation.answers))
    # The turns tell a record with empty answers and no picture from none at all.
    values = (len(record.conversation.turns), len(record.images), answers)
    return Facts(values, (record.source, record.category))


def _describe(data: bytes) -> Facts:
    # No error: an index also has to describe damaged and foreign records, whose readers count them.
    try:
        return _facts(decode_image_text(data))
    except CorruptRecord:
        return NOTHING


IMAGE_TEXT = Schema(
    columns=(("turns", "<u4"), ("pictures", "<u4"), ("characters", "<u4")),
    describe=_describe,
    features=(
        ("images", "list of bytes"),
        ("conversation", "text"),
        ("source", "text"),
        ("category", "int"),
        ("key", "text"),
        ("licence", "text"),
        ("facets", "list of bytes"),
    ),
    description="Conversations about pictures: image files, and the published list of {from, value} as JSON.",
)


def _text(features: dict, name: str) -> str:
    values = features.get(name, [])
    if len(values) != 1 or not isinstance(values[0], bytes):
        raise CorruptRecord(f"feature {name!r} is not one text")
    try:
        return values[0].decode()
    except UnicodeDecodeError as error:
        raise CorruptRecord(f"its {name} is not UTF-8: {error}") from error


def _many(features: dict, name: str) -> tuple[bytes, ...]:
    values = features.get(name, [])
    if not all(isinstance(value, bytes) for value in values):
        raise CorruptRecord(f"feature {name!r} is not a list of bytes")
    return tuple(values)
