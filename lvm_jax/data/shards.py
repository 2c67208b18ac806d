"""Which shard files there are, and their records as one sequence of sentences."""

import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int64

from lvm_jax.data import manifest as manifests
from lvm_jax.data.example import CorruptRecord
from lvm_jax.data.tfrecord import RecordFile
from lvm_jax.data.visual_sentence import VisualSentence, decode_example
from lvm_jax.errors import UserError

Shards = epath.PathLike | Sequence[epath.PathLike]
_SHARD = re.compile(
    r"uvd_[a-z0-9_]+-(?P<split>[a-z0-9_]+)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})"
)
_OPEN_THREADS = 16  # indices of remote shards are read at once


class SentenceStore:
    """The sentences of one split of one or several data sets, in the order of folder, shard and record.

    Every process opens the same sequence. In memory it takes 20 bytes a sentence.

    Attributes:
      manifest: of all data sets together (`manifest.merge`).
      lengths: int64 (n,), codes of each sentence, known without reading it; 0 where the record has none to give.
      max_corrupt: this many bad records are skipped; one more is an error.
    """

    manifest: manifests.Manifest
    lengths: Int64[np.ndarray, " n"]

    def __init__(self, shards: Shards, split: str, *, max_corrupt: int = 16):
        """Opens every index of the split; reads no record.

        Args:
          shards: a data set's folder, a folder of data sets, a glob of either or of shard files, or a list of these.
          split: such as "train".
          max_corrupt: see above; counted by each process for itself.

        Raises:
          UserError: nothing there, an empty split, a missing or damaged shard, or data sets of different tokenizers.
        """
        folders = find_shards(shards, split)
        self.manifest = manifests.merge({str(f): manifests.Manifest.load(f) for f in folders})
        self.max_corrupt = max_corrupt
        with ThreadPoolExecutor(_OPEN_THREADS) as pool:
            self._files = list(
                pool.map(RecordFile, [file for files in folders.values() for file in files])
            )
        self._ends = np.cumsum([len(file) for file in self._files])
        if self._ends[-1] == 0:
            raise UserError(
                f"split {split!r} of {_listed(folders)} has no sentence: build it, or name another split"
            )
        self._corrupt: set[int] = set()
        self._lock = threading.Lock()
        codes_bytes = np.concatenate([file.codes_bytes for file in self._files])
        image_bytes = 2 * self.manifest.tokens_per_image
        self.lengths = np.where(codes_bytes % image_bytes == 0, codes_bytes // 2, 0).astype(
            np.int64
        )
        for i in np.flatnonzero(self.lengths == 0):
            file, record = self._locate(int(i))
            self._count_corrupt(
                int(i),
                f"record {record} of {file.path} holds no whole image of {image_bytes} bytes",
            )
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

    def sentence(self, i: int) -> VisualSentence | None:
        """Sentence `i`, or None where its record is bad, which is counted and named in a warning.

        Raises:
          UserError: more than `max_corrupt` bad records, or an index that does not describe its shard.
        """
        file, record = self._locate(i)
        try:
            data = file[record]
        except CorruptRecord as error:  # which says where
            self._count_corrupt(i, str(error))
            return None
        try:
            sentence = decode_example(
                data,
                codebook_size=self.manifest.codebook_size,
                tokens_per_image=self.manifest.tokens_per_image,
            )
        except CorruptRecord as error:
            self._count_corrupt(i, f"record {record} of {file.path}: {error}")
            return None
        if sentence.codes.size != self.lengths[i]:
            raise UserError(
                f"record {record} of {file.path} has {sentence.codes.size} codes, its index says {self.lengths[i]}: "
                f"rebuild the index by lvm_jax.data.tfrecord.build_index({str(file.path)!r})"
            )
        return sentence

    def _locate(self, i: int) -> tuple[RecordFile, int]:
        shard = int(np.searchsorted(self._ends, i, side="right"))
        return self._files[shard], i - int(self._ends[shard]) + len(self._files[shard])

    def _count_corrupt(self, i: int, why: str) -> None:
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


def find_shards(shards: Shards, split: str) -> dict[epath.Path, list[epath.Path]]:
    """The shard files of a split by data set folder, sorted; see `SentenceStore` for what `shards` may be.

    Raises:
      UserError: nothing matches, a shard of a folder is missing, no data set has the split, or a folder holds several
        versions of one data set.
    """
    entries = (
        [shards] if isinstance(shards, str) or not isinstance(shards, Sequence) else list(shards)
    )
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
    for path in folder.glob("uvd_*"):
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
