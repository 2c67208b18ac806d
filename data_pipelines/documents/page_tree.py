"""A page as a tree: headings, paragraphs, lists, tables and equations; and what it says, as Markdown with LaTeX."""

import dataclasses
import re
from collections.abc import Sequence

from data_pipelines.documents.formulas import Formula

TABLES = ("markdown", "latex")
_SPECIAL = re.compile(r"([\\`*_$\[\]<])")
# What begins a heading, a quotation or a list where it begins a line.
_STARTS = re.compile(r"^(#{1,6} |>|[-+] |\d+[.)] )")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading, its number included if it has one; level 1 is the title of the page."""

    level: int
    text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Text with formulas in it."""

    parts: tuple[str | Formula, ...]


@dataclasses.dataclass(frozen=True)
class Listing:
    """A list, with bullets or numbers."""

    items: tuple[str, ...]
    numbered: bool


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of as many cells as the header has."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Equation:
    """A formula on a line of its own, with a number in brackets unless that is ""."""

    formula: Formula
    number: str = ""


Block = Heading | Paragraph | Listing | Table | Equation


def words_on(block: Block) -> list[str]:
    """The words and numbers of a block that are set in the font of the text, not in that of the formulas."""
    if isinstance(block, Heading):
        return [block.text]
    if isinstance(block, Paragraph):
        return [part for part in block.parts if isinstance(part, str)]
    if isinstance(block, Listing):
        return list(block.items)
    if isinstance(block, Table):
        return [cell for row in (block.header, *block.rows) for cell in row]
    return []


def markdown(blocks: Sequence[Block], tables: str = TABLES[0]) -> str:
    """What a page says.

    Args:
      blocks: of the page, in reading order.
      tables: "markdown" with pipes, or "latex" as `tabular`.
    """
    return "\n\n".join(_markdown(block, tables) for block in blocks)


def _markdown(block: Block, tables: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_escaped(block.text)}"
    if isinstance(block, Paragraph):
        parts = [
            f"${part.latex}$" if isinstance(part, Formula) else _escaped(part)
            for part in block.parts
        ]
        return _line("".join(parts))
    if isinstance(block, Listing):
        return "\n".join(
            f"{f'{number}.' if block.numbered else '-'} {_line(_escaped(item))}"
            for number, item in enumerate(block.items, 1)
        )
    if isinstance(block, Table):
        return (_tabular if tables == "latex" else _pipes)(block)
    tag = rf" \tag{{{block.number}}}" if block.number else ""
    return f"$$\n{block.formula.latex}{tag}\n$$"


def _pipes(table: Table) -> str:
    rows = [table.header, ("---",) * len(table.header), *table.rows]
    cells = [[_escaped(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _tabular(table: Table) -> str:
    rows = [
        " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in row) + r" \\"
        for row in (table.header, *table.rows)
    ]
    begin, end = rf"\begin{{tabular}}{{{'l' * len(table.header)}}}", r"\end{tabular}"
    return "\n".join((begin, *rows, end))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _line(text: str) -> str:
    """A line of text that Markdown does not take for something else."""
    return _STARTS.sub(lambda found: _before_mark(found.group()), text)


def _before_mark(start: str) -> str:
    # `1. ` needs its backslash before the point.
    place = len(start.rstrip()) - 1 if start[0].isdigit() else 0
    return f"{start[:place]}\\{start[place:]}"
