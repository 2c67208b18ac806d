"""Squares of tiles, some colours of which are marked: only the examples can say which.

A thing's mask holds one or two decisions that only the examples tell, among all its codes. Here each colour is one, so
a decoder soon finds out that the examples' masks are worth reading; see docs/notes.md. Half of the tiles are cut by a
line and show the ground beyond it, as the edges of things do: what is learnt here holds there.

Shape legend: K colours of a set, P of all; C tiles along a side, H, W sides of a picture, twice as large where fine.
"""

import dataclasses
import functools
import string

import cv2
import numpy as np
from jaxtyping import UInt8

from data_pipelines.chance import rng_of
from data_pipelines.cut_tiles import covered
from data_pipelines.hues import HUES
from data_pipelines.in_context.drawn_objects import GREY, shade_of
from data_pipelines.in_context.keys import object_key, parts_of
from data_pipelines.items import Boxes, Item, Mask, Text
from data_pipelines.synthetic.drawn import SUPERSAMPLING
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

_MOST_KINDS = len(HUES)


@dataclasses.dataclass(frozen=True)
class MarkedTiles:
    """`sets` times `pictures` squares: `{"image", "mask", "boxes", "class", "shows"}`.

    The pictures of a set show tiles of the same colours and have the same ones marked; a set is a class, with two
    letters for a name. Keys read `seen/SET/PICTURE`, so that `ONE_PICTURE` keeps a set in one split.

    Attributes:
      sets: how many.
      pictures: of a set, more than a row has examples.
      kinds: the fewest and the most colours in a set.
      cells: tiles along a side; as many as the tokenizer's codes, and a tile is one code.
      size: of the square picture, pixels; a multiple of `cells`.
      seed: of the tiles and their places.
    """

    sets: int = 1000
    pictures: int = 6
    kinds: tuple[int, ...] = (3, 8)
    cells: int = 8
    size: int = 32
    seed: int = 0
    name: str = "marked_tiles"
    licence: str = "Apache-2.0"
    origin: str = "drawn by data_pipelines.in_context.marked_tiles"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        if min(self.sets, self.pictures) < 1:
            raise UserError(
                f"sets is {self.sets}, pictures {self.pictures}: there must be at least 1 of both"
            )
        if len(self.kinds) != 2 or not 2 <= self.kinds[0] <= self.kinds[1] <= _MOST_KINDS:
            raise UserError(
                f"kinds is {self.kinds}: fewest and most colours, from 2 to {_MOST_KINDS}"
            )
        if self.cells < 2 or self.size % self.cells:
            raise UserError(
                f"cells is {self.cells}, size {self.size}: size must be a multiple of at least 2 cells"
            )

    @property
    def root(self) -> str:
        """Names the tiles: entries of one seed show the same ones, and must hold out the same."""
        return f"marked tiles of seed {self.seed}, {self.name}"

    def keys(self) -> list[str]:
        """See the class."""
        numbers = range(self.pictures)
        return sorted(object_key(f"{s:06d}", i, False) for s in range(self.sets) for i in numbers)

    def load(self, key: str) -> Item:
        """One square; see `Source`."""
        of_set, number = parts_of(key)
        rng = rng_of(self.seed, self.name, of_set)
        kinds = int(rng.integers(self.kinds[0], self.kinds[1] + 1))
        colours_K3 = _palette()[rng.permutation(_MOST_KINDS)[:kinds]]
        # At least one colour is marked and one is not.
        marked_K = rng.permutation(kinds) < rng.integers(1, kinds)
        rng = rng_of(self.seed, self.name, of_set, number)
        tiles_CC = rng.integers(kinds, size=(self.cells, self.cells))
        # A square without a marked tile would show no mask at all.
        tiles_CC.flat[rng.integers(tiles_CC.size)] = rng.choice(np.flatnonzero(marked_K))
        fine = SUPERSAMPLING * self.size // self.cells
        kind_HW = tiles_CC.repeat(fine, 0).repeat(fine, 1)
        marked_HW = marked_K[kind_HW]
        covered_HW = covered(rng, self.cells, fine)
        # Nor would one whose only marked tile is cut to a sliver between the mask's samples.
        if not (covered_HW & marked_HW)[::SUPERSAMPLING, ::SUPERSAMPLING].any():
            covered_HW |= marked_HW
        image_HW3 = np.where(covered_HW[..., None], colours_K3[kind_HW], np.uint8(GREY))
        # One sample a pixel for the mask, as where things are drawn.
        inside_HW = (covered_HW & marked_HW)[::SUPERSAMPLING, ::SUPERSAMPLING]
        y, x = np.nonzero(inside_HW)
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        name = name_of_set(int(of_set))
        side = (self.size, self.size)
        resized = cv2.resize(image_HW3, side, interpolation=cv2.INTER_AREA)
        return {
            "image": [resized],
            "mask": [Mask(inside_HW)],
            "boxes": [Boxes(box, (name,))],
            "class": [Text(name)],
            "shows": [Text(f"{self.name}/{of_set}/{number}")],
            "unseen": [],
        }


def name_of_set(number: int) -> str:
    """Letters, two for the first 2,704 sets: of any text tokenizer of bytes at most so many tokens."""
    letters = ""
    while len(letters) < 2 or number:
        number, place = divmod(number, len(string.ascii_letters))
        letters = string.ascii_letters[place] + letters
    return letters


@functools.cache
def _palette() -> UInt8[np.ndarray, "P 3"]:
    """The colours of things in one shade."""
    return np.array([shade_of(colour) for colour in HUES])
