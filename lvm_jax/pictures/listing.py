"""The files below a folder, on this machine or in a bucket."""

import re
from collections.abc import Iterator, Sequence

from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import EXTENSIONS


def find_images(root: epath.PathLike) -> list[str]:
    """The paths of the image files below a folder (jpg, jpeg, png, webp, bmp); see `list_files`.

    Raises:
      UserError: no such folder, or no image in it.
    """
    folder = epath.Path(root)
    return [str(folder / name) for name in list_files(folder, EXTENSIONS, "images")]


def list_files(root: epath.PathLike, suffixes: Sequence[str], what: str) -> list[str]:
    """Sorted paths, relative to `root`, of the files below it with one of `suffixes`; hidden names are skipped.

    Args:
      root: the folder.
      suffixes: in lower case; case is ignored. If all of them have a dot, a name that ends in one is taken for a file
        without looking.
      what: the user's word for these files.

    Raises:
      UserError: no such folder, or no such file in it.
    """
    found = sorted(_walk(existing_folder(root, what), "", tuple(suffixes)))
    if not found:
        raise UserError(
            f"{root} holds no {what}, nor do its sub-folders: put some there ({', '.join(suffixes)})"
        )
    return found


def list_frames(folder: epath.PathLike) -> list[epath.Path]:
    """The image files directly in a folder, in the order of `by_numbers`; hidden names are skipped.

    Raises:
      OSError: the folder cannot be listed.
    """
    found = [
        path
        for path in epath.Path(folder).iterdir()
        if path.name.lower().endswith(EXTENSIONS) and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: by_numbers(path.name))


def by_numbers(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts frame2 before frame10; names of the same numbers, such as 1 and 01, by their characters."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def existing_folder(root: epath.PathLike, what: str) -> epath.Path:
    """Returns `root` if it is a folder.

    Raises:
      UserError: it is not; `what` says what it should hold.
    """
    folder = epath.Path(root)
    if not folder.is_dir():
        raise UserError(f"{root} is not a folder: give the folder that holds the {what}")
    return folder


def _walk(folder: epath.Path, within: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    # Not epath's walk: it drops the gs:// of what it finds (etils 1.15) and does not follow links to folders. And not
    # is_dir for every path: in a bucket with a million images that would take a day.
    dotted = all("." in suffix for suffix in suffixes)
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        fits = path.name.lower().endswith(suffixes)
        if fits and dotted:
            yield within + path.name
        elif path.is_dir():
            yield from _walk(path, f"{within}{path.name}/", suffixes)
        elif fits:
            yield within + path.name
