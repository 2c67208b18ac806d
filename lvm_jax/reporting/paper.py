"""White paper to lay out pictures and lines of text on, for what a report shows as one PNG.

H, W: pixels of a picture, C: the channels R, G, B.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from lvm_jax.errors import UserError
from lvm_jax.reporting.figures import PAPER

Picture = UInt8[np.ndarray, "H W C"]
Line = tuple[str, tuple[int, int, int]]  # what is written, and its colour

_TEXT = 14  # pixels of a letter's height
_NO_CHARACTER = "\U0010ffff"  # no font has it


def read_font(file: str | Path | None) -> ImageFont.FreeTypeFont:
    """The font of a TrueType file; None: Pillow's own.

    Raises:
      UserError: the file cannot be read.
    """
    if file is None:
        font = ImageFont.load_default(_TEXT)
        assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
        return font
    try:
        return ImageFont.truetype(str(file), _TEXT)
    except OSError as error:
        raise UserError(
            f"--font={file} cannot be read ({error}): name a TrueType or OpenType file"
        ) from error


def written(lines: Sequence[Line], width: int, font: ImageFont.FreeTypeFont) -> Picture:
    """Lines of text, broken where they reach the width in pixels.

    Raises:
      UserError: the font lacks a character.
    """
    broken = [(part, colour) for text, colour in lines for part in _broken(text, width, font)]
    pitch = _TEXT + 5
    canvas = Image.new("RGB", (width, pitch * len(broken) + 4), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (text, colour) in enumerate(broken):
        draw.text((0, pitch * number + 2), text, fill=colour, font=font)
    return np.asarray(canvas)


def _broken(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines of at most the width, between words where that is possible."""
    _check_characters(text, font)
    lines = []
    for word in text.replace("\n", " / ").split(" "):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _check_characters(text: str, font: ImageFont.FreeTypeFont) -> None:
    def drawn(character: str) -> bytes:
        page = Image.new("L", (3 * _TEXT, 3 * _TEXT))
        ImageDraw.Draw(page).text((_TEXT, _TEXT), character, fill=255, font=font)
        return page.tobytes()

    box = drawn(_NO_CHARACTER)
    lacking = [c for c in dict.fromkeys(text) if c.isprintable() and drawn(c) == box]
    if lacking:
        more = " and others" if len(lacking) > 5 else ""
        raise UserError(
            f"the font {font.getname()[0]} lacks {' '.join(lacking[:5])}{more}: name one that has them with --font"
        )


def framed(picture: Picture) -> Picture:
    """The picture with a grey line around it."""
    return np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=190)


def grid(pictures: Sequence[Picture], columns: int) -> Picture:
    """Pictures in rows, all places as large as the largest one."""
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    places = [_placed(p, height + 8, width + 12) for p in pictures]
    blank = _placed(places[0][:0], height + 8, width + 12)
    places += [blank] * (math.ceil(len(places) / columns) * columns - len(places))
    rows = [
        np.concatenate(places[at : at + columns], axis=1) for at in range(0, len(places), columns)
    ]
    return np.concatenate(rows)


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures below one another, from the left edge."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_placed(picture, picture.shape[0], width) for picture in pictures])


def beside(pictures: Sequence[Picture]) -> Picture:
    """Pictures in a row, from the upper edge."""
    height = max(picture.shape[0] for picture in pictures)
    placed = [_placed(picture, height, picture.shape[1]) for picture in pictures]
    return np.concatenate(placed, axis=1)


def _placed(picture: Picture, height: int, width: int) -> Picture:
    """The picture in the upper left of white paper."""
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    return sheet
