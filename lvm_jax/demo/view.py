"""Renders the elements of the page as HTML from templates/, with pictures inside: none goes through the disk."""

import dataclasses
import functools
import io
from collections.abc import Sequence
from typing import Any

import jinja2
from PIL import Image

from lvm_jax.demo.drops import Picture
from lvm_jax.reporting.html import environment, png_url

_SHOWN = 128  # small pictures are enlarged to about this side, with hard pixel edges
_LARGEST = 900  # and large ones are scaled down to it


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleButton:
    """What a button shows.

    Attributes:
      name: for people.
      pictures: at most three; one may be wide.
    """

    name: str
    pictures: Sequence[Picture]


def heading() -> str:
    """The purpose of the page."""
    return render("heading.html")


def notice(message: str, kind: str = "error") -> str:
    """One line for the user; an empty message takes no space."""
    return render("notice.html", message=message, kind=kind) if message else ""


def label(lines: Sequence[tuple[str, str]]) -> str:
    """Names with what is to say about each, such as the model and its data."""
    return render("label.html", lines=lines) if lines else ""


def purpose(words: str) -> str:
    """What a tab does."""
    return render("purpose.html", words=words)


def example_buttons(examples: Sequence[ExampleButton], note: str) -> str:
    """A button for each example: pictures and a name.

    Args:
      examples: in the order of their numbers.
      note: small print in the heading.
    """
    return render("examples.html", examples=examples, note=note) if examples else ""


def render(template: str, **values: Any) -> str:
    """A template of templates/, filled in; what the values say is text, never markup."""
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    made = environment("lvm_jax.demo")
    made.filters["png_url"] = _shown_png_url
    return made


def _shown_png_url(image_HWC: Picture) -> str:
    scale = max(1, _SHOWN // max(image_HWC.shape[:2]))
    image = Image.fromarray(image_HWC.repeat(scale, 0).repeat(scale, 1))
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return png_url(buffer.getvalue())
