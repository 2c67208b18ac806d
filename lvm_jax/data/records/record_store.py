"""Many record files as one sequence of records, with a limit on how many bad ones are skipped.

Shape legend: M records that are read together.
"""

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

_OPEN_THREADS = 16  # reading the index of a remote shard is mostly waiting


def open_all(paths: Sequence[epath.Path], schema: Schema) -> list[RecordFile]:
    """Opens record files of one schema, in order; reads their indices in parallel, and no record.

    Raises:
      UserError: an unusable file or index, or two folders with the same records.
    """
    with ThreadPoolExecutor(_OPEN_THREADS) as pool:
        files = list(pool.map(lambda path: RecordFile(path, schema), paths))
    _refuse_copies(files)
    return files


class RecordStore:
    """The records of several files, one after the other; every process opens the same sequence.

    It takes 12 bytes of memory a record: of the indices it keeps offsets and CRCs, not the columns.

    Args:
      files: at least one.
      max_corrupt: how many bad records each process skips; one more is an error.
    """

    def __init__(self, files: Sequence[RecordFile], *, max_corrupt: int):
        indices = [file.index for file in files]
        self.max_corrupt = max_corrupt
        self._corrupt: set[int] = set()
        self._lock = threading.Lock()
        self._frames = [file.frames for file in files]
        # One flat array for all files, instead of one each: a batch is then looked up in a few array operations.
        self._ends = np.cumsum([len(index) for index in indices])
        # A file has one place more than records, its end: record r of file f begins at places[ends[f - 1] + f + r],
        # and the next place is where it ends.
        self._places = np.concatenate(
            [part for i in indices for part in (i.offsets, np.array([i.data_size], np.uint64))]
        )
        self._crcs = np.concatenate([index.crcs for index in indices])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has met so far."""
        return len(self._corrupt)

    def read(self, ids: Int64[np.ndarray, " M"]) -> list[bytes | None]:
        """Reads the frames of records and checks their CRCs; None for a bad record, which is counted and logged.

        The data of a frame are `frame[DATA_AT:-TAIL_BYTES]` (see `framing`). A caller who wants a few bytes cuts them
        out of the frame, which saves a copy of all data.

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
        """Counts record `i` as bad, once, and logs it.

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
    """Refuses copies of a shard, told by the CRCs in its index: their records would be seen twice as often."""
    # Equal sizes and equal CRCs of all frames mean equal bytes, and no shard has to be read.
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
