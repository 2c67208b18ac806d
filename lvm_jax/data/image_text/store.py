"""The image-text records of many shards as one sequence: what the indices say at once, records on demand.

Shape legend: N records.
"""

import numpy as np
from jaxtyping import UInt16, UInt32

from lvm_jax.data.image_text.record import IMAGE_TEXT, ImageText, decode_image_text
from lvm_jax.data.origins import origins_of
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.framing import DATA_AT, TAIL_BYTES
from lvm_jax.data.records.record_store import RecordStore, open_all
from lvm_jax.data.records.shards import Shards, find_shards

ENCODING = "image_text"  # of a manifest


class ImageTextStore:
    """The records of one split of one or several data sets, in the order of folder, shard and record.

    Attributes:
      manifest: of all data sets together (`manifest.merge`).
      turns: of each record's conversation, known without reading it; 0 if it is no image-text record.
      pictures: of each record.
      characters: of all answers of each record.
      origins: data sets with their sources.
      origin: the number of each record's origin.
    """

    turns: UInt32[np.ndarray, " N"]
    pictures: UInt32[np.ndarray, " N"]
    characters: UInt32[np.ndarray, " N"]
    origin: UInt16[np.ndarray, " N"]

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
        files = open_all([path for paths in found.values() for path in paths], IMAGE_TEXT)
        self._records = RecordStore(files, max_corrupt=max_corrupt)
        self.turns, self.pictures, self.characters = (
            np.concatenate([file.index[name] for file in files])
            for name in ("turns", "pictures", "characters")
        )
        self.origins, self.origin = origins_of(files, lambda category, _: str(category))
        for i in np.flatnonzero(self.turns == 0).tolist():
            self.count_corrupt(i, "it is no image-text record")

    def __len__(self) -> int:
        return len(self._records)

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has met so far."""
        return self._records.corrupt

    def record(self, i: int) -> ImageText | None:
        """Record `i`; None for a bad one, which is counted and logged.

        Raises:
          UserError: more than `max_corrupt` bad records, or an index that does not describe its shard.
        """
        (frame,) = self._records.read(np.array([i]))
        if frame is None:
            return None
        try:
            return decode_image_text(frame[DATA_AT:-TAIL_BYTES])
        except CorruptRecord as error:
            self.count_corrupt(i, str(error))
            return None

    def count_corrupt(self, i: int, why: str) -> None:
        """Counts record `i` as bad, once; see `RecordStore.count_corrupt`."""
        self._records.count_corrupt(i, why)
