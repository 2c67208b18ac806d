"""Writes one shard: from its planned sentences to a record file, an index and a summary.

A shard is finished when its summary carries the plan's fingerprint. The summary is written last and every file appears
by a rename, so a killed process leaves each shard either whole or absent.
"""

import contextlib
import dataclasses
import errno
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from data_pipelines.build.composing import Composed, ItemCache, SentenceMaker, TooManyBadItems
from data_pipelines.build.encoding import Encoder
from data_pipelines.build.plan import PlannedSentence
from data_pipelines.build.recipe import Recipe
from data_pipelines.items import Kind, Value, digest, kind_of, num_bytes, refuse_other_kinds
from lvm_jax import files
from lvm_jax.config import to_dict
from lvm_jax.data.records.record_index import Facts, index_path
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.errors import UserError

IMAGES_AT_ONCE = 512  # values that wait for the encoder: 100 MB as pictures of 256 pixels
BYTES_AT_ONCE = 1 << 28  # or so many bytes of them: 85 pages of 1024 pixels


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A worker's order: where to write a shard and its summary, and which sentences go in."""

    path: str
    summary: str
    split: str
    sentences: tuple[PlannedSentence, ...]


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """How the writing of a shard ended.

    Attributes:
      fingerprint: of the plan, see `plan.fingerprint`.
      complete: False if too many bad items made the writer give up; then there is no record file.
      num_bytes: the size of the record file.
      sentences, images: source name -> count. Of an encoding without pictures, all values count as images.
      bad_items: `source:key` -> why it was skipped.
    """

    fingerprint: str
    complete: bool
    num_bytes: int
    sentences: dict[str, int]
    images: dict[str, int]
    bad_items: dict[str, str]

    def save(self, path: epath.PathLike) -> None:
        """Writes it as JSON, atomically."""
        files.write_json(path, to_dict(self))


class ShardWriter:
    """Writes shards of one recipe with one encoder; thread-safe."""

    def __init__(
        self,
        recipe: Recipe,
        encoder: Encoder,
        fingerprint: str,
        cache: ItemCache,
        progress: Callable[[int], None],
    ):
        """`progress` is called with each count of finished sentences; if it raises, the shard ends there."""
        self._maker = SentenceMaker(recipe, cache)
        self._encoder = encoder
        self._fingerprint = fingerprint
        self._progress = progress

    def write(self, task: ShardTask) -> ShardSummary:
        """Writes the record file, its index, then the summary.

        Bad items are skipped along with the sentences that need them, and the summary names them. With more of them
        than the recipe allows, the writer gives up the shard and writes only its summary.

        Raises:
          UserError: the disk is full, or the encoder does not take a value's kind; nothing of the shard stays behind.
        """
        with needs_space(task.path):
            return self._write(task)

    def _write(self, task: ShardTask) -> ShardSummary:
        bad: dict[str, str] = {}
        sentences: dict[str, int] = {}
        images: dict[str, int] = {}
        try:
            with TFRecordWriter(task.path, self._encoder.schema) as writer:
                pending = _Pending(self._encoder, writer.write)
                for planned in task.sentences:
                    sentence = self._maker.make(planned, bad)
                    self._progress(1)  # skipped sentences too: the bar counts the plan's
                    if sentence is None:
                        continue
                    name = sentence.entry.source.name
                    sentences[name] = sentences.get(name, 0) + 1
                    images[name] = images.get(name, 0) + self._images(sentence)
                    pending.add(sentence)
                pending.flush()
        except TooManyBadItems:
            # Not raised: other shards go on, so that one run names the bad items of all.
            summary = ShardSummary(self._fingerprint, False, 0, {}, {}, bad)
        else:
            num_bytes = epath.Path(task.path).stat().length
            summary = ShardSummary(self._fingerprint, True, num_bytes, sentences, images, bad)
        summary.save(task.summary)
        return summary

    def _images(self, sentence: Composed) -> int:
        if Kind.PICTURE not in self._encoder.takes:
            return len(sentence.values)
        return sum(kind_of(value) == Kind.PICTURE for value in sentence.values)


class _Pending:
    """One shard's sentences that wait for the encoder, and the values encoded so far."""

    def __init__(self, encoder: Encoder, write: Callable[[bytes, Facts], None]):
        self._encoder, self._write = encoder, write
        self._sentences: list[Composed] = []
        self._waiting = self._bytes = 0  # values of these sentences
        # Clips and annotated images recur: each value is encoded once per shard and found again by its digest. Not
        # once per process, or the contents of a batch would depend on which shards the worker wrote before.
        self._encoded: dict[bytes, Any] = {}

    def add(self, sentence: Composed) -> None:
        what = f"sentence {sentence.planned.key!r}"
        refuse_other_kinds(sentence.values, self._encoder.takes, what, "the recipe's encoding")
        self._sentences.append(sentence)
        self._waiting += len(sentence.values)
        self._bytes += sum(map(num_bytes, sentence.values))
        if self._waiting >= IMAGES_AT_ONCE or self._bytes >= BYTES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Encodes the new values and writes the records of all waiting sentences."""
        # In the order of the plan, so that every run encodes the same batches.
        new: dict[bytes, Value] = {}
        digests = []
        for sentence in self._sentences:
            digests.append([digest(value) for value in sentence.values])
            for known, value in zip(digests[-1], sentence.values, strict=True):
                if known not in self._encoded:
                    new[known] = value
        self._encoded.update(zip(new, self._encoder.encode(list(new.values())), strict=True))
        for sentence, of_sentence in zip(self._sentences, digests, strict=True):
            self._write(*self._encoder.record(sentence, [self._encoded[d] for d in of_sentence]))
        self._sentences.clear()
        self._waiting = self._bytes = 0


def read_summary(task: ShardTask, fingerprint: str) -> ShardSummary | None:
    """The summary of a shard that was finished or given up under this plan; None if it has yet to be written."""
    content = files.read_json(task.summary)
    if content is None or content.get("fingerprint") != fingerprint:
        return None
    summary = ShardSummary(**content)
    # A summary can outlive its files, such as a record file that was deleted or cut short by a copy.
    data, index = epath.Path(task.path), index_path(task.path)
    if summary.complete and not (
        index.exists() and data.exists() and data.stat().length == summary.num_bytes
    ):
        return None
    return summary


@contextlib.contextmanager
def needs_space(path: epath.PathLike) -> Iterator[None]:
    """Turns a full disk while `path` is written into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space is left to write {path}: free some and run the same command again; what is finished is kept"
        ) from error
