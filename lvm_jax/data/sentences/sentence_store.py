"""The visual sentences of many shards as one sequence: lengths and origins from the indices, codes on demand.

Shape legend: N sentences, O origins, M sentences that are read together.
"""

import dataclasses

import numpy as np
from jaxtyping import Int64, UInt16, UInt32

from lvm_jax.data.mixture import Origin
from lvm_jax.data.origins import origins_of
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.framing import DATA_AT, TAIL_BYTES
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_store import RecordStore, open_all
from lvm_jax.data.records.shards import Shards, find_shards, listed
from lvm_jax.data.sentences.sentence_record import decode_example, schema_of
from lvm_jax.data.sentences.visual_sentence import CATEGORIES, Category, VisualSentence
from lvm_jax.errors import UserError


class SentenceStore:
    """The sentences of one split of one or several data sets, in the order of folder, shard and record.

    Every process opens the same sequence. It takes 30 bytes of memory a sentence, and 4 more with periods.

    Attributes:
      manifest: of all data sets together (`manifest.merge`).
      schema: of the records.
      lengths: number of codes of each sentence, known without reading it; 0 if its record is not a sentence.
      origins: the data sets, with their sources and categories.
      origin: the number of each sentence's origin.
      periods: images of the shortest group of roles that each sentence's layout repeats (0 if the layout cannot be
        read); None unless asked for.
    """

    manifest: manifests.Manifest
    lengths: UInt32[np.ndarray, " N"]
    origins: list[Origin]
    origin: UInt16[np.ndarray, " N"]
    periods: UInt32[np.ndarray, " N"] | None

    def __init__(
        self, shards: Shards, split: str, *, max_corrupt: int = 16, with_periods: bool = False
    ):
        """Opens every index of the split; reads no record unless an index has to be made.

        Args:
          shards: see `find_shards`.
          split: such as "train".
          max_corrupt: how many bad records each process skips; one more is an error.
          with_periods: fill `periods`. An older index, which has none, is made anew from its shard.

        Raises:
          UserError: nothing there, an empty split, a missing or damaged shard, a shard and its copy, or data sets of
            different tokenizers.
        """
        folders = find_shards(shards, split)
        self.manifest = manifests.read_merged(folders, manifests.SENTENCE_ENCODING)
        self.schema = schema_of(self.manifest.codebook_size)
        needed = dataclasses.replace(self.schema, optional=()) if with_periods else self.schema
        files = open_all([file for files in folders.values() for file in files], needed)
        for folder in folders:
            if not any(len(file) for file in files if file.path.parent == folder):
                raise UserError(
                    f"split {split!r} of {folder} has no sentence: build it, or leave it out of shards"
                )
        self._records = RecordStore(files, max_corrupt=max_corrupt)
        # All columns as flat arrays, in the order of the records: sentence i is record i.
        columns = {
            name: np.concatenate([file.index[name] for file in files])
            for name, _ in needed.columns
            if name not in needed.optional
        }
        self.periods = columns.get("period")
        self._codes_at = columns[f"{self.schema.feature}_at"]
        self.lengths = columns[f"{self.schema.feature}_bytes"] // self.schema.id_bytes
        self.origins, self.origin = origins_of(files, _category)
        self._leave_out_bad(columns["largest"])
        if not self.lengths.any():
            raise UserError(
                f"split {split!r} of {listed(folders)} has only bad records: write the shards again"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has met so far."""
        return self._records.corrupt

    def images_by_origin(self) -> Int64[np.ndarray, " O"]:
        """Number of images of each origin."""
        codes = np.bincount(self.origin, weights=self.lengths, minlength=len(self.origins))
        return codes.astype(np.int64) // self.manifest.tokens_per_image

    def sentence(self, i: int) -> VisualSentence | None:
        """Reads sentence `i`; None if its record is bad, which is counted and logged.

        Raises:
          UserError: more than `max_corrupt` bad records, or an index that does not describe its shard.
        """
        (frame,) = self._records.read(np.array([i]))
        if frame is None:
            return None
        try:
            return decode_example(
                frame[DATA_AT:-TAIL_BYTES],
                codebook_size=self.manifest.codebook_size,
                tokens_per_image=self.manifest.tokens_per_image,
            )
        except CorruptRecord as error:
            self._records.count_corrupt(i, str(error))
            return None

    def codes(
        self,
        ids: Int64[np.ndarray, " M"],
        starts: Int64[np.ndarray, " M"],
        counts: Int64[np.ndarray, " M"],
    ) -> list[bytes | None]:
        """Reads `counts` flat codes of each sentence from `starts` on; None for a bad record, which is counted.

        The bytes are as stored, of type `schema.id_type`. Nothing is parsed: the index says where the codes lie in the
        record of that CRC, and the CRC is checked. Errors as in `sentence`.
        """
        width = self.schema.id_bytes
        begins = self._codes_at[ids] + DATA_AT + width * starts
        ends = (begins + width * counts).tolist()
        return [
            None if frame is None else frame[begin:end]
            for frame, begin, end in zip(
                self._records.read(ids), begins.tolist(), ends, strict=True
            )
        ]

    def _leave_out_bad(self, largest: np.ndarray) -> None:
        """Counts the records that the index shows to be bad, and sets their length to 0."""
        per_image, codebook_size = self.manifest.tokens_per_image, self.manifest.codebook_size
        # Judged by the index alone, so every process leaves out the same sentences.
        broken = (self.lengths == 0) | (self.lengths % per_image != 0)
        out_of_range = ~broken & (largest >= codebook_size)
        # A bad record keeps its number, with length 0: numbers of sentences and of records stay the same.
        self.lengths = np.where(broken | out_of_range, np.uint32(0), self.lengths)
        for i in np.flatnonzero(broken | out_of_range).tolist():
            if out_of_range[i]:
                why = f"it has code {largest[i]}: codes are 0..{codebook_size - 1}"
            else:
                why = f"it holds no whole image of {self.schema.id_bytes * per_image} bytes"
            self._records.count_corrupt(i, why)


def _category(number: int, file: RecordFile) -> str:
    if number not in CATEGORIES:
        raise UserError(
            f"the index of {file.path} has the category {number}: categories are 1..{max(CATEGORIES)}; delete the "
            "index, and it is made anew"
        )
    return Category(number).name.lower()
