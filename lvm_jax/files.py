"""Files that are never seen half-written: each is written under another name and then renamed.

A process that is killed on the way leaves the other name behind, and what stood there before as it was.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

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
