"""Pages of PDF files as pictures and as text, by PDFium: `pip install 'lvm_jax[pdf]'`.

H, W: pixels of a page.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax import files
from lvm_jax.errors import BadData, UserError
from lvm_jax.pictures.decode import BadImage

EXTENSION = ".pdf"

# PDFium is not safe for threads, not even with a document each.
_ONE_AT_A_TIME = threading.Lock()
# What PDFium gives for a hyphen at the end of a line, in place of the break.
_BROKEN_WORD = "\ufffe"


class BadPdf(BadData, ValueError):
    """A PDF file that cannot be read; `path` names it, `why` says the reason."""

    def __init__(self, path: str, why: str):
        super().__init__(f"{path} {why}")
        self.path = path
        self.why = why


def count_pages(source: epath.PathLike | bytes, *, most: int | None = None) -> int:
    """How many pages a file has, without rendering any.

    Args:
      source: a path, or the content of a file.
      most: a file with more pages is refused; None: none is.

    Raises:
      BadPdf: encrypted, damaged, without pages, or of more than `most` pages.
    """
    with _opened(source) as document:
        count = len(document)
    if not count:
        raise BadPdf(_name(source), "has 0 pages: the file is cut or damaged; make it again")
    if most is not None and count > most:
        raise BadPdf(
            _name(source),
            f"has {count} pages, at most {most} are read: raise max_pages, or split the file",
        )
    return count


def render_page(
    source: epath.PathLike | bytes, number: int, side: int
) -> UInt8[np.ndarray, "H W 3"]:
    """A page as RGB, whatever its size on paper.

    Args:
      source: a path, or the content of a file.
      number: of the page, from 0.
      side: pixels of the longer side.

    Raises:
      BadPdf: see `count_pages`.
      BadImage: the page is damaged.
    """
    with _opened(source) as document:
        try:
            page = document[number]
            longer = max(*page.get_size(), 1)
            scale = side / longer
            # The product may lie just above `side`, as for A4 in many files, and PDFium's wrapper rounds up.
            while longer * scale > side:
                scale = math.nextafter(scale, 0)
            picture = page.render(scale=scale).to_pil().convert("RGB")
        # PDFium gives up in many ways on a damaged page: no list of them would be whole.
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadImage(
                f"{_name(source)} page {number + 1}", f"cannot be rendered ({why})"
            ) from error
    return np.asarray(picture)


def page_text(path: epath.PathLike, number: int) -> str:
    """The text layer of a page, line by line in the order in which the file draws it; "" if there is none.

    A typesetter draws in reading order, column after column. Blanks around lines and empty lines are left out.

    Args:
      path: the file.
      number: of the page, from 0.

    Raises:
      BadPdf: see `count_pages`; or the page is damaged.
    """
    with _opened(path) as document:
        try:
            text = document[number].get_textpage().get_text_bounded()
        except Exception as error:  # see `render_page`
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadPdf(f"{path} page {number + 1}", f"has no readable text ({why})") from error
    lines = text.replace(_BROKEN_WORD, "-\n").splitlines()
    return "\n".join(stripped for line in lines if (stripped := line.strip()))


@contextlib.contextmanager
def _opened(source: epath.PathLike | bytes) -> Iterator[Any]:
    with _ONE_AT_A_TIME:
        document = _document(source)
        try:
            yield document
        finally:
            document.close()


def _document(source: epath.PathLike | bytes) -> Any:
    name = _name(source)
    try:
        import pypdfium2
        import pypdfium2.raw
    except ImportError as error:
        raise UserError(
            f"{name} is read by the package pypdfium2: pip install 'lvm_jax[pdf]'"
        ) from error
    if not isinstance(source, bytes):
        # A local file is mapped, so that a page of a large one costs little.
        source = str(source) if files.is_local(source) else epath.Path(source).read_bytes()
    try:
        return pypdfium2.PdfDocument(source)
    except FileNotFoundError as error:
        raise BadPdf(name, "does not exist: check the path") from error
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise BadPdf(name, "is encrypted: save a copy without a password") from error
        why = "cut or damaged, or no PDF"
        raise BadPdf(name, f"cannot be read ({why}): make it again") from error


def _name(source: epath.PathLike | bytes) -> str:
    return "<bytes>" if isinstance(source, bytes) else str(source)
