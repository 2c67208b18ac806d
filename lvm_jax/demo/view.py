"""Renders the elements of the page as HTML from templates/, with pictures inside: none goes through the disk.

H, W: pixels.
"""

import functools
import io
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lvm_jax.demo.studio import (
    Example,
    Reply,
    Strip,
    Studio,
    how_much_changed,
    likeliest_of,
    mean_of,
)
from lvm_jax.reporting.html import environment, png_url

_SHOWN = 128  # small pictures are enlarged to about this side, with hard pixel edges


def heading() -> str:
    """The purpose of the page."""
    return _render("heading.html")


def examples_row(examples: Sequence[Example]) -> str:
    """A button for each example, with the last images of its prompt and its name."""
    return _render("examples.html", examples=examples) if examples else ""


def strip_table(strip: Strip, studio: Studio) -> str:
    """The strip, one column per image: the given picture above what the decoder reads, and space for more."""
    return _render(
        "strip.html",
        strip=strip,
        given=any(item.given_HWC is not None for item in strip),
        code_maps=[studio.code_map(item) for item in strip],
        max_prompt=studio.max_prompt,
        tokens_per_image=studio.vqgan.tokens_per_image,
        codes=len(studio.colours_K3),
    )


def candidates_row(candidates: Strip, truth: Strip) -> str:
    """The candidates, each with a button that appends it, their mean, and the truth if it is known."""
    if not candidates:
        return ""
    several = len(candidates) > 1
    return _render(
        "candidates.html",
        candidates=candidates,
        likeliest=likeliest_of(candidates) if several else None,
        mean=mean_of(candidates) if several else None,
        truth=truth,
    )


def swapped_rows(replies: tuple[Reply, Reply] | None) -> str:
    """The answers to two queries after the same pairs, and how much they differ; nothing before somebody asks."""
    if replies is None:
        return ""
    rows = [(reply, mean_of(reply.candidates)) for reply in replies]
    return _render("swapped.html", rows=rows, words=how_much_changed(*replies))


def notice(message: str, kind: str = "error") -> str:
    """One line for the user; an empty message takes no space."""
    return _render("notice.html", message=message, kind=kind) if message else ""


def label(model: str, data: str) -> str:
    """The model, and the data it was trained on."""
    return _render("label.html", model=model, data=data)


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    made = environment("lvm_jax.demo")
    made.filters["png_url"] = _enlarged_png_url
    return made


def _enlarged_png_url(image_HWC: UInt8[np.ndarray, "H W 3"]) -> str:
    scale = max(1, _SHOWN // image_HWC.shape[0])
    buffer = io.BytesIO()
    Image.fromarray(image_HWC.repeat(scale, 0).repeat(scale, 1)).save(buffer, format="PNG")
    return png_url(buffer.getvalue())
