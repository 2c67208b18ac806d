"""Adds annotations, computed from the images, to any source."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.annotators.base import Annotator, CannotAnnotate
from data_pipelines.chance import hash64
from data_pipelines.items import Item, Value, pictures
from data_pipelines.sources.base import BadItem, Source
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

ANNOTATED_ROLES = ("image", "frame", "view")  # annotators see the first of these that an item has
_ANNOTATED_CATEGORY = {
    Category.UNLABELLED_IMAGE: Category.ANNOTATED_IMAGE,
    Category.UNLABELLED_VIDEO: Category.ANNOTATED_VIDEO,
}


@dataclasses.dataclass(frozen=True)
class Annotated:
    """The items of `source` with one more role per annotator. An entry with `annotators` builds one.

    Attributes:
      source: where the items come from.
      annotators: (role, annotator) pairs.
      seed: with key and role, it alone decides what annotators draw.
    """

    source: Source
    annotators: tuple[tuple[str, Annotator], ...]
    seed: int = 0

    @property
    def name(self) -> str:
        """That of the source."""
        return self.source.name

    @property
    def category(self) -> int:
        """Annotated images if the source has images, annotated videos if it has videos."""
        plain = Category(self.source.category)
        return _ANNOTATED_CATEGORY.get(plain, plain)

    @property
    def licence(self) -> str:
        """That of the source."""
        return self.source.licence

    @property
    def origin(self) -> str:
        """That of the source."""
        return self.source.origin

    def keys(self) -> list[str]:
        """Those of the source; see `Source`."""
        return self.source.keys()

    def load(self, key: str) -> Item:
        """The item with its annotations; see `Source`."""
        item: dict[str, Sequence[Value]] = dict(self.source.load(key))
        seen = next((role for role in ANNOTATED_ROLES if role in item), None)
        if seen is None:
            raise BadItem(key, f"has nothing to annotate: it has {', '.join(sorted(item))}")
        images = pictures(item[seen], f"role {seen!r} of source {self.name!r}", "an annotator")
        for role, annotator in self.annotators:
            if role in item:
                raise UserError(
                    f"source {self.name!r} has {role!r} already: give the annotator another name"
                )
            rng = np.random.default_rng([self.seed, hash64(key), hash64(role)])
            try:
                item[role] = annotator.annotate(images, rng)
            except CannotAnnotate as error:
                raise BadItem(key, str(error)) from error
        return item


def plain_source(source: Source) -> Source:
    """The source that reads the files: `source`, or the one that it annotates."""
    return source.source if isinstance(source, Annotated) else source
