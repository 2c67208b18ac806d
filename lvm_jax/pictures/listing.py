"""The files below a folder, on this machine or in a bucket. Whoever lists a folder does it here, by one set of rules:

- hidden names, which begin with a dot, are not there;
- names that are not UTF-8 are skipped: they could not be written into a shard, a list or a message;
- a link to a folder is followed, unless the folder is listed already: so loops end, and nothing is listed twice;
- in a folder of a file system only files and links to files are files, whatever their names say.

What is skipped is counted and named in one warning.
"""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from absl import logging
from etils import epath

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import EXTENSIONS

_NAMED = 3  # of each kind of what was skipped


@dataclasses.dataclass
class _Skipped:
    """What a listing left out: kind -> names, relative to the folder that is listed."""

    names: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )

    def warn(self, root: epath.PathLike) -> None:
        """Says so, once in a process."""
        if self.names:
            kinds = [_told(kind, names) for kind, names in sorted(self.names.items())]
            _warn_once(f"skipped in {root}: {'; '.join(kinds)}")


def find_images(root: epath.PathLike) -> list[str]:
    """The paths of the image files below a folder (jpg, jpeg, png, webp, bmp); see `list_files`.

    Raises:
      UserError: no such folder, or no image in it.
    """
    folder = epath.Path(root)
    return [str(folder / name) for name in list_files(folder, EXTENSIONS, "images")]


def list_files(
    root: epath.PathLike, suffixes: Sequence[str], what: str, *, others: bool = True
) -> list[str]:
    """Sorted paths, relative to `root`, of the files below it with one of `suffixes`; see the module.

    Args:
      root: the folder.
      suffixes: in lower case; case is ignored. In a bucket, if all of them have a dot, a name that ends in one is taken
        for a file without looking.
      what: the user's word for these files.
      others: counts and names files with other suffixes too.

    Raises:
      UserError: no such folder, no such file in it, or a sub-folder that cannot be read.
    """
    folder, skipped, wanted = existing_folder(root, what), _Skipped(), tuple(suffixes)
    local = files.is_local(folder)
    found = []
    for name in _walk(folder, skipped) if local else _walk_bucket(folder, wanted, skipped):
        if name.lower().endswith(wanted):
            found.append(name)
        elif others:
            base = name.rpartition("/")[2].lower()
            kind = f"*.{base.rpartition('.')[2]}" if "." in base else "without a suffix"
            skipped.names[kind].append(name)
    skipped.warn(root)
    if not found:
        raise UserError(
            f"{root} holds no {what}, nor do its sub-folders: put some there ({', '.join(suffixes)})"
        )
    return sorted(found)


def list_folder(folder: epath.PathLike) -> list[epath.Path]:
    """What lies in one folder, sorted by name; see the module.

    Raises:
      OSError: it cannot be read.
    """
    skipped = _Skipped()
    found = [path for path in epath.Path(folder).iterdir() if _is_shown(path.name, "", skipped)]
    skipped.warn(folder)
    return sorted(found)


def list_frames(folder: epath.PathLike) -> list[epath.Path]:
    """The image files directly in a folder, in the order of `by_numbers`; see the module.

    Raises:
      OSError: the folder cannot be listed.
    """
    found = [path for path in list_folder(folder) if path.name.lower().endswith(EXTENSIONS)]
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


def _walk_bucket(folder: epath.Path, suffixes: tuple[str, ...], skipped: _Skipped) -> Iterator[str]:
    # Not epath's walk: it drops the gs:// of what it finds (etils 1.15). And not is_dir for every path: in a bucket
    # with a million images that would take a day.
    dotted = all("." in suffix for suffix in suffixes)

    def walk(folder: epath.Path, within: str) -> Iterator[str]:
        for path in folder.iterdir():
            if not _is_shown(path.name, within, skipped):
                continue
            if not (dotted and path.name.lower().endswith(suffixes)) and path.is_dir():
                yield from walk(path, f"{within}{path.name}/")
            else:
                yield within + path.name

    return walk(folder, "")


def _walk(folder: epath.Path, skipped: _Skipped) -> Iterator[str]:
    """The files below a local folder. Links wait until the real folders are listed, which so keep their names."""
    seen = {_identity(folder)}
    ways = collections.deque([(os.fspath(folder), "")])
    links: collections.deque[tuple[str, str]] = collections.deque()
    while ways or links:
        path, within = ways.popleft() if ways else links.popleft()
        if within and not _is_new(path, seen):
            skipped.names["folders listed already, behind links"].append(within.rstrip("/"))
            continue
        for entry in _entries(path):
            if not _is_shown(entry.name, within, skipped):
                continue
            if os.path.isdir(
                entry
            ):  # False for a link that leads nowhere, where DirEntry's own may raise
                later = links if entry.is_symlink() else ways
                later.append((entry.path, f"{within}{entry.name}/"))
            elif os.path.isfile(entry):
                yield within + entry.name
            else:
                kind = (
                    "links that lead nowhere" if entry.is_symlink() else "neither file nor folder"
                )
                skipped.names[kind].append(within + entry.name)


def _entries(path: str) -> Iterable[os.DirEntry]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{path} cannot be listed ({error.strerror}): make it readable, or move it away"
        ) from error


def _identity(path: epath.PathLike) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_new(path: str, seen: set[tuple[int, int]]) -> bool:
    identity = _identity(path)
    known = identity in seen
    seen.add(identity)
    return not known


def _is_shown(name: str, within: str, skipped: _Skipped) -> bool:
    if name.startswith("."):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # the file system's bytes, which Python carries as lone surrogates
        skipped.names["names that are not UTF-8"].append(within + name)
        return False
    return True


def _told(kind: str, names: list[str]) -> str:
    shown = ", ".join(
        name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        for name in sorted(names)[:_NAMED]
    )
    return f"{len(names)} {kind} ({shown}{', ...' if len(names) > _NAMED else ''})"


@functools.cache
def _warn_once(message: str) -> None:
    logging.warning("%s", message)
