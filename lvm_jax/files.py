"""Files that are never seen half-written: each is written under another name and then renamed.

A process that is killed on the way leaves the other name behind, and what stood there before as it was. Paths are of
a file system or of an object store (gs://, through `etils.epath`).
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import IO, Any

from etils import epath


def temporary_name(path: epath.PathLike) -> epath.Path:
    """Where to write what `path` is to hold: hidden, beside it, and nobody else's."""
    path = epath.Path(path)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def leftovers(folder: epath.PathLike) -> list[epath.Path]:
    """The files in `folder` that writers with a `temporary_name` left when they were killed, or have open now."""
    return sorted(epath.Path(folder).glob(".*.tmp"))


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Gives a name to write to; the file becomes `path` at the end, or is removed by an exception."""
    temporary = temporary_name(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a whole file, a string in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: epath.PathLike, content: Any) -> None:
    """Writes a JSON file for people to read, too."""
    write(path, json.dumps(content, indent=1) + "\n")


def read_json(path: epath.PathLike) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file."""
    path = epath.Path(path)
    return json.loads(path.read_text()) if path.exists() else None


def read_jsonl(path: epath.PathLike) -> list[dict[str, Any]]:
    """The objects of a JSONL file, in order; a last line cut short by a crash is left out; no file gives []."""
    path = epath.Path(path)
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is of a file system, not of an object store."""
    return "://" not in os.fspath(path)


def sync(file: IO[bytes], path: epath.PathLike) -> None:
    """Makes what was written to `file`, which is open at `path`, survive a power cut."""
    file.flush()
    if is_local(path):  # an object store makes a file durable when it is closed
        os.fsync(file.fileno())


def sync_folder(folder: epath.PathLike) -> None:
    """Makes the names in a folder survive a power cut."""
    if is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
