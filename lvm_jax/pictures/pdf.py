"""Pages of PDF files as pictures and as text, by PDFium: `pip install 'lvm_jax[pdf]'`.

H, W: pixels of a page.
"""

import contextlib
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
    """A PDF file that cannot be read; the message names it and says why."""


def count_pages(path: epath.PathLike, *, most: int) -> int:
    """How many pages a file has, without rendering any.

    Raises:
      BadPdf: encrypted, damaged, without pages, or of more than `most` pages.
    """
    with _opened(path) as document:
        count = len(document)
    if not count:
        raise BadPdf(f"{path} has 0 pages: the file is cut or damaged; make it again")
    if count > most:
        raise BadPdf(
            f"{path} has {count} pages, at most {most} are read: raise max_pages, or split the file"
        )
    return count


def render_page(path: epath.PathLike, number: int, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """A page as RGB, whatever its size on paper.

    Args:
      path: the file.
      number: of the page, from 0.
      side: pixels of the longer side.

    Raises:
      BadPdf: see `count_pages`.
      BadImage: the page is damaged.
    """
    with _opened(path) as document:
        try:
            page = document[number]
            scale = side / max(*page.get_size(), 1)
            picture = page.render(scale=scale).to_pil().convert("RGB")
        # PDFium gives up in many ways on a damaged page: no list of them would be whole.
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadImage(f"{path} page {number + 1}", f"cannot be rendered ({why})") from error
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
            raise BadPdf(f"{path} page {number + 1} has no readable text ({why})") from error
    lines = text.replace(_BROKEN_WORD, "-\n").splitlines()
    return "\n".join(stripped for line in lines if (stripped := line.strip()))


@contextlib.contextmanager
def _opened(path: epath.PathLike) -> Iterator[Any]:
    with _ONE_AT_A_TIME:
        document = _document(path)
        try:
            yield document
        finally:
            document.close()


def _document(path: epath.PathLike) -> Any:
    try:
        import pypdfium2
        import pypdfium2.raw
    except ImportError as error:
        raise UserError(
            f"{path} is read by the package pypdfium2: pip install 'lvm_jax[pdf]'"
        ) from error
    # A local file is mapped, so that a page of a large one costs little.
    source = str(path) if files.is_local(path) else epath.Path(path).read_bytes()
    try:
        return pypdfium2.PdfDocument(source)
    except FileNotFoundError as error:
        raise BadPdf(f"{path} does not exist: check the path") from error
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise BadPdf(f"{path} is encrypted: save a copy without a password") from error
        why = "cut or damaged, or no PDF"
        raise BadPdf(f"{path} cannot be read ({why}): make it again") from error
