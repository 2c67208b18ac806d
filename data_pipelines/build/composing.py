"""Makes one planned sentence: reads its items, lets the composer pick values, resizes the pictures."""

import dataclasses
import threading
from collections import OrderedDict

import numpy as np

from data_pipelines.build.plan import PlannedSentence
from data_pipelines.build.recipe import Entry, Recipe
from data_pipelines.chance import rng_of
from data_pipelines.items import Item, Mask, Value, num_bytes
from data_pipelines.sentences import Unfit
from data_pipelines.sources.base import BadItem, Source
from data_pipelines.sources.masks import squash_mask
from lvm_jax.pictures.resize import resize_and_crop

CACHE_BYTES = 1 << 29


class ItemCache:
    """The items this process used last, up to a number of bytes: sentences share photographs and clips."""

    def __init__(self, max_bytes: int = CACHE_BYTES):
        self._max_bytes = max_bytes
        self._items: OrderedDict[tuple[Source, str], tuple[Item, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def load(self, source: Source, key: str) -> Item:
        """`source.load(key)`, from memory if it is there."""
        with self._lock:
            if (source, key) in self._items:
                self._items.move_to_end((source, key))
                return self._items[source, key][0]
        item = source.load(key)  # outside the lock, so that workers decode in parallel
        size = sum(num_bytes(value) for values in item.values() for value in values)
        with self._lock:
            # Another thread may have loaded it meanwhile: counting it twice would shrink the cache for good.
            if (source, key) not in self._items:
                self._items[source, key] = (item, size)
                self._bytes += size
            # The newest item stays even if it alone is over the limit.
            while self._bytes > self._max_bytes and len(self._items) > 1:
                self._bytes -= self._items.popitem(last=False)[1][1]
        return item


@dataclasses.dataclass(frozen=True)
class Composed:
    """A sentence, ready to be encoded.

    Attributes:
      planned: its place in the plan.
      entry: the recipe's entry that it belongs to.
      values: in order; pictures and masks are squares of the recipe's size, or as they are if it is 0.
      layout: the role of each value, such as `image,depth,image,depth`.
    """

    planned: PlannedSentence
    entry: Entry
    values: list[Value]
    layout: str


class TooManyBadItems(Exception):
    """More items are unusable than the recipe allows."""


class SentenceMaker:
    """Makes the sentences of a recipe's plan; thread-safe."""

    def __init__(self, recipe: Recipe, cache: ItemCache):
        self._recipe = recipe
        self._entries = {entry.name: entry for entry in recipe.entries}
        self._cache = cache

    def make(self, planned: PlannedSentence, bad: dict[str, str]) -> Composed | None:
        """The sentence; None if one of its items cannot be used.

        Args:
          planned: a sentence of the recipe's plan.
          bad: `source:key` -> why it was skipped; an unusable item is added.

        Raises:
          TooManyBadItems: `bad` has more entries than the recipe allows.
          UserError: the source gives a kind of value that the composer does not take.
        """
        entry = self._entries[planned.entry]
        # An entry of one pass uses an item once; caching it would only evict items that others use again.
        load = self._cache.load if entry.epochs > 1 else _load
        position = 0
        try:
            items = []
            for position, key in enumerate(planned.items):  # noqa: B007 (the handler reads it)
                items.append(load(entry.source, key))
            # Seeded by the sentence, so that neither its shard nor the order of work changes it.
            rng = rng_of(self._recipe.seed, "compose", planned.key)
            values, layout = entry.composer.compose(items, rng)
        except (BadItem, Unfit) as error:
            # A BadItem comes from the load at `position`; an Unfit names its own item of the group.
            if isinstance(error, Unfit):
                position = error.position
            bad[f"{entry.source.name}:{planned.items[position]}"] = error.why
            if len(bad) > self._recipe.max_bad_items:
                raise TooManyBadItems from error
            return None
        return Composed(planned, entry, [self._to_size(value) for value in values], layout)

    def _to_size(self, value: Value) -> Value:
        size = self._recipe.image_size
        if size and isinstance(value, np.ndarray):
            return resize_and_crop(value, size, self._recipe.resize)
        if size and isinstance(value, Mask):
            return Mask(squash_mask(value.inside_HW, size))
        return value


def _load(source: Source, key: str) -> Item:
    return source.load(key)
