"""Images and what a transformation makes of them."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import check_crop, first_of_each, random_crop
from data_pipelines.sentences.by_example import ByExample, Pair
from lvm_jax.errors import UserError

Family = Literal["shift", "turn", "mirror", "negative", "channels", "hue"]
FAMILIES: tuple[Family, ...] = ("shift", "turn", "mirror", "negative", "channels", "hue")
Change = Callable[[Picture], Picture]


@dataclasses.dataclass(frozen=True)
class Transformation(ByExample):
    """Images and their transforms, by one rule drawn for the sentence: `image,transformation,image,transformation`.

    Attributes:
      families: what may be drawn, each equally often: `shift` by whole cells of a grid, what leaves on one side
        returning on the other; `turn` by quarters; `mirror` left and right or up and down; `negative`; `channels`
        permuted; `hue` turned by 60, 180 or 300 degrees.
      grid: cells a side; shifts by whole cells of the tokenizer's own grid move codes and change none.
      crop: as in `SingleImage`, the same window for both; always a square, so that quarter turns fit.
    """

    families: tuple[Family, ...] = FAMILIES
    grid: int = 8
    crop: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        self.refuse_pool()
        check_crop(self.crop)
        if not self.families or self.grid < 2:
            raise UserError(
                f"families is {self.families}, grid {self.grid}: there must be at least one family, and 2 cells a side"
            )

    @property
    def role(self) -> str:
        """See `ByExample`."""
        return "transformation"

    def pairs(self, items: Sequence[Item], rng: np.random.Generator) -> list[Pair]:
        """See `ByExample`."""
        family = self.families[int(rng.integers(len(self.families)))]
        change = _DRAWN[family](rng, self.grid)
        pairs = []
        for position in range(self.n_pairs):
            (image,) = random_crop(first_of_each(items, position, ("image",)), self.crop, rng)
            pairs.append((image, np.ascontiguousarray(change(image))))
        return pairs


def _shift(rng: np.random.Generator, grid: int) -> Change:
    # Any cell but the first, which would move nothing.
    down, right = divmod(1 + int(rng.integers(grid * grid - 1)), grid)

    def change(image: Picture) -> Picture:
        height, width = image.shape[:2]
        by = (round(down * height / grid), round(right * width / grid))
        return np.roll(image, by, axis=(0, 1))

    return change


def _turn(rng: np.random.Generator, grid: int) -> Change:
    del grid
    quarters = 1 + int(rng.integers(3))
    return lambda image: np.rot90(image, quarters)


def _mirror(rng: np.random.Generator, grid: int) -> Change:
    del grid
    axis = int(rng.integers(2))
    return lambda image: np.flip(image, axis)


def _negative(rng: np.random.Generator, grid: int) -> Change:
    del rng, grid
    return lambda image: 255 - image


def _channels(rng: np.random.Generator, grid: int) -> Change:
    del grid
    orders = list(itertools.permutations(range(3)))[1:]  # the first changes nothing
    order = orders[int(rng.integers(len(orders)))]
    return lambda image: image[..., order]


def _hue(rng: np.random.Generator, grid: int) -> Change:
    del grid
    # OpenCV's hues are in steps of 2 degrees. Turns by 120 and 240 are among the permutations of channels.
    steps = (30, 90, 150)[int(rng.integers(3))]

    def change(image: Picture) -> Picture:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int32) + steps) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    return change


_DRAWN: dict[Family, Callable[[np.random.Generator, int], Change]] = {
    "shift": _shift,
    "turn": _turn,
    "mirror": _mirror,
    "negative": _negative,
    "channels": _channels,
    "hue": _hue,
}
