"""The encoding `vqgan`: pictures become codes, sentences records of codes.

Shape legend: M images, N codes of an image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt

from data_pipelines.build.composing import Composed
from data_pipelines.build.recipe import Recipe
from data_pipelines.items import Kind, Value, pictures
from lvm_jax.data.records.record_index import Facts, Schema
from lvm_jax.data.sentences.sentence_record import encode_with_facts, schema_of
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN


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
