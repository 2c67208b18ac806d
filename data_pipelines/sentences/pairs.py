"""Images with one annotation each."""

import dataclasses
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
)
from lvm_jax.data.sentences.visual_sentence import compact_layout


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Items with one annotation each: `image,depth,image,depth`; the paper has 8 pairs.

    Attributes:
      annotation: the role beside `image`.
      n_pairs: items in a sentence.
      annotation_first: makes the annotation the question and the image its answer, as in colorization (`grey,image`)
        and inpainting (`masked,image`).
      crop: as in `SingleImage`, one window for both images of a pair.
    """

    annotation: str
    n_pairs: int = 8
    annotation_first: bool = False
    crop: float | None = None

    def __post_init__(self):
        check_positive("n_pairs", self.n_pairs)
        check_crop(self.crop)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 2 * self.n_pairs

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return self.n_pairs

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return permuted_groups(keys, self.n_pairs, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        roles = (self.annotation, "image") if self.annotation_first else ("image", self.annotation)
        images = []
        for position in range(len(items)):
            images += random_crop(first_of_each(items, position, roles), self.crop, rng)
        return images, compact_layout(roles * len(items))
