"""Rendered lines: a short text in a small picture, in one row or a few, the first that a vision vocabulary can learn.

Shape legend: H, W of the picture.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.documents import sides
from data_pipelines.documents.corpus import read_texts, words_of
from data_pipelines.documents.fonts import check_fonts, font_label, load_font, require_characters
from data_pipelines.items import Item, Text
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

_MARGIN = 2  # pixels at least around the ink
_LEADING = 1  # pixels between the type of two rows
_OVERHANG = 2  # pixels by which ink may begin to the left of its row


@dataclasses.dataclass(frozen=True)
class Lines:
    """Lines of words from a text: `{"image": [x], "text": [Text], "facets": [Text, ...]}`.

    A text with several rows has a line break between two of them.

    Attributes:
      texts: see `corpus.read_texts`.
      count, held_out: number of seen and of held-out lines.
      height, width: of the picture in pixels.
      min_characters, max_characters: a line has as many whole words as fit a length that is drawn evenly from these, so
        it may be shorter than the least.
      fonts, held_out_fonts: see `fonts.font_path`; empty: held-out lines use the seen ones.
      sizes: smallest and largest size of the type in pixels; a text that does not fit takes a smaller one.
      rows: the most rows of a text; a row is as full as its words allow.
      indent: least and most pixels to the left of the text, as in a line that was cut out of a page; empty: the text
        stands anywhere. A tower that begins to learn reads texts at the left within some hundred steps.
      paper, ink: ranges of grey, 0 is black.
      held_out_texts: share of all lines that only held-out items show.
      seed: of every draw.
    """

    texts: str = "english"
    count: int = 1000
    held_out: int = 100
    height: int = 24
    width: int = 128
    min_characters: int = 1
    max_characters: int = 12
    fonts: tuple[str, ...] = ("DejaVuSansMono",)
    held_out_fonts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (14, 16)
    rows: int = 1
    indent: tuple[int, ...] = ()
    paper: tuple[int, ...] = (255, 255)
    ink: tuple[int, ...] = (0, 0)
    held_out_texts: float = 0.1
    seed: int = 0
    name: str = "lines"
    licence: str = "Apache-2.0"
    origin: str = "texts of data_pipelines/assets, rendered"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        sides.check_apart("fonts", self.fonts, self.held_out_fonts)
        sides.check_fraction(self.held_out_texts)
        if not 1 <= self.min_characters <= self.max_characters:
            raise UserError(
                f"min_characters is {self.min_characters} and max_characters {self.max_characters}: at least 1, and "
                "in this order"
            )
        if self.rows < 1:
            raise UserError(f"rows is {self.rows}: at least 1")
        for what, span, largest in (
            ("sizes", self.sizes, self.height),
            ("paper", self.paper, 255),
            ("ink", self.ink, 255),
            ("indent", self.indent or (0, 0), self.width - 1),
        ):
            check_range(what, span, largest)

    def keys(self) -> list[str]:
        """See `sides.rendered_keys`; texts and fonts are opened, so that a mistake in them shows before any item."""
        read_texts(self.texts)
        check_fonts(self.fonts, self.held_out_fonts)
        return sides.rendered_keys(self.count, self.held_out)

    def load(self, key: str) -> Item:
        """One line; see `Source`."""
        rng = sides.item_rng(self.seed, self.name, key)
        texts = read_texts(self.texts)
        text = sides.drawn_text(
            lambda: line_of(texts, self.min_characters, self.max_characters, rng),
            key,
            self.held_out_texts,
        )
        fonts = sides.choices(self.fonts, self.held_out_fonts, key)
        font = fonts[int(rng.integers(len(fonts)))]
        require_characters(font, [text], key)
        label = font_label(font) if self.held_out_fonts else ""
        picture, said = self._drawn(text, font, key, rng)
        return {
            "image": [picture],
            "text": [Text(said)],
            "facets": sides.facets([text], font=label),
        }

    def _drawn(
        self, text: str, font: str, key: str, rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The text at a random place, and as it is broken into rows."""
        paper, ink = _drawn_grey(self.paper, rng), _drawn_grey(self.ink, rng)
        size = int(rng.integers(self.sizes[0], self.sizes[1] + 1))
        text, face, (left, top, right, bottom) = self._set(text, font, size, key)
        room = self.width - 2 * _MARGIN - (right - left)
        first, last = self.indent or (_MARGIN, _MARGIN + room)
        x = min(int(rng.integers(first, last + 1)), _MARGIN + room) - left
        # Lines of a size share a baseline, as in print: the place is drawn for the type, not for each text's own ink.
        rows = text.count("\n") + 1
        lowest = self.height - _MARGIN - rows * sum(face.getmetrics()) - (rows - 1) * _LEADING
        y = int(rng.integers(*_span(_MARGIN, lowest)))
        # Ink that reaches past the type's own box stays in the picture.
        y = min(max(y, _MARGIN - top), self.height - _MARGIN - bottom)
        picture = Image.new("L", (self.width, self.height), paper)
        _write(ImageDraw.Draw(picture), (x, y), text, face, ink)
        return np.repeat(np.asarray(picture)[..., None], 3, axis=2), text

    def _set(
        self, text: str, font: str, size: int, key: str
    ) -> tuple[str, ImageFont.FreeTypeFont, tuple[int, int, int, int]]:
        """The text in rows, the type at the size, or the largest below it that fits, and the box of the text's ink."""
        room = (self.width - 2 * _MARGIN, self.height - 2 * _MARGIN)
        wide = tall = 0
        for smaller in range(size, self.sizes[0] - 1, -1):
            face = load_font(font, smaller)
            said = text if self.rows == 1 else _broken(text, face, room[0] - _OVERHANG)
            left, top, right, bottom = _ink(said, face)
            wide, tall = right - left, bottom - top
            if wide <= room[0] and tall <= room[1] and said.count("\n") < self.rows:
                return said, face, (left, top, right, bottom)
        raise BadItem(
            key,
            f"{text!r} is {wide} x {tall} pixels at size {self.sizes[0]}, the picture has room for {room[0]} x "
            f"{room[1]} and {self.rows} rows: lower max_characters or sizes",
        )


