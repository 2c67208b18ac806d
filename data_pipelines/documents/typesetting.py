"""Pictures by typst: of its own markup, and of SVG. It needs no network, and brings fonts for mathematics.

H, W: pixels of a picture. A point of typst is a pixel.
"""

import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.documents.fonts import font_path, refuse_missing, require_characters
from lvm_jax.errors import UserError

# Fonts that typst brings, by the names that recipes use.
OWN_FONTS = {"NewComputerModern": "New Computer Modern", "LibertinusSerif": "Libertinus Serif"}
# What we take them to have, since they are no files that could be asked: Latin letters, digits, the usual marks.
_LATIN = frozenset(map(chr, [*range(0x20, 0x7F), *range(0xA1, 0x180), *range(0x2018, 0x201F)]))
_LATIN |= frozenset("–—…€•")
_PPI = 72


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A font as typst knows it.

    Attributes:
      fonts: a `typst.Fonts` that holds it.
      family: its name.
      weight: 100 to 900.
      style: "normal", "italic" or "oblique".
      stretch: its width over the usual one.
    """

    fonts: Any
    family: str
    weight: int = 400
    style: str = "normal"
    stretch: float = 1.0

    @property
    def markup(self) -> str:
        """The arguments of typst's `text` that choose this font and no other."""
        return (
            f'font: "{self.family}", weight: {self.weight}, style: "{self.style}", '
            f"stretch: {100 * self.stretch:g}%, fallback: false"
        )


@functools.lru_cache(maxsize=64)
def face_of(name: str) -> Face:
    """The font of a name in `OWN_FONTS`, or see `fonts.font_path`.

    Raises:
      UserError: there is no such font, or typst is not installed.
    """
    typst = _typst()
    if name in OWN_FONTS:
        return Face(typst.Fonts(include_system_fonts=False), OWN_FONTS[name])
    path = font_path(name)
    # typst takes folders. The first font of a collection is the one that other engines draw.
    fonts = typst.Fonts(include_system_fonts=False, font_paths=[str(Path(path).parent)])
    for font in fonts.fonts():
        if font.path == path and font.index == 0:
            return Face(fonts, font.family, font.weight, font.style, font.stretch)
    raise UserError(f"typst cannot read the font {path}: give a TrueType or OpenType file")


def check_faces(*names: str) -> None:
    """Opens fonts.

    Raises:
      UserError: see `face_of`.
    """
    for name in names:
        face_of(name)


def require_glyphs(name: str, texts: list[str], key: str) -> None:
    """`fonts.require_characters`, also for the fonts of `OWN_FONTS`, of which Latin letters are used.

    Raises:
      BadItem: the font lacks some characters.
    """
    if name not in OWN_FONTS:
        return require_characters(name, texts, key)
    return refuse_missing(name, texts, _LATIN, key)


def places(markup: str, face: Face, *labels: str) -> list[list[Any]]:
    """For each label the values of the `metadata` with it, in the order of the document, as JSON gives them."""
    found = ", ".join(f"query(<{label}>).map(found => found.value)" for label in labels)
    return json.loads(_typst().eval(markup.encode(), f"({found},)", font_paths=face.fonts))


def set_page(markup: str, face: Face) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of a document of one page.

    Raises:
      ValueError: it has several.
    """
    return _drawn(markup, face, {})


def draw_svg(svg: str, face: Face, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of an SVG file whose texts are in one font."""
    markup = (
        f"#set page(width: {width}pt, height: {height}pt, margin: 0pt)\n"
        f'#image(bytes(sys.inputs.svg), format: "svg", width: {width}pt, height: {height}pt)'
    )
    return _drawn(markup, face, {"svg": svg})


def _drawn(markup: str, face: Face, inputs: dict[str, str]) -> np.ndarray:
    pages = _typst().compile(
        markup.encode(), format="png", ppi=_PPI, font_paths=face.fonts, sys_inputs=inputs
    )
    if not isinstance(pages, bytes):
        raise ValueError(f"{len(pages)} pages where one was expected")
    with Image.open(io.BytesIO(pages)) as picture:
        return np.asarray(picture.convert("RGB"))


def _typst() -> Any:
    try:
        import typst
    except ImportError as error:
        raise UserError(
            "tables, formulas and charts by ECharts are drawn by the package typst: "
            "pip install 'lvm_jax[documents]'"
        ) from error
    return typst
