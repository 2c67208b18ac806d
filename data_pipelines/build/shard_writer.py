"""One shard: from its list of planned sentences to a record file, an index and a summary.

A shard is finished when its summary carries the fingerprint of the plan. The summary is written last, and every file
by renaming, so a process that is killed leaves shards that are either whole or absent.
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
from data_pipelines.items import Value, digest, refuse_other_kinds
from lvm_jax import files
from lvm_jax.config import to_dict
from lvm_jax.data.records.record_index import Facts, index_path
from lvm_jax.data.records.writer import TFRecordWriter
from lvm_jax.errors import UserError

IMAGES_AT_ONCE = 512  # values that wait for the encoder: 100 MB of pictures of 256 pixels


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """What a worker gets: where a shard and its summary go, and the sentences in it."""

    path: str
    summary: str
    split: str
    sentences: tuple[PlannedSentence, ...]


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What became of a shard.

    Attributes:
      fingerprint: of the plan, see `plan.fingerprint`.
      complete: False if it was given up because of too many bad items; then there is no record file.
      num_bytes: the size of the record file.
      sentences, images: source name -> how many; values of any kind count as images.
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
    """Writes shards of one recipe with one encoder; threads may share it."""

    def __init__(
        self,
        recipe: Recipe,
        encoder: Encoder,
        fingerprint: str,
        cache: ItemCache,
        progress: Callable[[int], None],
    ):
        """`progress` is told each number of sentences done; what it raises ends the shard."""
        self._maker = SentenceMaker(recipe, cache)
        self._encoder = encoder
        self._fingerprint = fingerprint
        self._progress = progress

    def write(self, task: ShardTask) -> ShardSummary:
        """Writes the record file, its index, then the summary.

        Bad items are skipped, with the sentences that need them, and named in the summary. If there are more than the
        recipe allows, the shard is given up and only its summary is written.

        Raises:
          UserError: the disk is full, or a value is of a kind that the encoder does not take; nothing of the shard is
            left behind.
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
                    self._progress(1)
                    if sentence is None:
                        continue
                    name = sentence.entry.source.name
                    sentences[name] = sentences.get(name, 0) + 1
                    images[name] = images.get(name, 0) + len(sentence.values)
                    pending.add(sentence)
                pending.flush()
        except TooManyBadItems:
            summary = ShardSummary(self._fingerprint, False, 0, {}, {}, bad)
        else:
            num_bytes = epath.Path(task.path).stat().length
            summary = ShardSummary(self._fingerprint, True, num_bytes, sentences, images, bad)
        summary.save(task.summary)
        return summary


class _Pending:
    """The sentences of one shard that wait for the encoder, and what its values were encoded to so far."""

    def __init__(self, encoder: Encoder, write: Callable[[bytes, Facts], None]):
        self._encoder, self._write = encoder, write
        self._sentences: list[Composed] = []
        self._waiting = 0  # values of these sentences
        # Clips and annotated images are shown several times: each value is encoded once a shard, and found again by
        # its digest. Not once a process: what is in a batch must not depend on the shards that a worker wrote before.
        self._encoded: dict[bytes, Any] = {}

    def add(self, sentence: Composed) -> None:
        what = f"sentence {sentence.planned.key!r}"
        refuse_other_kinds(sentence.values, self._encoder.takes, what, "the recipe's encoding")
        self._sentences.append(sentence)
        self._waiting += len(sentence.values)
        if self._waiting >= IMAGES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Encodes what is new, and writes the records of all waiting sentences."""
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
        self._waiting = 0


def read_summary(task: ShardTask, fingerprint: str) -> ShardSummary | None:
    """The summary of a shard that is finished or was given up under this plan; None if it has yet to be written."""
    content = files.read_json(task.summary)
    if content is None or content.get("fingerprint") != fingerprint:
        return None
    summary = ShardSummary(**content)
    data, index = epath.Path(task.path), index_path(task.path)
    if summary.complete and not (
        index.exists() and data.exists() and data.stat().length == summary.num_bytes
    ):
        return None
    return summary


@contextlib.contextmanager
def needs_space(path: epath.PathLike) -> Iterator[None]:
    """Turns a full disk, met while `path` is written, into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space is left to write {path}: free some and run the same command again, what is finished is kept"
        ) from error
