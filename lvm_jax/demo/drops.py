"""Files that were dropped on the page: what arrives, and what of it becomes a picture. Nothing is written to disk.

H, W: pixels.
"""

import base64
import binascii
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lvm_jax.demo.refusals import MAX_FILES_BYTES
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage, load_image
from lvm_jax.pictures.pdf import BadPdf, count_pages, render_page

MAX_BYTES = 20 << 20  # of one file
MAX_PIXELS = 40_000_000  # checked in the file's header, before anything is decoded
MAX_PDF_PAGES = 500  # of a file; only the first are rendered
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # their decoders start no other program
_PDF = b"%PDF-"
_RENDERED = 1600  # pixels of the longer side of a PDF page, as experiments/generate.py has it

Picture = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A file: its name, and its content."""

    name: str
    content: bytes


def dropped_files(event: Mapping[str, Any]) -> list[Dropped]:
    """The files of a message of page.js.

    Raises:
      UserError: they are too large together, or one is damaged.
    """
    if "refused" in event:
        raise UserError(
            f"{event['refused'] / 2**20:.0f} MB at once: at most {MAX_FILES_BYTES >> 20} MB; drop fewer or smaller "
            "files"
        )
    return [Dropped(file["name"], _from_base64(file["content"])) for file in event["files"]]


def picture_of(file: Dropped) -> Picture:
    """Decodes an image file.

    Raises:
      UserError: it is too large or not an image; the message names it.
    """
    _check_size(file)
    try:
        return load_image(file.content, MAX_PIXELS, formats=FORMATS)
    except BadImage as error:
        raise UserError(
            f"{file.name}: {error.why}; give a jpg, png, webp, gif or bmp file"
        ) from error


def pages_of(file: Dropped, most: int) -> Iterator[tuple[str, Picture]]:
    """The first `most` pages of a PDF file, or the one of an image, each with a name.

    Raises:
      UserError: see `picture_of`; or a PDF that is damaged, encrypted or of more than `MAX_PDF_PAGES` pages.
    """
    if not file.content.startswith(_PDF):
        yield file.name, picture_of(file)
        return
    _check_size(file)
    try:
        count = count_pages(file.content)
        if count > MAX_PDF_PAGES:
            raise UserError(
                f"{file.name} has {count} pages: at most {MAX_PDF_PAGES} are opened, and the first {most} read; cut "
                "out those that you want"
            )
        for number in range(min(count, most)):
            name = f"{file.name}, page {number + 1} of {count}" if count > 1 else file.name
            yield name, render_page(file.content, number, _RENDERED)
    except (BadPdf, BadImage) as error:
        raise UserError(f"{file.name}: {error.why}") from error


def _check_size(file: Dropped) -> None:
    if len(file.content) > MAX_BYTES:
        raise UserError(
            f"{file.name} has {len(file.content) / 2**20:.1f} MB: at most {MAX_BYTES >> 20} MB are read; make it "
            "smaller"
        )


def _from_base64(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UserError("a file arrived damaged: drop it again") from error
