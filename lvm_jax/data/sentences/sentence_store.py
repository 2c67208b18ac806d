"""The visual sentences of many shards as one sequence, planned from their indices and read one by one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt16, UInt32

from lvm_jax.data.mixture import Origin
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.framing import DATA_AT, TAIL_BYTES
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_index import MAX_ORIGINS
from lvm_jax.data.records.record_store import RecordStore, open_all
from lvm_jax.data.records.shards import SHARD_NAME, Shards, find_shards, listed
from lvm_jax.data.sentences.sentence_record import decode_example, schema_of
from lvm_jax.data.sentences.visual_sentence import CATEGORIES, Category, VisualSentence
from lvm_jax.errors import UserError


class SentenceStore:
    """The sentences of one split of one or several data sets, in the order of folder, shard and record.

    Every process opens the same sequence. In memory it takes 30 bytes a sentence.

    Attributes:
      manifest: of all data sets together (`manifest.merge`).
      schema: of the records.
      lengths: uint32 (n,), codes of each sentence, known without reading it; 0 where its record is no sentence.
      origins: the data sets, their sources and their categories.
      origin: uint16 (n,), of each sentence, by number.
    """

    manifest: manifests.Manifest
    lengths: UInt32[np.ndarray, " n"]
    origins: list[Origin]
    origin: UInt16[np.ndarray, " n"]

    def __init__(self, shards: Shards, split: str, *, max_corrupt: int = 16):
        """Opens every index of the split; reads no record, unless an index has to be made.

        Args:
          shards: as of `find_shards`.
          split: such as "train".
          max_corrupt: this many bad records are skipped, each process for itself; one more is an error.

        Raises:
          UserError: nothing there, an empty split, a missing or damaged shard, a shard and its copy, or data sets of
            different tokenizers.
        """
        folders = find_shards(shards, split)
        self.manifest = manifests.merge({str(f): manifests.Manifest.load(f) for f in folders})
        self.schema = schema_of(self.manifest.codebook_size)
        files = open_all([file for files in folders.values() for file in files], self.schema)
        for folder in folders:
            if not any(len(file) for file in files if file.path.parent == folder):
                raise UserError(
                    f"split {split!r} of {folder} has no sentence: build it, or do not name it in shards"
                )
        self._records = RecordStore(files, max_corrupt=max_corrupt)
        columns = {
            name: np.concatenate([file.index[name] for file in files])
            for name, _ in self.schema.columns
        }
        self._codes_at = columns[f"{self.schema.feature}_at"]
        self.lengths = columns[f"{self.schema.feature}_bytes"] // self.schema.id_bytes
        self.origins, self.origin = _origins(files)
        self._leave_out_bad(columns["largest"])
        if not self.lengths.any():
            raise UserError(
                f"split {split!r} of {listed(folders)} has only bad records: write the shards again"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def corrupt(self) -> int:
        """Distinct bad records that this process has met so far."""
        return self._records.corrupt

    def images_by_origin(self) -> Int64[np.ndarray, " origins"]:
        """How many images each origin has."""
        codes = np.bincount(self.origin, weights=self.lengths, minlength=len(self.origins))
        return codes.astype(np.int64) // self.manifest.tokens_per_image

    def sentence(self, i: int) -> VisualSentence | None:
        """Sentence `i`, or None where its record is bad, which is counted and named in a warning.

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
        ids: Int64[np.ndarray, " m"],
        starts: Int64[np.ndarray, " m"],
        counts: Int64[np.ndarray, " m"],
    ) -> list[bytes | None]:
        """`counts` of the flat codes of sentences from `starts` on; None for a bad record, which is counted and named.

        They are as they are stored, of type `schema.id_type`. CRCs are checked, and where the codes lie is the index's
        word for the record of that CRC: nothing is parsed. Errors as in `sentence`.
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
        """Counts the records that the index shows to be bad, and gives them the length 0."""
        per_image, codebook_size = self.manifest.tokens_per_image, self.manifest.codebook_size
        broken = (self.lengths == 0) | (self.lengths % per_image != 0)
        out_of_range = ~broken & (largest >= codebook_size)
        self.lengths = np.where(broken | out_of_range, np.uint32(0), self.lengths)
        for i in np.flatnonzero(broken | out_of_range).tolist():
            if out_of_range[i]:
                why = f"it has code {largest[i]}: codes are 0..{codebook_size - 1}"
            else:
                why = f"it holds no whole image of {self.schema.id_bytes * per_image} bytes"
            self._records.count_corrupt(i, why)


def _origins(files: Sequence[RecordFile]) -> tuple[list[Origin], UInt16[np.ndarray, " n"]]:
    """The origins of all files, and each sentence's by number."""
    numbers: dict[Origin, int] = {}
    columns = []
    for file in files:
        match = SHARD_NAME.fullmatch(file.path.name)
        assert match is not None  # find_shards matched it
        renumbered = [
            numbers.setdefault(
                Origin(match["name"], source, _category(category, file)), len(numbers)
            )
            for source, category in file.index.origins
        ]
        if len(numbers) > MAX_ORIGINS:
            raise UserError(
                f"more than {MAX_ORIGINS} sources: `source` names a data set, `key` the item"
            )
        # A file of bad records has no origin at all.
        columns.append(np.array([*renumbered, 0], np.uint16)[file.index.origin])
    return list(numbers), np.concatenate(columns)


def _category(number: int, file: RecordFile) -> str:
    if number not in CATEGORIES:
        raise UserError(
            f"the index of {file.path} knows a category {number}: categories are 1..{max(CATEGORIES)}; delete the "
            "index, and it is made anew"
        )
    return Category(number).name.lower()
