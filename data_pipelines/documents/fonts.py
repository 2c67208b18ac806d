"""Fonts: by name those that matplotlib brings (DejaVu, STIX), by path any other.

What a font lacks is counted and named, never drawn as a box. matplotlib is imported when a font is opened: recipes that
render no text do not need it.
"""

import functools
import itertools
import math
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import ImageFont

from data_pipelines.sources.base import BadItem
from lvm_jax.errors import UserError

_SHOWN = 8  # missing characters that a message names


@functools.lru_cache(maxsize=64)
def font_path(name: str) -> str:
    """The file of a font.

    Args:
      name: `DejaVuSans`, `DejaVuSerif-Bold`, `STIXGeneral`, ... or the path of a TrueType or OpenType file.

    Raises:
      UserError: there is no such font, or the file is not one.
    """
    import matplotlib
    from matplotlib.ft2font import FT2Font

    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    path = own / f"{name}.ttf"
    if os.sep in name or name.endswith((".ttf", ".otf", ".ttc")):
        path = Path(name)
    try:
        FT2Font(str(path))
    except (OSError, RuntimeError) as error:
        known = ", ".join(sorted(p.stem for p in own.glob("DejaVu*[!y].ttf")))
        raise UserError(
            f"font {name!r} cannot be opened ({error}): give a file, or one of {known}"
        ) from error
    return str(path)


def check_fonts(*names: Iterable[str]) -> None:
    """Opens fonts.

    Raises:
      UserError: see `font_path`.
    """
    for name in itertools.chain(*names):
        font_path(name)


def font_label(name: str) -> str:
    """How records name a font: without its folder, which differs between machines."""
    return Path(name).stem


def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels. For one thread: FreeType's faces are not shared."""
    # The basic engine draws the same with and without the optional libraqm.
    return ImageFont.truetype(font_path(name), size, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=200_000)
def advance(name: str, size: int, word: str) -> float:
    """The width of a word in pixels."""
    return _measuring(name, size).getlength(word)


@functools.lru_cache(maxsize=1024)
def ink_box(name: str, size: int, text: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a text's ink in pixels, from where its baseline begins; y grows downwards."""
    left, top, right, bottom = _measuring(name, size).getbbox(text, anchor="ls")
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def require_characters(name: str, texts: Iterable[str], key: str) -> None:
    """Checks that a font has a glyph for every character: without one it would draw a box.

    Raises:
      BadItem: it lacks some; the message counts and names them.
    """
    refuse_missing(name, texts, _characters(name), key)


def refuse_missing(name: str, texts: Iterable[str], known: frozenset[str], key: str) -> None:
    """`require_characters` of a font whose characters are known.

    Raises:
      BadItem: see `require_characters`.
    """
    missing = sorted({c for text in texts for c in text if not c.isspace()} - known)
    if missing:
        named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise BadItem(
            key, f"font {font_label(name)} lacks {len(missing)} characters: {named}{more}"
        )


def has_character(name: str, character: str) -> bool:
    """Whether a font has a glyph for a character."""
    return character in _characters(name)


@functools.lru_cache(maxsize=64)
def _characters(name: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(font_path(name)).get_charmap()))


@functools.lru_cache(maxsize=64)
def _measuring(name: str, size: int) -> ImageFont.FreeTypeFont:
    # Shared by threads, unlike `load_font`: Pillow holds the interpreter's lock while it measures.
    return load_font(name, size)
