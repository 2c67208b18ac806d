"""The pools of many shards: which records answer a question about a class, known before any of them is read.

Shape legend: N records, M of one pool, C classes.
"""

import dataclasses
import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt16, UInt64

from lvm_jax.data.in_context.pool_record import (
    CAPTION,
    MASK,
    POOL,
    UNSEEN,
    PoolRecord,
    decode_pool_record,
)
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.framing import DATA_AT, TAIL_BYTES
from lvm_jax.data.records.record_store import RecordStore, open_all
from lvm_jax.data.records.shards import Shards, find_shards
from lvm_jax.errors import UserError

ENCODING = "pool"  # of a manifest
Side = Literal["seen", "unseen", "all"]  # of the classes
_NEEDS = {Question.SEGMENTATION: MASK, Question.CAPTIONING: CAPTION}


class PoolStore:
    """The records of one split of one or several data sets, in the order of folder, shard and record.

    Attributes:
      manifest: of all data sets together (`manifest.merge`).
      class_hash, shows_hash: of the names of each record's class, and of what its picture shows.
      holds: bits of what each record has, see `pool_record`; 0: it is no record of a pool.
    """

    class_hash: UInt64[np.ndarray, " N"]
    shows_hash: UInt64[np.ndarray, " N"]
    holds: UInt16[np.ndarray, " N"]

    def __init__(self, shards: Shards, split: str, *, max_corrupt: int = 16):
        """Reads the manifests and indices; no record.

        Args:
          shards: see `find_shards`.
          split: such as "train".
          max_corrupt: how many bad records each process may skip.

        Raises:
          UserError: no shards, or they hold records of another encoding.
        """
        found = find_shards(shards, split)
        self.manifest = manifests.read_merged(found, ENCODING)
        self.split = split
        files = open_all([path for paths in found.values() for path in paths], POOL)
        self._records = RecordStore(files, max_corrupt=max_corrupt)
        self.class_hash, self.shows_hash, self.holds = (
            np.concatenate([file.index[name] for file in files])
            for name in ("class_hash", "shows_hash", "holds")
        )
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()
        for i in np.flatnonzero(self.holds == 0).tolist():
            self.count_corrupt(i, "it is no record of a pool")

    def __len__(self) -> int:
        return len(self._records)

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has met so far."""
        return self._records.corrupt

    def records(self, numbers: Sequence[int]) -> list[PoolRecord | None]:
        """Records by their numbers; None for a bad one, which is counted and logged.

        Raises:
          UserError: more than `max_corrupt` bad records, or an index that does not describe its shard.
        """
        found: list[PoolRecord | None] = []
        for i, frame in zip(numbers, self._records.read(np.array(numbers)), strict=True):
            record = None
            if frame is not None:
                try:
                    record = decode_pool_record(frame[DATA_AT:-TAIL_BYTES])
                except CorruptRecord as error:
                    self.count_corrupt(i, str(error))
            found.append(record)
        return found

    def record(self, i: int) -> PoolRecord | None:
        """One of `records`."""
        return self.records([i])[0]

    def count_corrupt(self, i: int, why: str) -> None:
        """Counts record `i` as bad, once; see `RecordStore.count_corrupt`."""
        self._records.count_corrupt(i, why)

    def class_name(self, class_hash: int) -> str:
        """The name of a class, from its first sound record; "?" if there is none."""
        with self._lock:
            if class_hash not in self._names:
                places = np.flatnonzero(self.class_hash == np.uint64(class_hash)).tolist()
                records = (self.record(i) for i in places)
                first = next((record for record in records if record is not None), None)
                self._names[class_hash] = first.class_name if first else "?"
            return self._names[class_hash]


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """The records that answer one question, sorted by class.

    Attributes:
      question: what they answer.
      records: numbers in the store.
      class_of: of each of them, a place in `begins`.
      begins: where each class begins in `records`, and at last its length.
      class_hashes: of each class.
      pictures: different ones that each class has.
    """

    question: Question
    records: Int64[np.ndarray, " M"]
    class_of: Int64[np.ndarray, " M"]
    begins: Int64[np.ndarray, " C+1"]
    class_hashes: UInt64[np.ndarray, " C"]
    pictures: Int64[np.ndarray, " C"]

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    @classmethod
    def of(
        cls,
        store: PoolStore,
        question: Question,
        *,
        examples: int,
        side: Side = "all",
        fewest: int = 0,
    ) -> "Pool":
        """The pool of a question.

        Args:
          store: of the records.
          question: which they must answer.
          examples: that a query may have; each class must show so many pictures besides the query's.
          side: of the classes.
          fewest: pictures that a class must have; smaller ones are left out.

        Raises:
          UserError: no record is left, or a class shows too few pictures.
        """
        wanted = store.holds & _NEEDS[question] > 0
        if side != "all":
            wanted &= (store.holds & UNSEEN > 0) == (side == "unseen")
        records = np.flatnonzero(wanted)
        class_hashes, class_of = np.unique(store.class_hash[records], return_inverse=True)
        pictures = _pictures(class_of, store.shows_hash[records], len(class_hashes))
        records = records[pictures[class_of] >= fewest]
        if not len(records):
            classes = "seen or unseen" if side == "all" else side
            raise UserError(
                f"split {store.split!r} has no record for {question.name.lower()} of classes that are {classes} and "
                f"have at least {fewest} pictures: build shards with some, or ask for less"
            )
        poor = np.flatnonzero((pictures <= examples) & (pictures >= fewest))
        if len(poor):
            name = store.class_name(int(class_hashes[poor[0]]))
            raise UserError(
                f"split {store.split!r}: {len(poor)} of {len(pictures)} classes have too few pictures for a query and "
                f"{examples} examples in {question.name.lower()}, such as {name!r} with {pictures[poor[0]]}: build "
                f"more of them, or leave them out with fewest={examples + 1}"
            )
        class_hashes, class_of = np.unique(store.class_hash[records], return_inverse=True)
        order = np.argsort(class_of, kind="stable")
        begins = np.searchsorted(class_of[order], np.arange(len(class_hashes) + 1))
        pictures = pictures[pictures >= fewest]
        return cls(question, records[order], class_of[order], begins, class_hashes, pictures)


def _pictures(
    class_of: Int64[np.ndarray, " M"], shows: UInt64[np.ndarray, " M"], classes: int
) -> Int64[np.ndarray, " C"]:
    """How many different pictures each class has."""
    order = np.lexsort((shows, class_of))
    shows, class_of = shows[order], class_of[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (shows[1:] != shows[:-1]) | (class_of[1:] != class_of[:-1])
    return np.bincount(class_of[is_new], minlength=classes)
