"""The files in an uncompressed tar, read in place.

What a tar may hold, and what is done with it:

| entry | here |
|---|---|
| files: v7, ustar, pax, GNU long names | read |
| hard links, symbolic links to a file of the same tar | read, as that file under the link's name |
| sparse files | read, holes as zeros |
| directories, pax and GNU headers | no files |
| other links, devices, pipes | named and skipped |
| names that are not UTF-8 | read; a byte such as 0xe9 becomes the four characters of `\\xe9` |
| another tar behind the end, as `cat` leaves it | read |
| a damaged header, no end, fewer bytes than announced, compression | refused |
"""

import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from absl import logging
from etils import epath

from lvm_jax.errors import UserError

_BLOCK = tarfile.BLOCKSIZE
_MAX_HEADER = 1 << 24  # a pax header or a long name; honest ones have a few hundred bytes
_MAX_SPARSE = 1 << 30  # a sparse file may announce terabytes of holes


class Place(NamedTuple):
    """Where the bytes of a member lie in its tar.

    Attributes:
      offset: of its first byte.
      size: of the member, in bytes.
      pieces: of a sparse member: (place in the member, size) of each piece; the pieces lie one after the other at
        `offset`, and the rest is zeros.
    """

    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] | None = None


def is_tar(name: str) -> bool:
    """Whether a file of this name is taken for a tar: `.tar`, in any case."""
    return name.lower().endswith(".tar")


def list_members(path: epath.PathLike) -> list[tuple[str, Place]]:
    """The files of a tar, in order, each with its place; seeks from header to header and reads no contents.

    What is skipped (see the module) is counted in the log, the first one named.

    Raises:
      UserError: the file is missing, not a tar, compressed, damaged or cut short.
    """
    try:
        with epath.Path(path).open("rb") as opened:
            entries = list(_entries(_Headers(opened)))
        return _files(entries, path)
    # tarfile lets through what int, struct and its own recursion raise on damaged headers.
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        ValueError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{path} is no whole tar ({error}): copy or build it again, or leave it out; a compressed tar cannot be "
            "indexed"
        ) from error


def read_member(path: epath.PathLike, place: Place) -> bytes:
    """Reads a member of the tar at `path`.

    Raises:
      OSError: the tar cannot be read any more.
    """
    with epath.Path(path).open("rb") as opened:
        opened.seek(place.offset)
        if place.pieces is None:
            return opened.read(place.size)
        content = bytearray(place.size)
        for start, size in place.pieces:
            content[start : start + size] = opened.read(size)
        return bytes(content)


class _Headers:
    """A file for `tarfile` that reads headers only: a size that a damaged header claims allocates nothing."""

    def __init__(self, opened: IO[bytes]):
        self._opened = opened
        self.size = opened.seek(0, 2)
        self.seek, self.tell = opened.seek, opened.tell
        opened.seek(0)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(
                f"the header at byte {self.tell()} claims {size} bytes, the limit is {_MAX_HEADER}"
            )
        return self._opened.read(size)


def _entries(opened: _Headers) -> Iterator[tarfile.TarInfo]:
    """All entries, also of tars that lie one behind the other."""
    start = 0
    while True:
        opened.seek(start)
        # tarfile asks for read, seek and tell only. Escapes, because a lone surrogate could not be written anywhere.
        with tarfile.open(fileobj=opened, mode="r:", errors="backslashreplace") as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
            for entry in tar:
                # A negative size would be read again and again.
                if entry.size < 0 or tar.offset <= entry.offset:
                    raise tarfile.ReadError(f"{entry.name} claims {entry.size} bytes")
                end = entry.offset_data + (
                    sum(size for _, size in entry.sparse) if entry.sparse else entry.size
                )
                if entry.isreg() and end > opened.size:
                    raise tarfile.ReadError("unexpected end of data")
                yield entry
            end = tar.offset
        # tarfile ends in silence at any header that it cannot read.
        following = _behind_the_end(opened, end)
        if following is None:
            return
        start = following


def _behind_the_end(opened: _Headers, offset: int) -> int | None:
    """Where the next tar begins behind the zeros at `offset` that end this one; None if there is none.

    Raises:
      tarfile.ReadError: there are no such zeros.
    """
    opened.seek(offset)
    block = opened.read(_BLOCK)
    if not block:
        raise tarfile.ReadError(
            "it ends without the zeros of a tar's end: cut short, or its writer was stopped"
        )
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"the header at byte {offset} is damaged")
    while block := opened.read(1 << 16):
        if filled := block.lstrip(b"\0"):
            return (opened.tell() - len(filled)) // _BLOCK * _BLOCK
    return None


def _files(entries: list[tarfile.TarInfo], path: epath.PathLike) -> list[tuple[str, Place]]:
    """The entries that are files, links resolved; the others are counted and logged."""
    found, skipped = [], []
    known = {posixpath.normpath(entry.name): entry for entry in entries}
    for entry in entries:
        file = _target(entry, known)
        if file is not None and (place := _place(file)) is not None:
            found.append((entry.name, place))
        elif not entry.isdir():
            skipped.append(entry.name)
    if skipped:
        logging.warning(
            "%s: skipped %d entries that are no files of this tar, or sparse and above %d bytes; the first: %s",
            path,
            len(skipped),
            _MAX_SPARSE,
            skipped[0],
        )
    return found


def _target(entry: tarfile.TarInfo, known: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The file that an entry is or leads to."""
    seen: set[str] = set()
    while entry.issym() or entry.islnk():
        # A hard link names a member from the tar's root, a symbolic link from its own folder.
        folder = posixpath.dirname(entry.name) if entry.issym() else ""
        name = posixpath.normpath(posixpath.join(folder, entry.linkname))
        if name in seen or name not in known:
            return None
        seen.add(name)
        entry = known[name]
    return entry if entry.isreg() else None


def _place(file: tarfile.TarInfo) -> Place | None:
    sparse: Any = file.sparse  # pairs of numbers, which typeshed does not know
    if sparse is None:
        return Place(file.offset_data, file.size)
    pieces = tuple((int(start), int(size)) for start, size in sparse if size)
    inside = all(start >= 0 and size > 0 and start + size <= file.size for start, size in pieces)
    if file.size > _MAX_SPARSE or not inside:
        return None
    return Place(file.offset_data, file.size, pieces)
