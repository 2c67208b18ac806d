"""The files below a folder, on this machine or in a bucket."""

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
