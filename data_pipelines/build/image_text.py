"""The encoding `image_text`: pictures become files, words stay words. It needs no model."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from data_pipelines.build.composing import Composed
from data_pipelines.build.recipe import Recipe
from data_pipelines.documents.questions import Ask, Talk
from data_pipelines.items import Kind, Picture, Text, Value
from lvm_jax.data.image_text.conversation import PLACEHOLDER, Conversation
from lvm_jax.data.image_text.record import IMAGE_TEXT, ImageText, encode_image_text
from lvm_jax.data.image_text.templates import template_of
from lvm_jax.data.records.record_index import Facts, Schema
from lvm_jax.data.sentences.visual_sentence import expand_layout
from lvm_jax.data.text_tokenizer import TextTokenizer, UnknownCharacters
from lvm_jax.errors import UserError


class ImageTextEncoder:
    """Turns pictures into lossless WebP files, and compositions into image-text records.

    Attributes:
      takes, schema: see `Encoder`.
      fingerprint: of the text tokenizer that every text was checked with; "" if there is none.
    """

    takes = frozenset({Kind.PICTURE, Kind.TEXT})
    schema: Schema = IMAGE_TEXT

    def __init__(self, tokenizer_dir: str, batch_size: int = 1):
        """Opens the text tokenizer, unless the folder is "".

        Raises:
          UserError: the folder holds none, or one whose settings do not fit its template.
        """
        del batch_size  # pictures are encoded one by one
        self._tokenizer = TextTokenizer(tokenizer_dir) if tokenizer_dir else None
        self._asks = self._tokenizer is not None and template_of(self._tokenizer).asks
        self.fingerprint = self._tokenizer.fingerprint if self._tokenizer else ""

    def check(self, recipe: Recipe) -> None:
        """See `Encoder`."""
        for entry in recipe.entries:
            if not isinstance(entry.composer, Ask | Talk):
                raise UserError(
                    f"config.entries.{entry.name} has a composer of visual sentences, config.encoding 'image_text' "
                    "writes conversations: use the composer ask or talk"
                )

    def manifest_fields(self) -> dict[str, Any]:
        """See `Encoder`; records hold no codes, and pictures of any size."""
        return {
            "tokenizer_fingerprint": self.fingerprint,
            "codebook_size": 0,
            "image_size": 0,
            "tokens_per_image": 0,
        }

    def encode(self, values: Sequence[Value]) -> list[bytes | str]:
        """A file of each picture, the words of each text."""
        return [_encoded(value) for value in values]

    def record(self, sentence: Composed, encoded: Sequence[bytes | str]) -> tuple[bytes, Facts]:
        """See `Encoder`.

        Raises:
          UserError: the text tokenizer lacks a character.
        """
        by_role: dict[str, list[Any]] = {"image": [], "conversation": [], "facet": []}
        for role, value in zip(expand_layout(sentence.layout), encoded, strict=True):
            by_role[role].append(value)
        conversation = Conversation.from_json(by_role["conversation"][0])
        key = sentence.planned.key
        self._check_text(conversation, key)
        source = sentence.entry.source
        return encode_image_text(
            ImageText(
                images=tuple(by_role["image"]),
                conversation=conversation,
                source=source.name,
                key=key,
                licence=source.licence,
                category=int(source.category),
                facets=tuple(by_role["facet"]),
            )
        )

    def _check_text(self, conversation: Conversation, key: str) -> None:
        """Checks what a row shows: no placeholder, and questions only if the template has them."""
        if self._tokenizer is None:
            return
        try:
            for turn in conversation.turns:
                asked = turn.question.replace(PLACEHOLDER, "") if self._asks else ""
                for words in (asked, turn.answer or ""):
                    self._tokenizer.encode(words)
        except UnknownCharacters as error:
            raise UserError(f"sentence {key!r}: {error}") from error


def _encoded(value: Value) -> bytes | str:
    if isinstance(value, Text):
        return value.words
    picture: Picture = value  # pyright: ignore[reportAssignmentType] (the writer let nothing else through)
    file = io.BytesIO()
    # Half the bytes of a PNG in the same time.
    Image.fromarray(picture).save(file, "WEBP", lossless=True, method=2, quality=20)
    return file.getvalue()
