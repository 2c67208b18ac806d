"""A page that shows pictures beside their conversations, for a person to look at.

Shape legend: H, W of the page.
"""

import textwrap

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from data_pipelines.documents.fonts import has_character, load_font
from lvm_jax.data.image_text.record import FORMATS, ImageText
from lvm_jax.pictures.decode import load_image

_SIZE = 11
_LEADING = 14
_TEXT_WIDTH, _LETTERS = 560, 88
_PICTURE = 512  # the longest side that is shown
_GAP = 6
_MOST_LINES = 36


def text_page(records: list[ImageText], font: str = "DejaVuSans") -> UInt8[np.ndarray, "H W 3"]:
    """One record a row: pictures on the left, source, key, facets and conversation on the right.

    Args:
      records: at least one.
      font: of the words, see `documents.fonts.font_path`; what it lacks is written as its code.
    """
    rows = [_row(record, font) for record in records]
    height = sum(row.height + _GAP for row in rows)
    page = Image.new("RGB", (max(row.width for row in rows), height), "gainsboro")
    top = 0
    for row in rows:
        page.paste(row, (0, top))
        top += row.height + _GAP
    return np.asarray(page)


def _row(record: ImageText, font: str) -> Image.Image:
    pictures = [Image.fromarray(load_image(content, formats=FORMATS)) for content in record.images]
    for picture in pictures:
        picture.thumbnail((_PICTURE, _PICTURE))
    lines = _lines(record, font)
    width = sum(picture.width + _GAP for picture in pictures)
    height = max([_LEADING * len(lines) + 4, *(picture.height for picture in pictures)])
    row = Image.new("RGB", (max(_PICTURE + _GAP, width) + _TEXT_WIDTH, height), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + _GAP
    draw, face = ImageDraw.Draw(row), load_font(font, _SIZE)
    for number, (line, colour) in enumerate(lines):
        draw.text((max(_PICTURE + _GAP, width), _LEADING * number), line, fill=colour, font=face)
    return row


def _lines(record: ImageText, font: str) -> list[tuple[str, str]]:
    """Lines of text with their colours."""
    told = [(f"{record.source}: {record.key}", "black"), (record.licence, "dimgray")]
    told += [(" ".join(record.facets[:6]), "dimgray")] if record.facets else []
    for turn in record.conversation.turns:
        told += [(turn.question, "darkgreen"), (turn.answer or "", "navy")]
    lines = [
        (wrapped, colour)
        for text, colour in told
        for part in _spelt(text, font).split("\n")
        for wrapped in (textwrap.wrap(part, _LETTERS) or [""])
    ]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], (f"... and {len(lines) - _MOST_LINES} lines", "dimgray")]
    return lines


def _spelt(text: str, font: str) -> str:
    return "".join(
        c if c.isspace() or has_character(font, c) else f"<U+{ord(c):04X}>" for c in text
    )
