"""Mosaics: squares of tiles that mean nothing, so that only a sentence's pairs can say what becomes of them.

A scene's classes look alike in all sentences, and a decoder may learn them by heart. The tiles of a mosaic are drawn
afresh for a few pictures: with a `palette` composer, the colour that stands for a tile can only be looked up, in the
answers before it. Such looking up is what in-context learning begins with (Olsson et al., arXiv 2209.11895).

Shape legend: K kinds of tiles, S side of a tile in pixels, H, W sides of a picture.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from data_pipelines.chance import hash64
from data_pipelines.cut_tiles import covered
from data_pipelines.items import Picture, PictureItem
from data_pipelines.synthetic.drawn import SUPERSAMPLING
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

_COLOURS = 32  # of tiles: a codebook keeps that many flat colours apart
_MOST_KINDS = 32
_GROUND = 48  # grey
_FLAT = 0.75  # share of tiles of one colour; patterns in all colours would fill a codebook


@dataclasses.dataclass(frozen=True)
class Mosaics:
    """`sets` times `pictures` mosaics: `{"image": [x], "segmentation": [s]}`; `s` has a colour for each kind of tile.

    Keys read `000123/4`: the pictures of a set share their kinds of tiles, which no other set has in this arrangement.
    Group by `class_of` `(\\d+)/.*`, and keep sets in one split by the same `together`.

    Attributes:
      sets: how many sets.
      pictures: of a set.
      kinds: the fewest and the most kinds of tiles in a set.
      cells: tiles along a side; as many as the tokenizer's codes, and a tile is one code.
      size: of the square picture, pixels; a multiple of `cells`.
      cut: half of the tiles are cut by a line, and grey beyond it, where `s` is black.
      seed: of the tiles and their places.
    """

    sets: int = 1000
    pictures: int = 8
    kinds: tuple[int, int] = (4, 24)
    cells: int = 8
    size: int = 64
    cut: bool = False
    seed: int = 0
    name: str = "mosaics"
    licence: str = "Apache-2.0"
    origin: str = "drawn by data_pipelines.sources.mosaics"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self):
        fewest, most = self.kinds
        if min(self.sets, self.pictures) < 1 or not 2 <= fewest <= most <= _MOST_KINDS:
            raise UserError(
                f"sets is {self.sets}, pictures {self.pictures}, kinds {self.kinds}: there must be at least 1 set "
                f"of at least 1 picture, and from 2 to {_MOST_KINDS} kinds, the fewest first"
            )
        if self.cells < 2 or self.size % self.cells or self.size < 2 * self.cells:
            raise UserError(
                f"cells is {self.cells}, size {self.size}: size must be a multiple of cells, of at least 2 cells of at "
                "least 2 pixels"
            )

    @property
    def root(self) -> str:
        """Names the mosaics: entries of one seed show the same ones, and must hold out the same."""
        return f"mosaics of seed {self.seed}"

    def keys(self) -> list[str]:
        """`set/picture`; see `Source`."""
        return sorted(f"{s:06d}/{i}" for s in range(self.sets) for i in range(self.pictures))

    def load(self, key: str) -> PictureItem:
        """One mosaic; see `Source`."""
        of_set = np.random.default_rng([self.seed, hash64(key.partition("/")[0])])
        tiles_KSS3 = _tiles(of_set, int(of_set.integers(*self.kinds, endpoint=True)), self._side)
        rng = np.random.default_rng([self.seed, hash64(key)])
        placed = rng.integers(len(tiles_KSS3), size=(self.cells, self.cells))
        colours_K3 = maps.palette(1 + len(tiles_KSS3))[1:]
        areas = np.repeat(np.repeat(colours_K3[placed], self._side, 0), self._side, 1)
        image = _laid(tiles_KSS3, placed)
        return self._cut(rng, image, areas) if self.cut else _item(image, areas)

    def _cut(self, rng: np.random.Generator, image: Picture, areas: Picture) -> PictureItem:
        fine = SUPERSAMPLING
        covered_HW = covered(rng, self.cells, fine * self._side)
        shown = image.repeat(fine, 0).repeat(fine, 1)
        shown = np.where(covered_HW[..., None], shown, np.uint8(_GROUND))
        shown = cv2.resize(shown, (self.size, self.size), interpolation=cv2.INTER_AREA)
        # One sample a pixel for the map, as where scenes are drawn.
        return _item(shown, areas * covered_HW[::fine, ::fine, None])

    @property
    def _side(self) -> int:
        return self.size // self.cells


def _item(image: Picture, areas: Picture) -> PictureItem:
    return {"image": [image], "segmentation": [areas]}


def _laid(tiles_KSS3: UInt8[np.ndarray, "K S S 3"], placed: np.ndarray) -> np.ndarray:
    """The picture of the tiles in their places."""
    side = len(placed) * tiles_KSS3.shape[1]
    return tiles_KSS3[placed].transpose(0, 2, 1, 3, 4).reshape(side, side, 3)


def _tiles(rng: np.random.Generator, kinds: int, side: int) -> UInt8[np.ndarray, "K S S 3"]:
    """Tiles of which no two are alike: flat ones, and black and white patterns."""
    colours = maps.palette(_COLOURS)
    tiles: dict[bytes, np.ndarray] = {}
    while len(tiles) < kinds:
        if rng.random() < _FLAT:
            tile = np.tile(colours[int(rng.integers(len(colours)))], (side, side, 1))
        else:
            tile = maps.mask_to_rgb(_pattern(rng, side))
        tiles.setdefault(tile.tobytes(), tile)
    return np.stack(list(tiles.values()))


def _pattern(rng: np.random.Generator, side: int) -> Bool[np.ndarray, "S S"]:
    """Where a tile is white: a half, a corner, a band, a dot or a check."""
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    reach = side / 2
    patterns = (
        x > 0,
        y > 0,
        x + y > 0,
        x - y > 0,
        np.abs(x) < reach / 2,
        np.abs(y) < reach / 2,
        np.maximum(np.abs(x), np.abs(y)) < reach / 2,
        (x > 0) == (y > 0),
    )
    return patterns[int(rng.integers(len(patterns)))] ^ (rng.random() < 0.5)
