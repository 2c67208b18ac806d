"""Sentences of one image."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import OneItem, check_crop, first_of_each, random_crop


@dataclasses.dataclass(frozen=True)
class SingleImage(OneItem):
    """One image by itself: 92 % of the paper's tokens.

    Attributes:
      crop: the smallest side of a random square crop, as a fraction of the short side; None takes the whole image.
    """

    crop: float | None = None

    def __post_init__(self):
        check_crop(self.crop)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 1

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        return random_crop(first_of_each(items, 0, ("image",)), self.crop, rng), "image"
