"""Which shard files there are, and their records as one sequence of sentences."""

import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import crc32c
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int64, UInt16, UInt32

from lvm_jax.data.mixture import Origin
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_index import MAX_ORIGINS
from lvm_jax.data.records.tfrecord import DATA_AT, RecordFile
from lvm_jax.data.sentences.visual_sentence import VisualSentence, decode_example
from lvm_jax.errors import UserError

Shards = epath.PathLike | Sequence[epath.PathLike]
_SHARD = re.compile(
    r"(?:uvd_)?(?P<name>[a-z0-9_]+)-(?P<split>[a-z0-9_]+)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})"
)
_OPEN_THREADS = 16  # indices of remote shards are read at once


class SentenceStore:
    """The sentences of one split of one or several data sets, in the order of folder, shard and record.

    Every process opens the same sequence. In memory it takes 30 bytes a sentence.

    Attributes:
      manifest: of all data sets together (`manifest.merge`).
      lengths: uint32 (n,), codes of each sentence, known without reading it; 0 where its record is no sentence.
      origins: the sources and categories of the data sets.
      origin: uint16 (n,), of each sentence, by number.
      max_corrupt: this many bad records are skipped; one more is an error.
    """

    manifest: manifests.Manifest
    lengths: UInt32[np.ndarray, " n"]
    origins: list[Origin]
    origin: UInt16[np.ndarray, " n"]

    def __init__(self, shards: Shards, split: str, *, max_corrupt: int = 16):
        """Opens every index of the split; reads no record, unless an index has to be made.

        Args:
          shards: a data set's folder, a folder of data sets, a glob of either or of shard files, or a list of these; a
            text may hold several, with commas between them.
          split: such as "train".
          max_corrupt: see above; counted by each process for itself.

        Raises:
          UserError: nothing there, an empty split, a missing or damaged shard, a shard and its copy, or data sets of
            different tokenizers.
        """
        folders = find_shards(shards, split)
        self.manifest = manifests.merge({str(f): manifests.Manifest.load(f) for f in folders})
        self.max_corrupt = max_corrupt
        self._corrupt: set[int] = set()
        self._lock = threading.Lock()
        with ThreadPoolExecutor(_OPEN_THREADS) as pool:
            files = list(
                pool.map(RecordFile, [file for files in folders.values() for file in files])
            )
        for folder in folders:
            if not any(len(file) for file in files if file.path.parent == folder):
                raise UserError(
                    f"split {split!r} of {folder} has no sentence: build it, or do not name it in shards"
                )
        _refuse_copies(files)
        indices = [file.index for file in files]
        self._frames = [file.frames for file in files]
        self._ends = np.cumsum([len(index) for index in indices])
        # Record r of file f begins at places[ends[f - 1] + f + r]; the place behind it is where it ends.
        self._places = np.concatenate(
            [part for i in indices for part in (i.offsets, np.array([i.data_size], np.uint64))]
        )
        self._crcs = np.concatenate([index.crcs for index in indices])
        self._codes_at = np.concatenate([index.codes_at for index in indices])
        self.origins, self.origin = _origins(files)
        self.lengths = np.concatenate([index.codes_bytes for index in indices]) // 2
        self._leave_out_bad(np.concatenate([index.largest for index in indices]))
        if not self.lengths.any():
            raise UserError(
                f"split {split!r} of {_listed(folders)} has only bad records: write the shards again"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def corrupt(self) -> int:
        """Distinct bad records that this process has met so far."""
        return len(self._corrupt)

    def images_by_origin(self) -> Int64[np.ndarray, " origins"]:
        """How many images each origin has."""
        codes = np.bincount(self.origin, weights=self.lengths, minlength=len(self.origins))
        return codes.astype(np.int64) // self.manifest.tokens_per_image

    def sentence(self, i: int) -> VisualSentence | None:
        """Sentence `i`, or None where its record is bad, which is counted and named in a warning.

        Raises:
          UserError: more than `max_corrupt` bad records, or an index that does not describe its shard.
        """
        (frame,) = self._read(np.array([i]))
        if frame is None:
            return None
        try:
            return decode_example(
                frame[DATA_AT:-4],
                codebook_size=self.manifest.codebook_size,
                tokens_per_image=self.manifest.tokens_per_image,
            )
        except CorruptRecord as error:
            self._count_corrupt(i, str(error))
            return None

    def codes(
        self,
        ids: Int64[np.ndarray, " m"],
        starts: Int64[np.ndarray, " m"],
        counts: Int64[np.ndarray, " m"],
    ) -> list[bytes | None]:
        """`counts` of the flat codes of sentences from `starts` on; None for a bad record, which is counted and named.

        Little-endian uint16, as they are stored.
        CRCs are checked, and where the codes lie is the index's word for the record of that CRC: nothing is parsed.
        Errors as in `sentence`.
        """
        begins = self._codes_at[ids] + DATA_AT + 2 * starts
        ends = (begins + 2 * counts).tolist()
        return [
            None if frame is None else frame[begin:end]
            for frame, begin, end in zip(self._read(ids), begins.tolist(), ends, strict=True)
        ]

    def _read(self, ids: np.ndarray) -> list[bytes | None]:
        """The checked frames of records."""
        files = np.searchsorted(self._ends, ids, side="right")
        at = ids + files
        begins = self._places[at]
        sizes = (self._places[at + 1] - begins).tolist()
        begins, files = begins.tolist(), files.tolist()
        opened = {file: self._frames[file].open() for file in set(files)}
        reads = [opened[file].read for file in files]
        found = [read(size, at) for read, size, at in zip(reads, sizes, begins, strict=True)]
        wrong = np.array(list(map(crc32c.crc32c, found)), np.uint32) != self._crcs[ids]
        frames: list[bytes | None] = list(found)
        for n in np.flatnonzero(wrong).tolist():
            i, file = int(ids[n]), files[n]
            try:
                self._frames[file].explain(found[n], begins[n], sizes[n], self._record(i, file))
            except CorruptRecord as error:
                self._count_corrupt(i, str(error), located=True)
            frames[n] = None
        return frames

    def _record(self, i: int, file: int) -> int:
        """The number of sentence `i` in its file."""
        return i - int(self._ends[file - 1]) if file else i

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
                why = f"it holds no whole image of {2 * per_image} bytes"
            self._count_corrupt(i, why)

    def _count_corrupt(self, i: int, why: str, *, located: bool = False) -> None:
        """`located`: `why` already says where."""
        if not located:
            file = int(np.searchsorted(self._ends, i, side="right"))
            why = f"record {self._record(i, file)} of {self._frames[file].path}: {why}"
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
            content = (file.index.data_size, crc32c.crc32c(file.index.crcs.tobytes()))
            other = seen.setdefault(content, file.path)
            if other.parent != file.path.parent:
                raise UserError(
                    f"{other} and {file.path} hold the same records: name one of them, and give it a weight to see "
                    "it more often"
                )


def _origins(files: Sequence[RecordFile]) -> tuple[list[Origin], UInt16[np.ndarray, " n"]]:
    """The origins of all files, and each sentence's by number."""
    numbers: dict[Origin, int] = {}
    columns = []
    for file in files:
        match = _SHARD.fullmatch(file.path.name)
        assert match is not None  # find_shards matched it
        renumbered = [
            numbers.setdefault(Origin(match["name"], *origin), len(numbers))
            for origin in file.index.origins
        ]
        if len(numbers) > MAX_ORIGINS:
            raise UserError(
                f"more than {MAX_ORIGINS} sources: `source` names a data set, `key` the item"
            )
        # A file of bad records has no origin at all.
        columns.append(np.array([*renumbered, 0], np.uint16)[file.index.origin])
    return list(numbers), np.concatenate(columns)


def find_shards(shards: Shards, split: str) -> dict[epath.Path, list[epath.Path]]:
    """The shard files of a split by data set folder, sorted; see `SentenceStore` for what `shards` may be.

    Raises:
      UserError: nothing matches, a shard of a folder is missing, no data set has the split, or a folder holds several
        versions of one data set.
    """
    if isinstance(shards, str):
        entries: list[epath.PathLike] = [part.strip() for part in shards.split(",") if part.strip()]
    else:
        entries = list(shards) if isinstance(shards, Sequence) else [shards]
    found: dict[epath.Path, set[epath.Path]] = defaultdict(set)
    splits: set[str] = set()
    for path in (path for entry in entries for path in _expand(epath.Path(entry))):
        for folder in _data_sets(path) if path.is_dir() else [path.parent]:
            files = _complete(folder) if path.is_dir() else [path]
            for file in files:
                match = _SHARD.fullmatch(file.name)
                if match:
                    splits.add(match["split"])
                if match and match["split"] == split:
                    found[folder].add(file)
    if not splits:
        raise UserError(
            f"{_listed(entries)} has no shards (uvd_NAME-SPLIT.tfrecord-00000-of-00001): check the path"
        )
    if not found:
        raise UserError(
            f"{_listed(entries)} has no split {split!r}: it has {', '.join(sorted(splits))}"
        )
    return {folder: sorted(found[folder]) for folder in sorted(found)}


def _expand(path: epath.Path) -> list[epath.Path]:
    """What a glob matches, or the path itself if it exists."""
    parts = path.parts
    magic = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), None)
    if magic is None:
        matches = [path] if path.exists() else []
    else:
        root = epath.Path(*parts[:magic]) if magic else epath.Path(".")
        matches = sorted(root.glob("/".join(parts[magic:])))
    if not matches:
        raise UserError(f"shards {str(path)!r} match nothing: check the path")
    return matches


