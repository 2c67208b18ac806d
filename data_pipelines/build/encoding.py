"""Encodings: how the values of a sentence become the bytes of its record. A recipe names one of `ENCODINGS`.

The shard writer knows none of them. It collects values, has the encoder encode each distinct value once, and writes the
record that the encoder makes of each sentence. To write records for another system, add an entry to the table.
"""

import dataclasses
import difflib
import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from data_pipelines.build.composing import Composed
from data_pipelines.build.image_text import ImageTextEncoder
from data_pipelines.build.pools import PoolEncoder
from data_pipelines.build.recipe import DEFAULT_ENCODING, Recipe
from data_pipelines.build.vqgan import VqganEncoder
from data_pipelines.items import Kind, Value
from lvm_jax.data.image_text.record import FORMATS, IMAGE_TEXT, decode_image_text
from lvm_jax.data.image_text.store import ENCODING as IMAGE_TEXT_ENCODING
from lvm_jax.data.in_context.pool import ENCODING as POOL_ENCODING
from lvm_jax.data.in_context.pool_record import POOL, decode_pool_record
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.record_index import Facts, Schema
from lvm_jax.data.sentences.sentence_record import decode_example, schema_of
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage, load_image


class Encoder(Protocol):
    """An encoding with its model loaded; the threads of a process share one.

    Attributes:
      takes: the kinds of values that it encodes.
      fingerprint: covers everything that decides what it writes; goes into the manifest and tells two builds apart.
      schema: describes its records.
    """

    takes: frozenset[Kind]
    fingerprint: str
    schema: Schema

    def check(self, recipe: Recipe) -> None:
        """Raises a `UserError` if it cannot encode the recipe's sentences."""
        ...

    def manifest_fields(self) -> dict[str, Any]:
        """The manifest's fields that describe the encoding, from `tokenizer_fingerprint` to `tokens_per_image`."""
        ...

    def encode(self, values: Sequence[Value]) -> Iterable[Any]:
        """Each value encoded, in order, in a form that `record` understands."""
        ...

    def record(self, sentence: Composed, encoded: Sequence[Any]) -> tuple[bytes, Facts]:
        """The record of a sentence, given its encoded values, and the facts that the index keeps about it."""
        ...


@dataclasses.dataclass(frozen=True)
class RecordSummary:
    """What can be read from every record, whatever its encoding.

    Attributes:
      key, source, category: of the record.
      values: how many; its pictures, if the encoding takes pictures.
      facets: what may not be in two splits beside its items, such as `font=DejaVuSans`.
      shows: the photograph that it shows, which no two splits may show, whatever the source; "" if it does not say.
    """

    key: str
    source: str
    category: int
    values: int
    facets: tuple[str, ...] = ()
    shows: str = ""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """An entry of the table.

    Attributes:
      load: (folder of the model, values per batch) -> encoder.
      read: (record, manifest of its data set) -> summary; raises `CorruptRecord` if the record is wrong.
      schema: manifest -> the schema of its records.
    """

    load: Callable[[str, int], Encoder]
    read: Callable[[bytes, Manifest], RecordSummary]
    schema: Callable[[Manifest], Schema]


def _read_sentence(record: bytes, manifest: Manifest) -> RecordSummary:
    sentence = decode_example(
        record, codebook_size=manifest.codebook_size, tokens_per_image=manifest.tokens_per_image
    )
    return RecordSummary(sentence.key, sentence.source, sentence.category, len(sentence.codes))


def _read_image_text(data: bytes, manifest: Manifest) -> RecordSummary:
    del manifest  # records of any text tokenizer are alike
    record = decode_image_text(data)
    for content in record.images:
        try:
            load_image(content, formats=FORMATS)
        except BadImage as error:
            raise CorruptRecord(f"record {record.key!r}: {error}") from error
    return RecordSummary(
        record.key, record.source, record.category, len(record.images), record.facets
    )


def _read_pool(data: bytes, manifest: Manifest) -> RecordSummary:
    record = decode_pool_record(data)
    for codes in (record.picture, record.boxed, record.mask):
        if codes is None:
            continue
        if len(codes) != manifest.tokens_per_image or codes.max() >= manifest.codebook_size:
            raise CorruptRecord(
                f"record {record.key!r} has {len(codes)} codes up to {codes.max()}, its tokenizer gives "
                f"{manifest.tokens_per_image} below {manifest.codebook_size}"
            )
    return RecordSummary(
        record.key,
        record.source,
        record.category,
        1 + (record.boxed is not None),
        shows=record.shows,
    )


# What a recipe's `encoding` can name.
ENCODINGS: dict[str, Encoding] = {
    DEFAULT_ENCODING: Encoding(
        VqganEncoder, _read_sentence, lambda manifest: schema_of(manifest.codebook_size)
    ),
    IMAGE_TEXT_ENCODING: Encoding(ImageTextEncoder, _read_image_text, lambda manifest: IMAGE_TEXT),
    POOL_ENCODING: Encoding(PoolEncoder, _read_pool, lambda manifest: POOL),
}


def encoding_named(name: str) -> Encoding:
    """The encoding of this name.

    Raises:
      UserError: there is none; the message suggests the nearest.
    """
    if name not in ENCODINGS:
        close = difflib.get_close_matches(name, ENCODINGS, n=1) or [", ".join(sorted(ENCODINGS))]
        raise UserError(f"config.encoding is {name!r}; did you mean {close[0]}?")
    return ENCODINGS[name]


# `lru_cache` alone lets two threads that both miss load the model twice.
_LOADING = threading.Lock()


def shared_encoder(folder: str, batch_size: int, name: str = DEFAULT_ENCODING) -> Encoder:
    """This process's one encoder: worker threads share its weights and its compiled program."""
    with _LOADING:
        return _load(folder, batch_size, name)


@functools.lru_cache(maxsize=1)
def _load(folder: str, batch_size: int, name: str) -> Encoder:
    return encoding_named(name).load(folder, batch_size)
