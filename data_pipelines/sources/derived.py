"""Any source, with annotations computed from its images."""

import dataclasses
import hashlib

import numpy as np

from data_pipelines.annotators.base import Annotator, CannotAnnotate
from data_pipelines.sources.base import BadItem, Item, Source
from lvm_jax.errors import UserError

ANNOTATED_ROLES = ("image", "frame", "view")  # the first that an item has is what annotators see
_ANNOTATED_CATEGORY = {1: 2, 3: 4}  # images, videos


@dataclasses.dataclass(frozen=True)
class Annotated:
    """The items of `source`, each with a role more for every annotator. An entry's `annotators` make one.

    Attributes:
      source: what is annotated.
      annotators: (role, annotator).
      seed: of the annotators' chance, which depends on it, the key and the role alone.
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
        return _ANNOTATED_CATEGORY.get(self.source.category, self.source.category)

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
        item = dict(self.source.load(key))
        seen = next((role for role in ANNOTATED_ROLES if role in item), None)
        if seen is None:
            raise BadItem(key, f"has nothing to annotate: it has {', '.join(sorted(item))}")
        for role, annotator in self.annotators:
            if role in item:
                raise UserError(
                    f"source {self.name!r} has {role!r} already: name the annotator otherwise"
                )
            rng = np.random.default_rng([self.seed, _hash64(key), _hash64(role)])
            try:
                item[role] = annotator.annotate(item[seen], rng)
            except CannotAnnotate as error:
                raise BadItem(key, str(error)) from error
        return item


def plain_source(source: Source) -> Source:
    """What `source` reads from: the source itself, or that which it annotates."""
    return source.source if isinstance(source, Annotated) else source


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
