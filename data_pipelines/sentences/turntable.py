"""Views of one object."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import OneItem, Unfit, check_positive, images_of
from lvm_jax.data.sentences.visual_sentence import compact_layout


@dataclasses.dataclass(frozen=True)
class Turntable(OneItem):
    """Consecutive views of one object from a random start, at most once around; the paper has 24, 15 degrees apart."""

    n_views: int = 16

    def __post_init__(self):
        check_positive("n_views", self.n_views)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return self.n_views

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        views = images_of(items, 0, "view")
        if len(views) < self.n_views:
            raise Unfit(0, f"it has {len(views)} views, {self.n_views} are needed")
        start = int(rng.integers(len(views)))
        # Views go once around, so the first follows the last.
        images = [views[(start + i) % len(views)] for i in range(self.n_views)]
        return images, compact_layout(["view"] * self.n_views)
