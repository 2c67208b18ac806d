"""A page in typst's markup: where its blocks stand, and which of them the page has room for.

A point of typst is a pixel. Texts are strings of typst, so that nothing in them is markup.
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from data_pipelines.documents.formulas import Formula
from data_pipelines.documents.page_tree import Block, Equation, Heading, Listing, Paragraph, Table
from data_pipelines.documents.typesetting import Face, places, set_page

MARGIN = 0.06  # of the page's shorter side
GUTTER = 0.04  # of its width, between columns
BULLET = "•"
_HEADINGS = (1.7, 1.3, 1.12)  # times the size of the text, by level
_LEAN = 0.3  # of the size: how far a letter may lean out of its column


@dataclasses.dataclass(frozen=True)
class Template:
    """How a page is set."""

    columns: int
    numbered: bool  # headings and equations
    ruled: bool  # tables have all lines; else three
    justified: bool


# By name, such as `2nr`: two columns, numbered, ruled; `j` is justified.
TEMPLATES = {
    f"{columns}{'n' if numbered else ''}{'r' if ruled else ''}{'j' if justified else ''}": Template(
        columns, numbered, ruled, justified
    )
    for columns in (1, 2)
    for numbered in (False, True)
    for ruled in (False, True)
    for justified in (False, True)
}


@dataclasses.dataclass(frozen=True)
class Sheet:
    """What a page is set on and with.

    Attributes:
      height, width: in pixels.
      template: how.
      face: the font of the text.
      size: of the type in pixels.
      leading: from line to line, over the size.
      paper, ink: greys, 0 is black.
      unspaced: the language has no blanks between words.
    """

    height: int
    width: int
    template: Template
    face: Face
    size: int
    leading: float
    paper: int
    ink: int
    unspaced: bool

    @property
    def margin(self) -> int:
        """Pixels around the text."""
        return round(MARGIN * min(self.height, self.width))

    @property
    def gutter(self) -> int:
        """Pixels between two columns."""
        return round(GUTTER * self.width)

    @property
    def column_width(self) -> int:
        """Pixels of a line."""
        columns = self.template.columns
        return (self.width - 2 * self.margin - self.gutter * (columns - 1)) // columns

    @property
    def characters(self) -> int:
        """Of a line, about."""
        return round(self.column_width / (self.size * (1.0 if self.unspaced else 0.5)))

    @property
    def lines(self) -> float:
        """Of all columns."""
        inside = self.height - 2 * self.margin
        return self.template.columns * inside / (self.size * self.leading)


def fitting(blocks: Sequence[Block], sheet: Sheet) -> list[Block]:
    """The first blocks that end on the page, without those that are wider than their column or higher than the page."""
    sizes, ends = places(page_markup(blocks, sheet), sheet.face, "size", "end")
    too_large = {number for number, large in sizes if large}
    if too_large:  # without them others move up
        return fitting([b for number, b in enumerate(blocks) if number not in too_large], sheet)
    kept = [number for number, page in ends if page == 1]
    # A heading is for what comes below it.
    while kept and isinstance(blocks[kept[-1]], Heading):
        kept.pop()
    return [blocks[number] for number in kept]


def picture_of(blocks: Sequence[Block], sheet: Sheet) -> UInt8[np.ndarray, "H W 3"]:
    """The page.

    Raises:
      ValueError: it is not one page; or a word is wider than its column.
    """
    picture = set_page(page_markup(blocks, sheet), sheet.face)
    margin, lean = sheet.margin, round(_LEAN * sheet.size)
    strips = [picture[: margin - lean], picture[lean - margin :]]
    between = [(0, margin), (sheet.width - margin, sheet.width)]
    if sheet.template.columns == 2:
        left = margin + sheet.column_width
        between.append((left, left + sheet.gutter))
    strips += [picture[:, left + lean : right - lean] for left, right in between]
    if any((strip != sheet.paper).any() for strip in strips):
        raise ValueError("a word is wider than its column")
    return picture


def page_markup(blocks: Sequence[Block], sheet: Sheet) -> str:
    """The document: each block tells the page on which it ends, tables and equations whether they are too large."""
    template, language = sheet.template, "zh" if sheet.unspaced else "en"
    prelude = f"""
