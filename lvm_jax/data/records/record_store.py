"""Many record files as one sequence of records, in which a bounded number of bad ones is skipped."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int64

from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_index import Schema
from lvm_jax.errors import UserError

_OPEN_THREADS = 16  # indices of remote shards are read at once


def open_all(paths: Sequence[epath.Path], schema: Schema) -> list[RecordFile]:
    """Opens record files of one schema, in order: their indices are read at once, no record is.

    Raises:
      UserError: an unusable file or index, or two folders with the same records.
    """
    with ThreadPoolExecutor(_OPEN_THREADS) as pool:
        files = list(pool.map(lambda path: RecordFile(path, schema), paths))
    _refuse_copies(files)
    return files


class RecordStore:
    """The records of several files, one after the other; every process opens the same sequence.

    In memory it takes 12 bytes a record: of the indices it keeps what finds and checks a record, and no column.

    Args:
      files: at least one.
      max_corrupt: this many bad records are skipped, each process for itself; one more is an error.
    """

    def __init__(self, files: Sequence[RecordFile], *, max_corrupt: int):
        indices = [file.index for file in files]
        self.max_corrupt = max_corrupt
        self._corrupt: set[int] = set()
        self._lock = threading.Lock()
        self._frames = [file.frames for file in files]
        self._ends = np.cumsum([len(index) for index in indices])
        # Record r of file f begins at places[ends[f - 1] + f + r]; the place behind it is where it ends.
        self._places = np.concatenate(
            [part for i in indices for part in (i.offsets, np.array([i.data_size], np.uint64))]
        )
        self._crcs = np.concatenate([index.crcs for index in indices])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def corrupt(self) -> int:
        """Distinct bad records that this process has met so far."""
        return len(self._corrupt)

    def read(self, ids: Int64[np.ndarray, " m"]) -> list[bytes | None]:
        """The frames of records, their CRCs checked; None for a bad one, which is counted and named in a warning.

        The data of a frame are `frame[DATA_AT:-TAIL_BYTES]` (see `framing`): a caller who wants some of its bytes
        cuts them out of the frame, and does not copy all data first.

        Raises:
          UserError: more than `max_corrupt` bad records, or an index that does not describe its shard.
        """
        files = np.searchsorted(self._ends, ids, side="right")
        at = ids + files
        begins = self._places[at]
        begins, ends, files = begins.tolist(), self._places[at + 1].tolist(), files.tolist()
        opened = {file: self._frames[file].open() for file in set(files)}
        # Slices, not calls of a method: for a frame of a few hundred bytes the call would cost as much as the bytes.
        found = [
            opened[file][begin:end] for file, begin, end in zip(files, begins, ends, strict=True)
        ]
        crcs, expected = list(map(google_crc32c.value, found)), self._crcs[ids].tolist()
        frames: list[bytes | None] = list(found)
        if crcs == expected:
            return frames
        for n in np.flatnonzero(np.not_equal(crcs, expected)).tolist():
            i, file, size = int(ids[n]), files[n], ends[n] - begins[n]
            try:
                self._frames[file].explain(found[n], begins[n], size, self._number(i, file))
            except CorruptRecord as error:
                self._count(i, str(error))
            frames[n] = None
        return frames

    def count_corrupt(self, i: int, why: str) -> None:
        """Counts record `i` as bad, once, and names it in a warning.

        Raises:
          UserError: more than `max_corrupt` bad records.
        """
        file = int(np.searchsorted(self._ends, i, side="right"))
        self._count(i, f"record {self._number(i, file)} of {self._frames[file].path}: {why}")

    def _number(self, i: int, file: int) -> int:
        """The number of record `i` in its file."""
        return i - int(self._ends[file - 1]) if file else i

    def _count(self, i: int, why: str) -> None:
        with self._lock:
            if i in self._corrupt:
                return
            if len(self._corrupt) == self.max_corrupt:
                raise UserError(
                    f"more bad records than the limit of {self.max_corrupt}: write the shards again; the last: {why}"
                )
            self._corrupt.add(i)
            count = len(self._corrupt)
        logging.warning("skipped a bad record (%d of at most %d): %s", count, self.max_corrupt, why)


def _refuse_copies(files: Sequence[RecordFile]) -> None:
    """Two shards of the same records would be seen twice as often as the others; the CRCs of the index tell."""
    seen: dict[tuple[int, int], epath.Path] = {}
    for file in files:
        if len(file):
            content = (file.index.data_size, google_crc32c.value(file.index.crcs.tobytes()))
            other = seen.setdefault(content, file.path)
            if other.parent != file.path.parent:
                raise UserError(
                    f"{other} and {file.path} hold the same records: name one of them, and give it a weight to see "
                    "it more often"
                )
