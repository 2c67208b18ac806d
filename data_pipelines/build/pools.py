"""The encoding `pool`: pictures and masks become codes, words stay words.

Shape legend: M values that become codes, N codes of each.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.build.composing import Composed
from data_pipelines.build.recipe import Recipe
from data_pipelines.build.vqgan import VqganEncoder
from data_pipelines.in_context import About
from data_pipelines.items import Kind, Text, Value, drawn
from lvm_jax.data.in_context.pool_record import MOST_CODES, POOL, PoolRecord, encode_pool_record
from lvm_jax.data.records.record_index import Facts, Schema
from lvm_jax.data.sentences.visual_sentence import expand_layout
from lvm_jax.errors import UserError


class PoolEncoder:
    """Turns pictures and masks into codes, and compositions of `About` into records of a pool.

    A mask is encoded as a picture, white inside and black outside.

    Attributes:
      takes, fingerprint, schema: see `Encoder`.
    """

    takes = frozenset({Kind.PICTURE, Kind.MASK, Kind.TEXT})
    schema: Schema = POOL

    def __init__(self, vqgan_dir: str, batch_size: int = 64):
        """Loads the tokenizer of a model folder; errors as in `VqganEncoder`."""
        self._codes = VqganEncoder(vqgan_dir, batch_size)
        self.fingerprint = self._codes.fingerprint

    def check(self, recipe: Recipe) -> None:
        """See `Encoder`."""
        self._codes.check(recipe)
        codes = self._codes.vqgan.codebook_size
        if codes > MOST_CODES:
            raise UserError(f"the tokenizer has {codes} codes, a pool holds at most {MOST_CODES}")
        if recipe.resize != "squash":
            raise UserError(
                f"config.resize is {recipe.resize!r}: a pool needs 'squash', which keeps a mask on its picture"
            )
        if recipe.near_duplicates is not None:
            raise UserError(
                f"config.near_duplicates is {recipe.near_duplicates}: all objects of a photograph show one picture, "
                "and a pool would keep one of them; omit it"
            )
        for entry in recipe.entries:
            if not isinstance(entry.composer, About):
                raise UserError(
                    f"config.entries.{entry.name} has a composer of visual sentences, config.encoding 'pool' writes "
                    "objects: use the composer about"
                )

    def manifest_fields(self) -> dict[str, Any]:
        """See `Encoder`."""
        return self._codes.manifest_fields()

    def encode(self, values: Sequence[Value]) -> list[Any]:
        """The codes of each picture and mask, the words of each text."""
        codes_MN = iter(self._codes.encode(drawn(values)))
        return [value.words if isinstance(value, Text) else next(codes_MN) for value in values]

    def record(self, sentence: Composed, encoded: Sequence[Any]) -> tuple[bytes, Facts]:
        """See `Encoder`."""
        found = dict(zip(expand_layout(sentence.layout), encoded, strict=True))
        facts, source = json.loads(found["facts"]), sentence.entry.source
        size = self._codes.vqgan.config.resolution
        return encode_pool_record(
            PoolRecord(
                picture=found["image"].astype(np.int32),
                class_name=facts["class"],
                shows=facts["shows"],
                source=source.name,
                key=sentence.planned.key,
                licence=source.licence,
                mask=_int32(found.get("mask")),
                boxed=_int32(found.get("boxed")),
                caption=facts["caption"],
                boxes=tuple(tuple(box) for box in facts["boxes"]),
                unseen=facts["unseen"],
                area=round(facts["area"] * size * size),
                category=int(source.category),
            )
        )


def _int32(codes: Any) -> Any:
    return None if codes is None else codes.astype(np.int32)
