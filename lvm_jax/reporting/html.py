"""Self-contained pages: a page is a list of blocks, and every block is data for a template of its own.

The markup is in templates/, which escape all text that they are given, so that a source called <script> is a name and
nothing else. Python never writes a tag.
"""

import base64
import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import jinja2
from etils import epath

from lvm_jax.reporting.numbers import is_number, number


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of a page; its template finds it under the name `block`."""

    template: ClassVar[str]


@dataclasses.dataclass(frozen=True)
class Section(Block):
    """A headed part of the page. A block that is None is skipped, so that a caller can write `x if known else None`."""

    template = "section.html"
    title: str
    blocks: Sequence[Block | None]


@dataclasses.dataclass(frozen=True)
class Words(Block):
    """A paragraph; a `soft` one is smaller and paler."""

    template = "words.html"
    text: str
    soft: bool = False


@dataclasses.dataclass(frozen=True)
class Bullets(Block):
    """A list of sentences."""

    template = "bullets.html"
    sentences: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Cards(Block):
    """Large numbers, each with a line of explanation: (number, explanation)."""

    template = "cards.html"
    items: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Table(Block):
    """A table. Numbers are formatted by `number` and right-aligned, and so is the heading of a column that has one."""

    template = "table.html"
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether any of its cells is a number."""
        return [any(is_number(row[i]) for row in self.rows) for i in range(len(self.header))]


@dataclasses.dataclass(frozen=True)
class Picture(Block):
    """A PNG file, copied into the page."""

    template = "picture.html"
    path: epath.Path
    caption: str = ""

    @property
    def url(self) -> str:
        """The file as a data URL."""
        return png_url(self.path.read_bytes())


@dataclasses.dataclass(frozen=True)
class Drawing(Block):
    """An SVG element from `lvm_jax.reporting.charts`: the one thing that a template inserts unescaped."""

    template = "drawing.html"
    svg: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Pairs(Block):
    """Small drawings, two beside each other where there is room."""

    template = "pairs.html"
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Shards(Block):
    """The sentence that introduces a data set."""

    template = "shards.html"
    name: str
    image_size: int
    tokens_per_image: int
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Folded(Block):
    """JSON that opens at a click."""

    template = "folded.html"
    title: str
    content: Any

    @property
    def text(self) -> str:
        """The JSON, indented."""
        return json.dumps(self.content, indent=2)


def page(title: str, subtitle: str, blocks: Sequence[Block | None]) -> str:
    """The whole file; it loads nothing from anywhere."""
    template = environment("lvm_jax.reporting").get_template("page.html")
    return template.render(title=title, subtitle=subtitle, blocks=blocks) + "\n"


def png_url(content: bytes) -> str:
    """A PNG as a data URL, so that a page needs no file beside it."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@functools.cache
def environment(package: str) -> jinja2.Environment:
    """What renders the templates/ of a package: text is escaped, and a name that was not given is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    return made
