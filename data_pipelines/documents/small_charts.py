"""Bar charts of a few letters and numbers, small and fast enough for a tower that learns on two CPU cores.

Shape legend: H, W of the picture.
"""

import dataclasses
import math
import string

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from data_pipelines.documents import sides
from data_pipelines.documents.fonts import advance, ink_box, load_font, require_characters
from data_pipelines.documents.lines import check_range
from data_pipelines.items import Item, Text
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

_LETTERS = string.ascii_uppercase
COLOURS = ("#4878a8", "#e49444", "#6a9f58", "#d1615d", "#7a7a7a")
_GAP = 1  # pixels between a bar and what is written above and below it
_LEAST = 2  # pixels of the largest bar


@dataclasses.dataclass(frozen=True)
class SmallCharts:
    """Bars with a letter below and the number above: `{"image": [x], "text": [Text], "facets": [Text]}`.

    The truth is a dict, such as `{'K': 3, 'B': 7}`, from left to right.

    Attributes:
      count, held_out: number of seen and of held-out charts.
      height, width: of the picture in pixels.
      bars: fewest and most bars.
      letters: how many of the alphabet, from A on.
      largest: the largest number; all are whole, from 1 on.
      font: see `fonts.font_path`.
      size: of the type in pixels.
      held_out_texts: share of the truths that only held-out charts have.
      seed: of every draw.
    """

    count: int = 1000
    held_out: int = 100
    height: int = 32
    width: int = 128
    bars: tuple[int, ...] = (1, 4)
    letters: int = 26
    largest: int = 9
    font: str = "DejaVuSansMono"
    size: int = 14
    held_out_texts: float = 0.1
    seed: int = 0
    name: str = "small_charts"
    licence: str = "Apache-2.0"
    origin: str = "random letters and numbers, drawn"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        sides.check_fraction(self.held_out_texts)
        if not 1 <= self.letters <= len(_LETTERS):
            raise UserError(f"letters is {self.letters}: from 1 to {len(_LETTERS)}")
        check_range("bars", self.bars, min(self.letters, self.width // (2 * self.size)))
        if self.bars[0] < 1 or self.largest < 1:
            raise UserError(
                f"bars are from {self.bars[0]} and largest is {self.largest}: both at least 1"
            )

    def keys(self) -> list[str]:
        """See `sides.rendered_keys`; the font is opened, so that a mistake in it or in a size shows before any item."""
        if self._room < _LEAST:
            raise UserError(
                f"height is {self.height} and size {self.size}: {self.height - self._room + _LEAST} pixels at least "
                "for two lines of type and a bar"
            )
        share = self.width // self.bars[1]
        most = max(advance(self.font, self.size, d * len(str(self.largest))) for d in string.digits)
        if most > share:
            raise UserError(
                f"largest is {self.largest}, written {math.ceil(most)} pixels wide, and each of {self.bars[1]} bars "
                f"has {share}: lower largest, bars or size"
            )
        return sides.rendered_keys(self.count, self.held_out)

    @property
    def _rises(self) -> tuple[int, int]:
        """Pixels of a letter's ink above its line, and below it. Each pixel counts: a tower must tell letters apart."""
        _, top, _, bottom = ink_box(self.font, self.size, _LETTERS[: self.letters])
        return -top, bottom

    @property
    def _room(self) -> int:
        """The height of the largest bar."""
        rise, fall = self._rises
        _, top, _, _ = ink_box(self.font, self.size, string.digits)
        return self.height - (rise + fall) + top - 2 * _GAP

    def load(self, key: str) -> Item:
        """One chart; see `Source`."""
        rng = sides.item_rng(self.seed, self.name, key)
        drawn: dict[str, int] = {}

        def draw() -> str:
            nonlocal drawn
            letters = rng.permutation(list(_LETTERS[: self.letters]))[
                : int(rng.integers(self.bars[0], self.bars[1] + 1))
            ]
            drawn = {str(letter): int(rng.integers(1, self.largest + 1)) for letter in letters}
            return repr(drawn)

        truth = sides.drawn_text(draw, key, self.held_out_texts)
        require_characters(self.font, [truth], key)
        return {
            "image": [self._drawn(drawn, rng)],
            "text": [Text(truth)],
            "facets": sides.facets([truth]),
        }

    def _drawn(
        self, values: dict[str, int], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The bars side by side, each in the middle of its share of the width."""
        face = load_font(self.font, self.size)
        picture = Image.new("RGB", (self.width, self.height), "white")
        draw = ImageDraw.Draw(picture)
        share, wide = self.width // len(values), 3 * self.size // 2
        rise, fall = self._rises
        foot = self.height - rise - fall - _GAP
        for place, (letter, value) in enumerate(values.items()):
            x = place * share + (share - wide) // 2
            top = foot - max(1, round(self._room * value / self.largest))
            draw.rectangle(
                (x, top, x + wide - 1, foot - 1), fill=COLOURS[int(rng.integers(len(COLOURS)))]
            )
            middle = x + wide / 2
            draw.text((middle, top - _GAP), str(value), fill="black", font=face, anchor="ms")
            draw.text((middle, self.height - fall), letter, fill="black", font=face, anchor="ms")
        return np.asarray(picture)
