"""Files held open for reading, a bounded number of them: a pod's shards can outnumber a process's descriptors."""

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
    """A file of which any bytes can be read, by several threads at once."""

    def refresh(self) -> None:
        """Called each time before the file is handed out."""
        ...

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset` on, fewer where the file ends before."""
        ...


class OpenFiles:
    """The files of the process that were read last."""

    def __init__(self, limit: int):
        self._limit = limit
        self._files: OrderedDict[tuple[str, int], OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, version: int) -> OpenFile:
        """The file at `path`; another `version` of it is another file (see `stat`)."""
        key = (path, version)
        with self._lock:
            if key not in self._files:
                self._files[key] = _LocalFile(path) if files.is_local(path) else _RemoteFile(path)
                if len(self._files) > self._limit:
                    # Not closed: another thread may be reading. It closes when the last reader lets go of it.
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            file = self._files[key]
        file.refresh()
        return file


class _LocalFile:
    """A mapped file; what is read is copied out, so that it stays as it was checked."""

    def __init__(self, path: str):
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size = len(self._map)

    def refresh(self) -> None:
        """Notices that the file has been cut: to touch a mapped page behind its end would kill the process."""
        self._size = min(self._size, self._map.size())

    def read(self, size: int, offset: int) -> bytes:
        end = offset + size
        return self._map[offset : end if end <= self._size else self._size]


class _RemoteFile:
    """A remote file read by seeking, one thread at a time."""

    def __init__(self, path: str):
        self._file = epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Nothing to do: a stored object is replaced as a whole, never cut."""

    def read(self, size: int, offset: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


OPEN_FILES = OpenFiles(MAX_OPEN_FILES)


def stat(path: epath.Path) -> tuple[int, int]:
    """Size in bytes, and a version: a number that changes when the file is replaced.

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
