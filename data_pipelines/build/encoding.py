"""Encodings: how the values of a sentence become the bytes of its record. A recipe names one of `ENCODINGS`.

The shard writer knows none of them. It collects values, has the encoder encode each distinct value once, and writes the
record that the encoder makes of each sentence. To write records for another system, add an entry to the table.

Shape legend: M images, N codes of an image.
"""

import dataclasses
import difflib
import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt

from data_pipelines.build.composing import Composed
from data_pipelines.build.image_text import ImageTextEncoder
from data_pipelines.build.recipe import DEFAULT_ENCODING, Recipe
from data_pipelines.items import Kind, Value, pictures
from lvm_jax.data.image_text.record import FORMATS, IMAGE_TEXT, decode_image_text
from lvm_jax.data.image_text.store import ENCODING as IMAGE_TEXT_ENCODING
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.record_index import Facts, Schema
from lvm_jax.data.sentences.sentence_record import decode_example, encode_with_facts, schema_of
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN
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
    """

    key: str
    source: str
    category: int
    values: int
    facets: tuple[str, ...] = ()


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


class VqganEncoder:
    """Turns pictures into codes, and sentences into records of codes.

    Attributes:
      vqgan: the tokenizer.
      takes, fingerprint, schema: see `Encoder`.
    """

    takes = frozenset({Kind.PICTURE})

    def __init__(self, vqgan_dir: str, batch_size: int = 64):
        """Loads the tokenizer of a model folder.

        Raises:
          UserError: the folder holds no tokenizer.
        """
        if not vqgan_dir:
            raise UserError(
                "no tokenizer is given: config.encoding 'vqgan' needs --tokenizer, the folder of a trained VQGAN"
            )
        self.vqgan = VQGAN.from_pretrained(vqgan_dir)
        self.fingerprint = self.vqgan.fingerprint()
        sentences = schema_of(self.vqgan.codebook_size)
        self.schema: Schema = sentences
        self._id_type = sentences.id_type
        self._folder, self._batch_size = vqgan_dir, batch_size

    def check(self, recipe: Recipe) -> None:
        """See `Encoder`: the recipe must make pictures of the tokenizer's size."""
        size = self.vqgan.config.resolution
        if size != recipe.image_size:
            raise UserError(
                f"config.image_size is {recipe.image_size}, the tokenizer {self._folder} takes {size}: "
                "make them equal"
            )

    def manifest_fields(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "tokenizer_fingerprint": self.fingerprint,
            "codebook_size": self.vqgan.codebook_size,
            "image_size": self.vqgan.config.resolution,
            "tokens_per_image": self.vqgan.tokens_per_image,
        }

    def encode(self, values: Sequence[Value]) -> UInt[np.ndarray, "M N"]:
        """The codes of M pictures of the tokenizer's size, N each, in raster order."""
        images = pictures(values, "a sentence", "a VQGAN")
        # Full batches only: a shorter last batch would compile another program, and its codes might differ.
        codes_MN = encode_images(self.vqgan, images, self._batch_size, full_batches=True)
        return codes_MN.astype(self._id_type)

    def record(self, sentence: Composed, encoded: Sequence[np.ndarray]) -> tuple[bytes, Facts]:
        """See `Encoder`."""
        return encode_with_facts(
            VisualSentence(
                codes=np.stack(encoded),
                source=sentence.entry.source.name,
                category=sentence.entry.source.category,
                key=sentence.planned.key,
                layout=sentence.layout,
            )
        )


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


# What a recipe's `encoding` can name.
ENCODINGS: dict[str, Encoding] = {
    DEFAULT_ENCODING: Encoding(
        VqganEncoder, _read_sentence, lambda manifest: schema_of(manifest.codebook_size)
    ),
    IMAGE_TEXT_ENCODING: Encoding(ImageTextEncoder, _read_image_text, lambda manifest: IMAGE_TEXT),
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
