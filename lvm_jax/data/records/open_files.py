"""A bounded number of files held open for reading: a pod's shards can outnumber a process's file descriptors."""

import mmap
import os
import threading
from collections import OrderedDict
from typing import Protocol

from etils import epath

from lvm_jax import files
from lvm_jax.errors import UserError

MAX_OPEN_FILES = 256


class Bytes(Protocol):
    """`file[begin:end]`: a copy of these bytes of a file, fewer where it ends before; several threads may ask."""

    def __getitem__(self, where: slice, /) -> bytes: ...


class OpenFile(Protocol):
    """A file that stays open."""

    def refreshed(self) -> Bytes:
        """What to read it by from now on; asked for anew before each batch of reads."""
        ...


class OpenFiles:
    """The files that this process read last."""

    def __init__(self, limit: int):
        self._limit = limit
        self._files: OrderedDict[tuple[str, int], OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, version: int) -> Bytes:
        """The file at `path`; another `version` of it is another file (see `stat`)."""
        key = (path, version)
        with self._lock:
            if key not in self._files:
                self._files[key] = _LocalFile(path) if files.is_local(path) else _RemoteFile(path)
                if len(self._files) > self._limit:
                    # Do not close it: another thread may be reading. It closes when its last reader lets go.
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            file = self._files[key]
        return file.refreshed()


class _LocalFile:
    """A mapped file; `read` copies the bytes out, so that they stay what the CRC check saw."""

    def __init__(self, path: str):
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size = len(self._map)

    def refreshed(self) -> Bytes:
        """Notices that the file has been cut: to touch a mapped page behind its end would kill the process."""
        self._size = min(self._size, self._map.size())
        # A whole file is its map, sliced without a call of Python's: a loader does that for each piece of a row.
        return self._map if self._size == len(self._map) else self

    def __getitem__(self, where: slice) -> bytes:
        return self._map[where.start : min(where.stop, self._size)]


class _RemoteFile:
    """A remote file, read by seeking, one thread at a time."""

    def __init__(self, path: str):
        self._file = epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def refreshed(self) -> Bytes:
        """Itself: a stored object is replaced as a whole, never cut."""
        return self

    def __getitem__(self, where: slice) -> bytes:
        with self._lock:
            self._file.seek(where.start)
            return self._file.read(where.stop - where.start)


OPEN_FILES = OpenFiles(MAX_OPEN_FILES)


def stat(path: epath.Path) -> tuple[int, int]:
    """The size in bytes, and a version: the time of the last change, so that a replaced file has another.

    Raises:
      UserError: no such file.
    """
    try:
        if files.is_local(path):
            status = os.stat(path)
            return status.st_size, status.st_mtime_ns
        status = path.stat()
        return status.length, status.mtime
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check the path of the shards") from error
