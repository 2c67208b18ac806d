"""Files that nobody sees half-written: each is written under a temporary name and then renamed.

A process that is killed before the rename leaves the temporary file behind and the old file untouched. Paths belong to
a file system or an object store (gs://, through `etils.epath`).
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import IO, Any

from etils import epath


def temporary_name(path: epath.PathLike) -> epath.Path:
    """A hidden, unique name beside `path` to write its future contents to."""
    # Beside it, because a rename works only within one file system.
    path = epath.Path(path)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def leftovers(folder: epath.PathLike) -> list[epath.Path]:
    """The temporary files in `folder`: killed writers left them, or writers have them open now."""
    return sorted(epath.Path(folder).glob(".*.tmp"))


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
