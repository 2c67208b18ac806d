"""Images of one class."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import (
    Groups,
    check_class_of,
    check_crop,
    check_positive,
    class_groups,
    first_of_each,
    random_crop,
)
from lvm_jax.data.sentences.visual_sentence import compact_layout


@dataclasses.dataclass(frozen=True)
class CategoryGroup:
    """Images of one class; the paper puts 16 of an ImageNet class in a sentence.

    A class with fewer images than `n_images` makes one shorter sentence per pass, with fewer than `fewest` none.

    Attributes:
      n_images: images in a sentence.
      fewest: images that a class needs to be used.
      class_of: a regular expression for whole keys; its first group is the class. The default takes the file's folder,
        as in `n01440764/10026.jpg`. Keys that do not match are not used.
      crop: as in `SingleImage`, drawn for each image.
    """

    n_images: int = 16
    fewest: int = 2
    class_of: str = r"(?:.*/)?([^/]+)/[^/]+"
    crop: float | None = None

    def __post_init__(self):
        check_positive("n_images", self.n_images)
        check_positive("fewest", self.fewest)
        check_crop(self.crop)
        check_class_of(self.class_of)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return self.n_images

    @property
    def max_items(self) -> int:
        """See `Composer`; all of one class."""
        return self.n_images

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`; sentences of different classes alternate at random."""
        return class_groups(keys, self.class_of, self.n_images, self.fewest, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        images = []
        for position in range(len(items)):
            images += random_crop(first_of_each(items, position, ("image",)), self.crop, rng)
        return images, compact_layout(["image"] * len(images))
