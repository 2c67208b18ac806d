"""One planned sentence: its items are read, its composer chooses among their images, each is brought to size."""

import dataclasses
import threading
from collections import OrderedDict

import numpy as np
from jaxtyping import UInt8

from data_pipelines.build.recipe import Entry, Recipe, SentencePlan, rng_of
from data_pipelines.sentences import Item, Unfit
from data_pipelines.sources.base import BadItem, Source
from lvm_jax.pictures.resize import resize_and_crop

CACHE_BYTES = 1 << 29


class ItemCache:
    """The most recently loaded items of the process, up to a number of bytes: sentences share photographs and clips."""

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
        item = source.load(key)  # outside the lock: workers decode side by side
        size = sum(image.nbytes for images in item.values() for image in images)
        with self._lock:
            if (source, key) not in self._items:
                self._items[source, key] = (item, size)
                self._bytes += size
            while self._bytes > self._max_bytes and len(self._items) > 1:
                self._bytes -= self._items.popitem(last=False)[1][1]
        return item


@dataclasses.dataclass(frozen=True)
class Composed:
    """A sentence of images at the recipe's size."""

    plan: SentencePlan
    entry: Entry
    images: list[UInt8[np.ndarray, "size size 3"]]
    layout: str


class TooManyBadItems(Exception):
    """More items than the recipe allows cannot be used."""


class SentenceMaker:
    """Makes the sentences of a recipe's plan; safe to share between threads."""

    def __init__(self, recipe: Recipe, cache: ItemCache):
        self._recipe = recipe
        self._entries = {entry.name: entry for entry in recipe.entries}
        self._cache = cache

    def make(self, plan: SentencePlan, bad: dict[str, str]) -> Composed | None:
        """The sentence; None if an item of it cannot be used.

        Args:
          plan: one of `recipe.plan`.
          bad: `source:key` -> why it was skipped; an item that cannot be used is added.

        Raises:
          TooManyBadItems: `bad` has more than the recipe allows.
        """
        entry = self._entries[plan.entry]
        # What one epoch uses once would only push out what others use again.
        load = self._cache.load if entry.epochs > 1 else _load
        position = 0
        try:
            items = []
            for position, key in enumerate(plan.items):  # noqa: B007 (the handler reads it)
                items.append(load(entry.source, key))
            rng = rng_of(self._recipe.seed, "compose", plan.key)
            images, layout = entry.composer.compose(items, rng)
        except (BadItem, Unfit) as error:
            if isinstance(error, Unfit):
                position = error.position
            bad[f"{entry.source.name}:{plan.items[position]}"] = error.why
            if len(bad) > self._recipe.max_bad_items:
                raise TooManyBadItems from error
            return None
        size, mode = self._recipe.image_size, self._recipe.resize
        return Composed(
            plan, entry, [resize_and_crop(image, size, mode) for image in images], layout
        )


def _load(source: Source, key: str) -> Item:
    return source.load(key)
