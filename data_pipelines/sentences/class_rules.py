"""Rules about classes: the mask of one, a colour for each, one of them painted anew."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.hues import HUES, rgb_of
from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import Unfit, aligned
from data_pipelines.sentences.by_example import ByExample, Pair
from data_pipelines.sentences.coloured import areas, colour_ids
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

_LEAST_AREA = 0.005  # of the picture; less of a class does not count


@dataclasses.dataclass(frozen=True)
class ClassMask(ByExample):
    """The mask of one class, or of several, drawn for the sentence: `image,class_mask,image,class_mask`.

    White on black. Every picture shows a class that is meant and at least one other.

    Attributes:
      classes: the role that has a colour for each class, on black.
      several: whether more than one class may be meant, each number of them alike.
    """

    classes: str = "segmentation"
    several: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.several:
            self.refuse_pool()

    @property
    def role(self) -> str:
        """See `ByExample`."""
        return "class_mask"

    def pairs(self, items: Sequence[Item], rng: np.random.Generator) -> list[Pair]:
        """See `ByExample`."""
        seen = [_classes_of(items, i, self.classes) for i in range(len(items))]
        shared = self.shared([shown for _, _, shown in seen], "class, beside another,")
        if self.several:
            # All but one at most, so that a picture of shared classes alone has one that is not meant.
            meant = int(rng.integers(1, max(2, len(shared))))
            chosen = [list(shared)[i] for i in rng.permutation(len(shared))[:meant]]
        else:
            chosen = [list(shared)[int(rng.integers(len(shared)))]]
        return [
            (seen[i][0], maps.mask_to_rgb(np.isin(colour_ids(seen[i][1]), chosen)))
            for i in shared[chosen[0]]
        ]


@dataclasses.dataclass(frozen=True)
class Palette(ByExample):
    """A segmentation whose colours are drawn for the sentence: `image,palette,image,palette`.

    Each class that the sentence shows has a colour, the same in all pairs: one of its own, or one of a few.

    Attributes:
      classes: as in `ClassMask`.
      colours: how many colours the classes of a sentence share, at least 2; 0: each has its own.
    """

    classes: str = "segmentation"
    colours: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.refuse_pool()
        if self.colours < 0 or self.colours == 1:
            raise UserError(f"colours is {self.colours}: it must be at least 2, or 0 for one each")

    @property
    def role(self) -> str:
        """See `ByExample`."""
        return "palette"

    def pairs(self, items: Sequence[Item], rng: np.random.Generator) -> list[Pair]:
        """See `ByExample`."""
        shown = [aligned(items, i, ("image", self.classes)) for i in range(self.n_pairs)]
        ids = [colour_ids(classes) for _, classes in shown]
        # Sorted, so that the draw does not depend on which item shows a class first.
        found = sorted(set().union(*(areas(x, i, self.classes) for i, x in enumerate(ids))))
        if len(found) >= maps.MAX_IDS:
            raise Unfit(
                0,
                f"it shows {len(found)} classes with its neighbours, of at most {maps.MAX_IDS - 1} colours",
            )
        colours = maps.palette(max(len(maps.PALETTE), len(found) + 1))
        drawn = colours[1 + rng.permutation(len(colours) - 1)[: len(found)]]
        if self.colours:
            drawn = drawn[rng.permutation(len(found)) % self.colours]
        table = np.concatenate([colours[:1], drawn])
        order = np.array([0, *found])
        return [
            (image, table[np.searchsorted(order, x)])
            for (image, _), x in zip(shown, ids, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Recolour(ByExample):
    """The image with all of one class in a new colour, both drawn for the sentence: `image,recolour,image,recolour`.

    What is painted keeps its light and shade. Every picture shows the class and at least one other.

    Attributes:
      classes: as in `ClassMask`.
    """

    classes: str = "segmentation"

    @property
    def role(self) -> str:
        """See `ByExample`."""
        return "recolour"

    def pairs(self, items: Sequence[Item], rng: np.random.Generator) -> list[Pair]:
        """See `ByExample`."""
        seen = [_classes_of(items, i, self.classes) for i in range(len(items))]
        shared = self.shared([shown for _, _, shown in seen], "class, beside another,")
        chosen = list(shared)[int(rng.integers(len(shared)))]
        hue = list(HUES.values())[int(rng.integers(len(HUES)))]
        return [
            (seen[i][0], painted(seen[i][0], colour_ids(seen[i][1]) == chosen, hue))
            for i in shared[chosen]
        ]


def painted(image: Picture, inside_HW: np.ndarray, hue: float) -> Picture:
    """The image with the pixels of a mask in a hue, in degrees; their luma becomes its light and shade."""
    answer = image.copy()
    luma = maps.grey(image[inside_HW][:, None])[:, 0, :1].astype(np.float32) / 255
    colour = np.array(rgb_of(hue, 0.9, 1.0), np.float32) * 255
    answer[inside_HW] = np.round(colour * (0.45 + 0.55 * luma)).astype(np.uint8)
    return answer


def _classes_of(
    items: Sequence[Item], position: int, role: str
) -> tuple[Picture, Picture, list[int]]:
    """An item's image, its map of classes, and the classes that it shows, if there are at least two."""
    image, classes = aligned(items, position, ("image", role))
    least = _LEAST_AREA * classes.shape[0] * classes.shape[1]
    found = areas(colour_ids(classes), position, role)
    shown = [colour for colour, area in found.items() if area >= least]
    # Alone in its picture, a class could be told without the pairs.
    if len(shown) < 2:
        shown = []
    return image, classes, shown