#set page(width: {sheet.width}pt, height: {sheet.height}pt, margin: {sheet.margin}pt, columns: {template.columns},
  fill: luma({sheet.paper}))
#set columns(gutter: {sheet.gutter}pt)
#set text({sheet.face.markup}, size: {sheet.size}pt, fill: luma({sheet.ink}), lang: "{language}", hyphenate: false,
  top-edge: 0.75em, bottom-edge: -0.25em)
#set par(justify: {_bool(template.justified)}, leading: {sheet.leading - 1:.3f}em,
  spacing: {1.4 * sheet.leading - 1:.3f}em)
#let end(number) = context [#metadata((number, here().page()))<end>]
#let sized(number, taken, room) = [#metadata((number, taken.width > room.width or taken.height > room.height))<size>]
"""
    return prelude + "\n\n".join(
        _block(number, block, sheet) for number, block in enumerate(blocks)
    )


def _block(number: int, block: Block, sheet: Sheet) -> str:
    if isinstance(block, Paragraph):
        parts = [
            f"${part.typst}$" if isinstance(part, Formula) else _string(part)
            for part in block.parts
        ]
        return f"{''.join(parts)}#end({number})"
    if isinstance(block, Heading):
        size = _HEADINGS[block.level - 1]
        # A stroke makes any font bold.
        bold = f"size: {size}em, stroke: 0.02em + luma({sheet.ink})"
        return (
            f"#block(sticky: true, breakable: false, above: 1.6em, below: 1em)"
            f"[#end({number})#text({bold})[{_string(block.text)}]]"
        )
    if isinstance(block, Listing):
        items = ", ".join(f"[{_string(item)}]" for item in block.items)
        call = "#enum(" if block.numbered else f"#list(marker: [{_string(BULLET)}], "
        inside = f"{call}{items})"
    elif isinstance(block, Table):
        inside = _table(number, block, sheet)
    else:
        inside = _equation(number, block)
    return f"#block(breakable: false, width: 100%)[#end({number}){inside}]"


def _table(number: int, table: Table, sheet: Sheet) -> str:
    rows = [", ".join(f"[{_string(cell)}]" for cell in row) for row in (table.header, *table.rows)]
    line = f"0.06em + luma({sheet.ink})"
    if sheet.template.ruled:
        cells, stroke = ", ".join(rows), line
    else:
        header, *others = rows
        rule = "table.hline()"
        cells, stroke = ", ".join((rule, header, rule, *others, rule)), "none"
    hlines = f"#set table.hline(stroke: {line})"
    return (
        f"{hlines}\n#layout(room => {{ let it = table(columns: {len(table.header)}, align: center, "
        f"stroke: {stroke}, inset: 0.35em, {cells}); "
        f"sized({number}, measure(width: room.width, it), room); align(center, it) }})"
    )


def _equation(number: int, equation: Equation) -> str:
    formula = f"$ {equation.formula.typst} $"  # the blanks put it on a line of its own
    # Its number takes the same room at both sides.
    aside, numbering = (
        ("4em", f'(..) => "({equation.number})"') if equation.number else ("0em", "none")
    )
    return (
        f"#layout(room => {{ let bare = measure({formula}); "
        f"let taken = (width: bare.width + {aside}.to-absolute(), height: bare.height); "
        f"sized({number}, taken, room); set math.equation(numbering: {numbering}); {formula} }})"
    )


def _string(text: str) -> str:
    return f"#{json.dumps(text, ensure_ascii=False)}"


def _bool(value: bool) -> str:
    return "true" if value else "false"
