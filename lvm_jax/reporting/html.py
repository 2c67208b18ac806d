"""Self-contained pages: a page is a list of blocks, and each kind of block has a template.

All markup is in templates/, which escape the text they get: a source called <script> stays a name. Python never writes
a tag.
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
    """An element of a page; its template sees it as `block`."""

    template: ClassVar[str]


@dataclasses.dataclass(frozen=True)
class Section(Block):
    """A section with a heading. It skips blocks that are None, so callers can write `x if known else None`."""

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
    """Large numbers with a line of explanation each: (number, explanation)."""

    template = "cards.html"
    items: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Table(Block):
    """A table. `number` formats its numbers; a column that has any is right-aligned, heading included."""

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
class Reading:
    """A picture, copied into the page, and what was read in it.

    Attributes:
      path: of a PNG file.
      truth, answer: in words.
      right: whether the answer counts as true.
    """

    path: epath.Path
    truth: str
    answer: str
    right: bool

    @property
    def url(self) -> str:
        """The file as a data URL."""
        return png_url(self.path.read_bytes())


@dataclasses.dataclass(frozen=True)
class Readings(Block):
    """Pictures beside what they say and what was read."""

    template = "readings.html"
    readings: Sequence[Reading]


@dataclasses.dataclass(frozen=True)
class Drawing(Block):
    """An SVG element from `lvm_jax.reporting.charts`, the only thing that a template inserts unescaped."""

    template = "drawing.html"
    svg: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Pairs(Block):
    """Small drawings, two side by side where there is room."""

    template = "pairs.html"
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Shards(Block):
    """The sentence that introduces a data set; without a `fingerprint` its images are no codes."""

    template = "shards.html"
    name: str
    image_size: int
    tokens_per_image: int
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Folded(Block):
    """JSON that unfolds on a click."""

    template = "folded.html"
    title: str
    content: Any

    @property
    def text(self) -> str:
        """The JSON, indented."""
        return json.dumps(self.content, indent=2)


def page(title: str, subtitle: str, blocks: Sequence[Block | None]) -> str:
    """The whole file, which loads nothing from elsewhere."""
    template = environment("lvm_jax.reporting").get_template("page.html")
    return template.render(title=title, subtitle=subtitle, blocks=blocks) + "\n"


def png_url(content: bytes) -> str:
    """A PNG as a data URL, so that a page needs no file beside it."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@functools.cache
def environment(package: str) -> jinja2.Environment:
    """The renderer for a package's templates/: it escapes text, and an undefined name is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    return made
