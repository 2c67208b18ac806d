"""Pages with headings, paragraphs, lists, tables and formulas, set by typst; and their Markdown with LaTeX."""

import dataclasses

import numpy as np

from data_pipelines.documents import sides
from data_pipelines.documents.article_writer import PARTS, Writer
from data_pipelines.documents.corpus import read_texts, words_of
from data_pipelines.documents.fonts import font_label
from data_pipelines.documents.lines import check_range
from data_pipelines.documents.page_tree import TABLES, markdown, words_on
from data_pipelines.documents.typesetting import check_faces, face_of, require_glyphs
from data_pipelines.documents.typst_page import BULLET, TEMPLATES, Sheet, fitting, picture_of
from data_pipelines.items import Item, Text
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

_FILL = 1.4  # of the page's lines that are written: what does not fit is left out


@dataclasses.dataclass(frozen=True)
class Articles:
    """Pages of an article: `{"image": [x], "text": [Text], "facets": [Text, ...]}`; the text is Markdown.

    Attributes:
      texts: see `corpus.read_texts`.
      count, held_out: number of seen and of held-out pages.
      height, width: in pixels.
      parts: what a page is made of, beside its title: of `article_writer.PARTS`.
      tables: how the text writes them: "markdown" with pipes, "latex" as `tabular`.
      fonts, held_out_fonts: "NewComputerModern" and "LibertinusSerif", for Latin letters, or see `fonts.font_path`;
        empty: held-out pages use the seen ones. Formulas are in New Computer Modern Math.
      sizes: smallest and largest size of the type in pixels.
      templates, held_out_templates: names of `typst_page.TEMPLATES`.
      paper, ink: ranges of grey, 0 is black.
      held_out_texts: share of the texts, tables and formulas that only held-out pages show.
      seed: of every draw.
    """

    texts: str = "english"
    count: int = 1000
    held_out: int = 100
    height: int = 1024
    width: int = 1024
    parts: tuple[str, ...] = PARTS
    tables: str = TABLES[0]
    fonts: tuple[str, ...] = ("NewComputerModern", "LibertinusSerif", "DejaVuSerif", "DejaVuSans")
    held_out_fonts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (16, 24)
    templates: tuple[str, ...] = tuple(TEMPLATES)
    held_out_templates: tuple[str, ...] = ()
    paper: tuple[int, ...] = (235, 255)
    ink: tuple[int, ...] = (0, 60)
    held_out_texts: float = 0.1
    seed: int = 0
    name: str = "articles"
    licence: str = "Apache-2.0"
    origin: str = "texts of data_pipelines/assets, random tables and formulas, set by typst"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        sides.check_apart("fonts", self.fonts, self.held_out_fonts)
        sides.check_apart("templates", self.templates, self.held_out_templates)
        sides.check_fraction(self.held_out_texts)
        for what, given, known in (
            ("part", self.parts, PARTS),
            ("form of tables", (self.tables,), TABLES),
            ("template", (*self.templates, *self.held_out_templates), tuple(TEMPLATES)),
        ):
            unknown = sorted(set(given) - set(known))
            if unknown or not given:
                raise UserError(
                    f"there is no {what} {(unknown or [''])[0]!r} of articles: known are {', '.join(known)}"
                )
        check_range("sizes", self.sizes, min(self.height, self.width) // 12)
        check_range("paper", self.paper, 255)
        check_range("ink", self.ink, 255)
        if self.sizes[0] < 4:
            raise UserError(f"sizes are {self.sizes}: at least 4 pixels")

    def keys(self) -> list[str]:
        """See `sides.rendered_keys`; texts and fonts are opened, so that a mistake in them shows before any item."""
        read_texts(self.texts)
        check_faces(*self.fonts, *self.held_out_fonts)
        return sides.rendered_keys(self.count, self.held_out)

    def load(self, key: str) -> Item:
        """One page; see `Source`."""
        rng = sides.item_rng(self.seed, self.name, key)
        fonts = sides.choices(self.fonts, self.held_out_fonts, key)
        templates = sides.choices(self.templates, self.held_out_templates, key)
        font = fonts[int(rng.integers(len(fonts)))]
        template = templates[int(rng.integers(len(templates)))]
        sheet = self._sheet(font, template, rng)
        writer = Writer(
            read_texts(self.texts),
            key,
            self.held_out_texts,
            characters=sheet.characters,
            numbered=sheet.template.numbered,
            rng=rng,
        )
        article = writer.write(self.parts, _FILL * sheet.lines)
        written = [word for part in article for word in words_on(part.block)]
        require_glyphs(font, [*written, BULLET], key)
        blocks = fitting([part.block for part in article], sheet)
        if not blocks:
            raise BadItem(key, f"no block fits a column at size {sheet.size}: use a smaller one")
        try:
            picture = picture_of(blocks, sheet)
        except ValueError as error:
            raise BadItem(key, f"{error} at size {sheet.size}: use a smaller one") from error
        shown = {id(block) for block in blocks}
        used = [text for part in article if id(part.block) in shown for text in part.made_of]
        label = {
            "font": font_label(font) if self.held_out_fonts else "",
            "template": template if self.held_out_templates else "",
        }
        return {
            "image": [picture],
            "text": [Text(markdown(blocks, self.tables))],
            "facets": sides.facets(used, **label),
        }

    def _sheet(self, font: str, template: str, rng: np.random.Generator) -> Sheet:
        _, between = words_of(read_texts(self.texts)[0])
        paper, ink = (int(rng.integers(low, high + 1)) for low, high in (self.paper, self.ink))
        return Sheet(
            height=self.height,
            width=self.width,
            template=TEMPLATES[template],
            face=face_of(font),
            size=int(rng.integers(self.sizes[0], self.sizes[1] + 1)),
            leading=float(rng.uniform(1.25, 1.6)),
            paper=paper,
            ink=ink,
            unspaced=not between,
        )
