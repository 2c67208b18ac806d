"""Pages to read: image files and PDF files, alone or in folders.

H, W: pixels of a page.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8

from lvm_jax import files
from lvm_jax.errors import BadData, UserError
from lvm_jax.pictures.decode import EXTENSIONS, load_image
from lvm_jax.pictures.listing import by_numbers, list_files
from lvm_jax.pictures.pdf import EXTENSION, count_pages, render_page

SUMMARY = "pages.json"  # of all answers, beside them


@dataclasses.dataclass(frozen=True)
class Page:
    """A picture that is still in its file.

    Attributes:
      name: unique; also the name of its answer, below the folder of answers.
      file: where it is.
      number: of the page in a PDF file, from 0; None: the file is an image.
    """

    name: str
    file: epath.Path
    number: int | None = None

    def picture(self, side: int) -> UInt8[np.ndarray, "H W 3"]:
        """Reads it; a page of a PDF file is rendered with a longer side of `side` pixels.

        Raises:
          BadData: it cannot be read; the message says why.
        """
        if self.number is None:
            return load_image(self.file, fit=True)
        return render_page(self.file, self.number, side)


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
      pages: in order.
      refused: a line for each file that cannot be read.
    """

    pages: tuple[Page, ...]
    refused: tuple[str, ...]


def list_pages(
    source: epath.PathLike, *, max_pages: int, output: epath.PathLike | None = None
) -> Listing:
    """The pages of a file, or of all image and PDF files below a folder; reads no picture.

    Args:
      source: the file or folder.
      max_pages: of a PDF file; one with more is refused as a whole.
      output: the folder of answers. Below `source` its pictures are copies of pages, and left out.

    Raises:
      UserError: nothing is there, no page can be read, or answers would lie among the pages; a single bad file is named
        by what is wrong with it.
    """
    path = epath.Path(source)
    if not path.exists():
        raise UserError(f"{path} does not exist: name an image, a PDF file or a folder of them")
    if not path.is_dir():
        if not path.name.lower().endswith((*EXTENSIONS, EXTENSION)):
            raise UserError(
                f"{path} is no page: give an image ({', '.join(EXTENSIONS)}), a {EXTENSION} file or a folder"
            )
        names = [path.name]
        base = path.parent
    else:
        base = path
        suffixes = (*EXTENSIONS, EXTENSION)
        names = sorted(list_files(path, suffixes, "pages", others=False), key=by_numbers)
    if output is not None:
        names = _without(names, base, output)
    pages: list[Page] = []
    refused: list[str] = []
    for name, label in zip(names, _labels(names), strict=True):
        try:
            pages += _of_file(base / name, label, max_pages)
        except BadData as error:
            refused.append(str(error))
            logging.warning("%s", error)
    if not pages:
        raise UserError(
            refused[0]
            if len(refused) == 1
            else f"{path}: {len(refused)} files, all bad: {refused[0]}"
        )
    return Listing(tuple(_apart(pages)), tuple(refused))


def _without(names: list[str], base: epath.Path, output: epath.PathLike) -> list[str]:
    """The names below `base` that do not lie in the folder of answers."""
    pages, answers = files.real(base), files.real(output)
    if answers == pages:
        raise UserError(
            f"{output} holds the pages, and the answer to NAME.png would overwrite it: name another folder for the "
            "answers"
        )
    if not answers.startswith(f"{pages}/"):
        return names
    kept = [name for name in names if not files.real(base / name).startswith(f"{answers}/")]
    if not kept:
        raise UserError(f"{base} holds no pages but those in {output}: put some there")
    return kept


def _of_file(file: epath.Path, label: str, max_pages: int) -> list[Page]:
    if not file.name.lower().endswith(EXTENSION):
        return [Page(label, file)]
    count = count_pages(file, most=max_pages)
    digits = len(str(count))
    return [Page(f"{label}-{i + 1:0{digits}d}", file, i) for i in range(count)]


def _labels(names: Sequence[str]) -> list[str]:
    """Names without suffixes, where those differ."""
    stems = [name.rpartition(".")[0] for name in names]
    return [
        stem if stems.count(stem) == 1 else name.replace(".", "-")
        for stem, name in zip(stems, names, strict=True)
    ]


def _apart(pages: Sequence[Page]) -> Iterator[Page]:
    """Pages whose names differ from each other: `a-1.png` may lie beside an `a.pdf`, and `pages.png` anywhere."""
    taken = {SUMMARY.removesuffix(".json")}
    for page in pages:
        name, number = page.name, 2
        while name in taken:
            name, number = f"{page.name} ({number})", number + 1
        taken.add(name)
        yield dataclasses.replace(page, name=name)