def _data_sets(folder: epath.Path) -> list[epath.Path]:
    """The folders with a manifest: this one, or those of OUT/NAME/VERSION below it."""
    name = manifests.FILE_NAME
    if (folder / name).exists():
        return [folder]
    found = sorted(
        path.parent for pattern in (f"*/{name}", f"*/*/{name}") for path in folder.glob(pattern)
    )
    by_name = defaultdict(list)
    for path in found:
        by_name[path.parent].append(path.name)
    for parent, versions in by_name.items():
        if len(versions) > 1 and all(map(manifests.VERSION.fullmatch, versions)):
            raise UserError(
                f"{parent} has the versions {', '.join(versions)}: name one, such as {parent / versions[-1]}"
            )
    return found


def _complete(folder: epath.Path) -> list[epath.Path]:
    """All shards of a folder, none of them missing."""
    groups: dict[tuple[str, int], dict[int, epath.Path]] = defaultdict(dict)
    for path in folder.glob("*.tfrecord-*"):
        match = _SHARD.fullmatch(path.name)
        if match:
            prefix = path.name.partition(".tfrecord")[0]
            groups[prefix, int(match["count"])][int(match["index"])] = path
    counts: dict[str, int] = {}
    for (prefix, count), files in groups.items():
        if counts.setdefault(prefix, count) != count:
            raise UserError(
                f"{folder} has {prefix} in {counts[prefix]} shards and in {count}: delete those that were not meant"
            )
        missing = sorted(set(range(count)) - set(files))
        if missing:
            raise UserError(
                f"{folder} lacks {len(missing)} of {count} shards of {prefix}, the first is number {missing[0]:05d}: "
                "copy or build them again"
            )
    return [path for files in groups.values() for path in files.values()]


def _listed(paths: object) -> str:
    return ", ".join(map(str, paths))  # pyright: ignore[reportArgumentType]