def _broken(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """The text with a line break wherever the next word would not fit."""
    words, between = words_of(text)
    rows = [words[0]]
    for word in words[1:]:
        longer = f"{rows[-1]}{between}{word}"
        if _ink(longer, face)[2] <= width:
            rows[-1] = longer
        else:
            rows.append(word)
    return "\n".join(rows)


def _ink(text: str, face: ImageFont.FreeTypeFont) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the ink of rows, from where the first one's type begins."""
    boxes = [
        np.add(face.getbbox(row), (0, y, 0, y))
        for y, row in zip(_heights(text, face), text.split("\n"))
    ]
    left, top, right, bottom = np.array(boxes).T
    return (
        math.floor(left.min()),
        math.floor(top.min()),
        math.ceil(right.max()),
        math.ceil(bottom.max()),
    )


def _heights(text: str, face: ImageFont.FreeTypeFont) -> range:
    """Pixels from the top of the first row's type to that of each row."""
    step = sum(face.getmetrics()) + _LEADING
    return range(0, step * (text.count("\n") + 1), step)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    face: ImageFont.FreeTypeFont,
    ink: int,
) -> None:
    for y, row in zip(_heights(text, face), text.split("\n")):
        draw.text((at[0], at[1] + y), row, fill=ink, font=face)


def line_of(texts: tuple[str, ...], shortest: int, longest: int, rng: np.random.Generator) -> str:
    """Consecutive words of the texts, from a random one on, that fit a length drawn evenly; a first word may be cut."""
    length = int(rng.integers(shortest, longest + 1))
    while not (line := _line_of(texts, length, rng).strip()):  # a blank between Han is no line
        pass
    return line


def _line_of(texts: tuple[str, ...], length: int, rng: np.random.Generator) -> str:
    line = ""
    while True:
        words, between = words_of(texts[int(rng.integers(len(texts)))])
        start = int(rng.integers(len(words))) if not line else 0
        for word in words[start:]:
            longer = f"{line}{between}{word}" if line else word[:length]
            if len(longer) > length:
                return line
            line = longer
        if len(line) + len(between) + 1 > length:
            return line


def check_range(what: str, span: tuple[int, ...], largest: int) -> None:
    """Refuses what is not (low, high) from 0 to `largest`."""
    if len(span) != 2 or not 0 <= span[0] <= span[1] <= largest:
        raise UserError(
            f"{what} is {span}: two numbers, the lower first, from 0 to at most {largest}"
        )


def _span(first: int, last: int) -> tuple[int, int]:
    """The bounds of a draw from `first` to `last`, which may lie before it."""
    return (min(first, last), max(first, last) + 1)


def _drawn_grey(span: tuple[int, ...], rng: np.random.Generator) -> int:
    return int(rng.integers(span[0], span[1] + 1))
