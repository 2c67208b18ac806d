"""Images with several annotations each."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import Groups, filled, first_of_each, shuffled
from lvm_jax.data.sentences.visual_sentence import compact_layout
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class MultiAnnotation:
    """Several annotations of each item: draws m of {image, annotations}; all items show these m in the same order.

    m is uniform over 2 .. 1 + the number of annotations, at most `images_per_sentence`; a sentence has as many whole
    m-tuples as fit (paper section 3, "images with multiple annotations").
    """

    annotations: tuple[str, ...]
    images_per_sentence: int = 16

    def __post_init__(self):
        if not self.annotations or self.images_per_sentence < 2:
            raise UserError(
                f"multi_annotation has annotations {self.annotations} and images_per_sentence "
                f"{self.images_per_sentence}: it needs at least 1 annotation and 2 images"
            )

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return self.images_per_sentence

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return self.images_per_sentence // 2

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        order = shuffled(keys, rng)
        groups = []
        while order:
            size = self.images_per_sentence // int(rng.choice(self._subset_sizes()))
            if size > len(keys):  # no sentence shows an item twice
                break
            group, order = order[:size], order[size:]
            groups.append(filled(group, size, keys, rng))
        return groups

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        # `group` sees only keys, so the group's size is all that tells m; if several m give this size, one is drawn.
        fitting = [m for m in self._subset_sizes() if self.images_per_sentence // m == len(items)]
        if not fitting:
            raise ValueError(f"{len(items)} items were not grouped by this composer's group")
        roles = ("image", *self.annotations)
        roles = tuple(rng.permutation(roles)[: int(rng.choice(fitting))].tolist())
        images = []
        for position in range(len(items)):
            images += first_of_each(items, position, roles)
        return images, compact_layout(roles * len(items))

    def _subset_sizes(self) -> list[int]:
        return list(range(2, min(1 + len(self.annotations), self.images_per_sentence) + 1))
