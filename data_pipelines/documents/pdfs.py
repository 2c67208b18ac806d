"""Pages of PDF files and what their text layers say."""

import dataclasses
import unicodedata

from etils import epath

from data_pipelines.documents import sides
from data_pipelines.items import Item, Text
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage
from lvm_jax.pictures.listing import list_files
from lvm_jax.pictures.pdf import EXTENSION, BadPdf, count_pages, page_text, render_page

# For `together` of a recipe's entry: all pages of a file share a split.
ONE_FILE = r"(?i)(.*\.pdf)(?:/\d+)?"
# Unicode's categories of what no reader sees: control characters, unassigned ones, those for private use.
_UNREADABLE = ("Cc", "Cn", "Co", "Cs")
_SHOWN = 8  # of them, in a message


@dataclasses.dataclass(frozen=True)
class Pdfs:
    """Every page of the PDF files below `root`: `{"image": [x], "text": [Text], "facets": [Text]}`.

    Keys are `FILE.pdf/00007`, pages from 1. A file that cannot be read has one key, its path, and is one bad item;
    so is a page without a text layer, such as a scan, or with characters that its fonts do not map to Unicode.

    Attributes:
      root: the folder.
      side: pixels of the longer side of a picture.
      max_pages: a longer file is a bad item as a whole.
    """

    root: str
    side: int = 1024
    max_pages: int = 2000
    name: str = "pdfs"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        if min(self.side, self.max_pages) < 1:
            raise UserError(
                f"side is {self.side} and max_pages {self.max_pages}: both must be at least 1"
            )

    def keys(self) -> list[str]:
        """One key a page, or a file that cannot be read; see `Source`."""
        return sorted(
            key
            for file in list_files(self.root, (EXTENSION,), "PDF files")
            for key in self._keys_of(file)
        )

    def load(self, key: str) -> Item:
        """One page; see `Source`."""
        whole = key.lower().endswith(EXTENSION)
        file, page = (
            (key, 0) if whole else (key.rpartition("/")[0], int(key.rpartition("/")[2]) - 1)
        )
        path = epath.Path(self.root) / file
        try:
            if whole:  # `keys` could not read it; here the reason is counted and named
                count_pages(path, most=self.max_pages)
            text = page_text(path, page)
            _check_text(text, key)
            picture = render_page(path, page, self.side)
        except (BadPdf, BadImage) as error:
            raise BadItem(key, str(error)) from error
        return {"image": [picture], "text": [Text(text)], "facets": sides.facets([], pdf=file)}

    def _keys_of(self, file: str) -> list[str]:
        try:
            count = count_pages(epath.Path(self.root) / file, most=self.max_pages)
        except BadPdf:
            return [file]
        return [f"{file}/{number:05d}" for number in range(1, count + 1)]


def _check_text(text: str, key: str) -> None:
    if not text:
        raise BadItem(key, "it has no text layer: write one with an OCR tool, or leave it out")
    unreadable = [c for c in text if c != "\n" and unicodedata.category(c) in _UNREADABLE]
    if unreadable:
        named = ", ".join(f"U+{ord(c):04X}" for c in sorted(set(unreadable))[:_SHOWN])
        raise BadItem(
            key, f"its fonts do not map {len(unreadable)} characters to Unicode ({named})"
        )
