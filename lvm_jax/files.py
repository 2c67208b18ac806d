"""Files that nobody sees half-written: each is written under a temporary name and then renamed.

A process that is killed before the rename leaves the temporary file behind and the old file untouched. Paths belong to
a file system or an object store (gs://, through `etils.epath`).
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from lvm_jax.errors import UserError

_PATTERN = re.compile(r"[*?\[]")


def temporary_name(path: epath.PathLike) -> epath.Path:
    """A hidden, unique name beside `path` to write its future contents to."""
    # Beside it, because a rename works only within one file system.
    path = epath.Path(path)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def leftovers(folder: epath.PathLike) -> list[epath.Path]:
    """The temporary files in `folder`: killed writers left them, or writers have them open now."""
    return named(folder, ".*.tmp")


def named(folder: epath.PathLike, pattern: str) -> list[epath.Path]:
    """The sorted entries of a folder whose name fits a pattern of `*`, `?` and `[...]`; [] if it is no folder.

    Names that begin with a dot fit only a pattern that does.
    """
    # Not epath's glob: it reads brackets in the folder's own path as a pattern too.
    folder = epath.Path(folder)
    hidden = pattern.startswith(".")
    return sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if fnmatch.fnmatchcase(path.name, pattern) and path.name.startswith(".") == hidden
    )


def expand(path: epath.PathLike) -> list[epath.Path]:
    """The sorted paths that a user's path means: itself if it exists, else all that fit it as a pattern; or [].

    Each level is first taken literally, so `data[1]/*.jpg` are the images of the folder `data[1]`, if there is one.

    Raises:
      UserError: a level is `**`.
    """
    path = epath.Path(path)
    if path.exists():
        return [path]
    if not _PATTERN.search(os.fspath(path)):
        return []
    if path.name == "**":
        raise UserError(f"{path} has a level **: write one * for each level of folders")
    parents = expand(path.parent)
    if _PATTERN.search(path.name):
        return [child for parent in parents for child in named(parent, path.name)]
    return [child for child in (parent / path.name for parent in parents) if child.exists()]


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a name to write to; renames the file to `path` at the end, or removes it on an exception."""
    temporary = temporary_name(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already unless something failed


def write(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a whole file; a string as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: epath.PathLike, content: Any) -> None:
    """Writes a JSON file, indented for human readers."""
    write(path, json.dumps(content, indent=1) + "\n")


def fingerprint(path: epath.PathLike) -> str:
    """16 hex digits of a file's content."""
    return hashlib.sha256(epath.Path(path).read_bytes()).hexdigest()[:16]


def read_json(path: epath.PathLike) -> dict[str, Any] | None:
    """Reads the object in a JSON file; None if there is no such file."""
    path = epath.Path(path)
    return json.loads(path.read_text()) if path.exists() else None


def read_jsonl(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads the objects of a JSONL file, in order, without a last line cut short by a crash; [] if there is no file."""
    path = epath.Path(path)
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # only the last line can be: lines are appended
            break
    return records


def is_local(path: epath.PathLike) -> bool:
    """Whether a path belongs to a file system, not to an object store."""
    return "://" not in os.fspath(path)


def real(path: epath.PathLike) -> str:
    """The absolute path without links; in an object store, which has none, the path itself."""
    return os.path.realpath(path) if is_local(path) else os.fspath(path).rstrip("/")


def sync(file: IO[bytes], path: epath.PathLike) -> None:
    """Makes the contents of `file`, open at `path`, survive a power cut."""
    file.flush()
    if is_local(path):  # an object store makes a file durable on close
        os.fsync(file.fileno())


def sync_folder(folder: epath.PathLike) -> None:
    """Makes the names in a folder, so also a rename, survive a power cut."""
    if is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
