"""Any source, with annotations computed from its images."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.annotators.base import Annotator, CannotAnnotate
from data_pipelines.chance import hash64
from data_pipelines.items import Item, Value, pictures
from data_pipelines.sources.base import BadItem, Source
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

ANNOTATED_ROLES = ("image", "frame", "view")  # the first that an item has is what annotators see
_ANNOTATED_CATEGORY = {
    Category.UNLABELLED_IMAGE: Category.ANNOTATED_IMAGE,
    Category.UNLABELLED_VIDEO: Category.ANNOTATED_VIDEO,
}


@dataclasses.dataclass(frozen=True)
class Annotated:
    """The items of `source`, with one more role for each annotator. An entry with `annotators` builds one.

    Attributes:
      source: where the items come from.
      annotators: (role, annotator).
      seed: what annotators draw depends on the seed, the key and the role alone.
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
        """Annotated images where the source has images, annotated videos where it has videos."""
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
        """The item, and its annotations; see `Source`."""
        item: dict[str, Sequence[Value]] = dict(self.source.load(key))
        seen = next((role for role in ANNOTATED_ROLES if role in item), None)
        if seen is None:
            raise BadItem(key, f"has nothing to annotate: it has {', '.join(sorted(item))}")
        images = pictures(item[seen], f"role {seen!r} of source {self.name!r}", "an annotator")
        for role, annotator in self.annotators:
            if role in item:
                raise UserError(
                    f"source {self.name!r} has {role!r} already: name the annotator otherwise"
                )
            rng = np.random.default_rng([self.seed, hash64(key), hash64(role)])
            try:
                item[role] = annotator.annotate(images, rng)
            except CannotAnnotate as error:
                raise BadItem(key, str(error)) from error
        return item


def plain_source(source: Source) -> Source:
    """The source that reads the files: `source` itself, or the one that it annotates."""
    return source.source if isinstance(source, Annotated) else source
