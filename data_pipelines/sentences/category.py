"""Images of one class."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import (
    Groups,
    check_crop,
    check_positive,
    first_of_each,
    permuted_groups,
    random_crop,
    shuffled,
)
from lvm_jax.data.sentences.visual_sentence import compact_layout
from lvm_jax.errors import UserError


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
        try:
            groups = re.compile(self.class_of).groups
        except re.error as error:
            raise UserError(f"class_of is no regular expression: {error}") from error
        if not groups:
            raise UserError(f"class_of is {self.class_of!r}: it needs a (group) for the class")

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
        classes: dict[str, list[str]] = {}
        for key in keys:
            match = re.fullmatch(self.class_of, key)
            if match:
                classes.setdefault(match[1], []).append(key)
        groups: Groups = []
        # Sorted, so that the draws do not depend on the order in which the keys name the classes.
        for name in sorted(classes):
            members = classes[name]
            if len(members) >= self.fewest:
                groups += permuted_groups(members, min(self.n_images, len(members)), rng)
        return shuffled(groups, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        images = []
        for position in range(len(items)):
            images += random_crop(first_of_each(items, position, ("image",)), self.crop, rng)
        return images, compact_layout(["image"] * len(images))
