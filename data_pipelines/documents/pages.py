"""Rendered pages: a heading and paragraphs in columns, and their text in reading order.

Shape legend: H, W of the page.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.documents import sides
from data_pipelines.documents.corpus import read_texts, words_of
from data_pipelines.documents.fonts import (
    advance,
    check_fonts,
    font_label,
    load_font,
    require_characters,
)
from data_pipelines.documents.lines import check_range
from data_pipelines.items import Item, Text
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

_MARGIN = 0.06  # of the page's shorter side
_GUTTER = 0.04
_HEADING = 1.4  # times the size of the text


@dataclasses.dataclass(frozen=True)
class PageTemplate:
    """How a page is set."""

    columns: int
    heading: bool
    indent: bool  # the first line of a paragraph; else paragraphs stand apart


TEMPLATES = {
    f"{columns}{'h' if heading else ''}{'i' if indent else ''}": PageTemplate(
        columns, heading, indent
    )
    for columns in (1, 2, 3)
    for heading in (False, True)
    for indent in (False, True)
}


@dataclasses.dataclass(frozen=True)
class Pages:
    """Pages of a text: `{"image": [x], "text": [Text], "facets": [Text, ...]}`; paragraphs are lines of the text.

    Attributes:
      texts: see `corpus.read_texts`.
      count, held_out: number of seen and of held-out pages.
      height, width: in pixels.
      fonts, held_out_fonts: see `fonts.font_path`; empty: held-out pages use the seen ones.
      sizes: smallest and largest size of the type in pixels.
      templates, held_out_templates: names of `TEMPLATES`: columns, `h` with a heading, `i` with indented paragraphs.
      sentences: fewest and most texts that make a paragraph.
      paragraphs: the most paragraphs of a page; a full page ends before.
      paper, ink: ranges of grey, 0 is black.
      held_out_texts: share of the texts that only held-out pages show.
      seed: of every draw.
    """

    texts: str = "english"
    count: int = 1000
    held_out: int = 100
    height: int = 1024
    width: int = 1024
    fonts: tuple[str, ...] = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
    held_out_fonts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (16, 26)
    templates: tuple[str, ...] = tuple(TEMPLATES)
    held_out_templates: tuple[str, ...] = ()
    sentences: tuple[int, ...] = (2, 6)
    paragraphs: int = 40
    paper: tuple[int, ...] = (235, 255)
    ink: tuple[int, ...] = (0, 60)
    held_out_texts: float = 0.1
    seed: int = 0
    name: str = "pages"
    licence: str = "Apache-2.0"
    origin: str = "texts of data_pipelines/assets, rendered"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        sides.check_apart("fonts", self.fonts, self.held_out_fonts)
        sides.check_apart("templates", self.templates, self.held_out_templates)
        sides.check_fraction(self.held_out_texts)
        unknown = sorted({*self.templates, *self.held_out_templates} - set(TEMPLATES))
        if unknown:
            raise UserError(
                f"there is no template {unknown[0]!r}: known are {', '.join(TEMPLATES)}"
            )
        check_range("sizes", self.sizes, min(self.height, self.width) // 4)
        check_range("sentences", self.sentences, 1000)
        check_range("paper", self.paper, 255)
        check_range("ink", self.ink, 255)
        if min(self.sizes[0], self.sentences[0], self.paragraphs) < 1:
            raise UserError("sizes, sentences and paragraphs must be at least 1")

    def keys(self) -> list[str]:
        """See `sides.rendered_keys`; texts and fonts are opened, so that a mistake in them shows before any item."""
        read_texts(self.texts)
        check_fonts(self.fonts, self.held_out_fonts)
        return sides.rendered_keys(self.count, self.held_out)

    def load(self, key: str) -> Item:
        """One page; see `Source`."""
        rng = sides.item_rng(self.seed, self.name, key)
        fonts = sides.choices(self.fonts, self.held_out_fonts, key)
        templates = sides.choices(self.templates, self.held_out_templates, key)
        font = fonts[int(rng.integers(len(fonts)))]
        template = templates[int(rng.integers(len(templates)))]
        # Each text once a page, and if the page is not full then, no more.
        texts = sides.of_side(read_texts(self.texts), key, self.held_out_texts, rng)
        size = int(rng.integers(self.sizes[0], self.sizes[1] + 1))
        setter = _Setter(self, TEMPLATES[template], font, size, rng)
        heading, paragraphs, used = setter.set(texts)
        require_characters(font, used, key)
        truth = "\n".join([heading, *paragraphs] if heading else paragraphs)
        if not truth:
            raise BadItem(
                key, f"no word fits a column at size {size}: use a smaller one, or other texts"
            )
        label = {
            "font": font_label(font) if self.held_out_fonts else "",
            "template": template if self.held_out_templates else "",
        }
        return {
            "image": [setter.picture()],
            "text": [Text(truth)],
            "facets": sides.facets(used, **label),
        }


class _Setter:
    """Sets one page; what it has set is what its text says."""

    def __init__(
        self, pages: Pages, template: PageTemplate, font: str, size: int, rng: np.random.Generator
    ):
        self._pages, self._template, self._font, self._size = pages, template, font, size
        self._rng = rng
        paper, self._ink = (
            int(rng.integers(low, high + 1)) for low, high in (pages.paper, pages.ink)
        )
        self._image = Image.new("L", (pages.width, pages.height), paper)
        self._draw = ImageDraw.Draw(self._image)
        self._margin = round(_MARGIN * min(pages.height, pages.width))
        gutter = round(_GUTTER * pages.width)
        inside = pages.width - 2 * self._margin
        self._column_width = (inside - gutter * (template.columns - 1)) // template.columns
        self._step = self._column_width + gutter
        self._leading = round(size * rng.uniform(1.25, 1.6))
        self._column, self._y = 0, self._margin
        self._top = self._margin

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """The page."""
        return np.repeat(np.asarray(self._image)[..., None], 3, axis=2)

    def set(self, texts: Iterator[str]) -> tuple[str, list[str], list[str]]:
        """Sets texts until the page is full; gives heading, paragraphs, and the texts of which some words were set."""
        used: list[str] = []
        heading = ""
        if self._template.heading:
            used.append(next(texts))
            heading = self._set_heading(used[0])
        face = load_font(self._font, self._size)
        paragraphs = []
        low, high = self._pages.sentences
        while len(paragraphs) < self._pages.paragraphs:
            chosen = list(itertools.islice(texts, int(self._rng.integers(low, high + 1))))
            if not chosen:
                break
            words, between = [], " "
            for text in chosen:
                more, between = words_of(text)
                words += more
            done = self._set_paragraph(words, between, face)
            if done:
                paragraphs.append(between.join(words[:done]))
            lengths = np.cumsum([len(words_of(text)[0]) for text in chosen])
            # A text of which one word was set counts as shown.
            used += chosen[: int(np.searchsorted(lengths, done)) + 1] if done else []
            if done < len(words):
                break
        return heading, paragraphs, used

    def _set_heading(self, text: str) -> str:
        """The first words of a text that fit one line over all columns."""
        size = round(self._size * _HEADING)
        words, between = words_of(text)
        width = self._pages.width - 2 * self._margin
        line = self._fitting(words, between, size, width)
        heading = between.join(words[:line])
        if heading:
            face = load_font(self._font, size)
            self._draw.text((self._margin, self._y), heading, fill=self._ink, font=face)
            self._y = self._top = self._margin + round(size * 1.8)
        return heading

    def _set_paragraph(self, words: list[str], between: str, face: ImageFont.FreeTypeFont) -> int:
        """Sets words into the columns; returns how many found room."""
        done = 0
        indent = self._size if self._template.indent else 0
        while done < len(words):
            if not self._room_for_a_line():
                return done
            count = self._fitting(words[done:], between, self._size, self._column_width - indent)
            if not count:  # one word wider than the column
                return done
            x = self._margin + self._column * self._step + indent
            line = between.join(words[done : done + count])
            self._draw.text((x, self._y), line, fill=self._ink, font=face)
            self._y += self._leading
            done, indent = done + count, 0
        if not self._template.indent:
            self._y += self._leading // 2
        return done

    def _room_for_a_line(self) -> bool:
        """Moves to the next column if this one is full; False if it was the last."""
        bottom = self._pages.height - self._margin - self._leading
        if self._y > bottom:
            self._column, self._y = self._column + 1, self._top
        # A heading may leave no room in any column.
        return self._column < self._template.columns and self._y <= bottom

    def _fitting(self, words: list[str], between: str, size: int, width: float) -> int:
        """How many words fit a width."""
        space = advance(self._font, size, between) if between else 0.0
        taken = 0.0
        for count, word in enumerate(words):
            more = advance(self._font, size, word) + (space if count else 0.0)
            if taken + more > width:
                return count
            taken += more
        return len(words)
