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


class OpenFile(Protocol):
    """A file that several threads read at once, at any offset."""

    def refresh(self) -> None:
        """Runs each time before the file is handed out."""
        ...

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset` on; fewer if the file ends first."""
        ...


class OpenFiles:
    """The files that this process read last."""

    def __init__(self, limit: int):
        self._limit = limit
        self._files: OrderedDict[tuple[str, int], OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, version: int) -> OpenFile:
        """Opens the file at `path`; another `version` of it (see `stat`) is another file."""
        key = (path, version)
        with self._lock:
            if key not in self._files:
                self._files[key] = _LocalFile(path) if files.is_local(path) else _RemoteFile(path)
                if len(self._files) > self._limit:
                    # Do not close it: another thread may be reading. It closes when its last reader lets go.
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            file = self._files[key]
        file.refresh()
        return file


class _LocalFile:
    """A mapped file; `read` copies the bytes out, so that they stay what the CRC check saw."""

    def __init__(self, path: str):
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size = len(self._map)

    def refresh(self) -> None:
        """Notices that the file has shrunk: touching a mapped page behind its end kills the process (SIGBUS)."""
        self._size = min(self._size, self._map.size())

    def read(self, size: int, offset: int) -> bytes:
        end = offset + size
        return self._map[offset : end if end <= self._size else self._size]


class _RemoteFile:
    """A remote file, read by seeking, one thread at a time."""

    def __init__(self, path: str):
        self._file = epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Does nothing: an object store replaces an object as a whole and never shrinks it."""

    def read(self, size: int, offset: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


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
