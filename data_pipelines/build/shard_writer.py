"""One shard: from its list of planned sentences to a record file, an index and a summary.

A shard is finished when its summary carries the fingerprint of the plan. The summary is written last, and everything
by renaming, so a process killed at any moment leaves shards that are either whole or absent.
"""

import contextlib
import dataclasses
import errno
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
from etils import epath

from data_pipelines.build.composing import Composed, ItemCache, SentenceMaker, TooManyBadItems
from data_pipelines.build.encoding import BatchEncoder
from data_pipelines.build.recipe import Recipe, SentencePlan
from lvm_jax import files
from lvm_jax.config import to_dict
from lvm_jax.data.records.record_index import index_path
from lvm_jax.data.sentences.sentence_record import SentenceWriter
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError

IMAGES_AT_ONCE = 512  # resized images that wait for the encoder: 100 MB at 256 pixels


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """What a worker is told: where a shard and its summary go, and the sentences in it."""

    path: str
    summary: str
    split: str
    sentences: tuple[SentencePlan, ...]


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What became of a shard.

    Attributes:
      fingerprint: of the plan, see `recipe.fingerprint`.
      complete: False if it was given up for too many bad items; then there is no record file.
      num_bytes: of the record file.
      sentences, images: source name -> how many.
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
    """Writes shards of one recipe with one tokenizer; safe to share between threads."""

    def __init__(
        self,
        recipe: Recipe,
        encoder: BatchEncoder,
        fingerprint: str,
        cache: ItemCache,
        progress: Callable[[int], None],
    ):
        """`progress` is told of each number of sentences done; what it raises ends the shard."""
        self._maker = SentenceMaker(recipe, cache)
        self._encoder = encoder
        self._fingerprint = fingerprint
        self._progress = progress

    def write(self, task: ShardTask) -> ShardSummary:
        """Writes the record file, its index, then the summary.

        Bad items are skipped, with the sentences that need them, and named in the summary; above the recipe's limit the
        shard is given up and only its summary is written.

        Raises:
          UserError: the disk is full; nothing of the shard is left behind.
        """
        with needs_space(task.path):
            return self._write(task)

    def _write(self, task: ShardTask) -> ShardSummary:
        bad: dict[str, str] = {}
        sentences: dict[str, int] = {}
        images: dict[str, int] = {}
        try:
            with SentenceWriter(task.path) as writer:
                pending: list[Composed] = []
                waiting = 0  # images of `pending`
                known: dict[bytes, np.ndarray] = {}
                for plan in task.sentences:
                    composed = self._maker.make(plan, bad)
                    self._progress(1)
                    if composed is None:
                        continue
                    pending.append(composed)
                    name = composed.entry.source.name
                    sentences[name] = sentences.get(name, 0) + 1
                    images[name] = images.get(name, 0) + len(composed.images)
                    waiting += len(composed.images)
                    if waiting >= IMAGES_AT_ONCE:
                        self._encode(pending, known, writer)
                        waiting = 0
                self._encode(pending, known, writer)
        except TooManyBadItems:
            summary = ShardSummary(self._fingerprint, False, 0, {}, {}, bad)
        else:
            num_bytes = epath.Path(task.path).stat().length
            summary = ShardSummary(self._fingerprint, True, num_bytes, sentences, images, bad)
        summary.save(task.summary)
        return summary

    def _encode(
        self, pending: list[Composed], known: dict[bytes, np.ndarray], writer: SentenceWriter
    ) -> None:
        """Writes `pending` and empties it; `known` holds the codes of all images of this shard so far, by digest."""
        # Clips and annotated images are told several times: each picture is encoded once a shard. Not once a process:
        # what is in a batch must not depend on which shards a worker happened to write before.
        new: dict[bytes, np.ndarray] = {}
        digests = []
        for sentence in pending:
            digests.append([hashlib.sha256(image.tobytes()).digest() for image in sentence.images])
            for digest, image in zip(digests[-1], sentence.images, strict=True):
                if digest not in known:
                    new[digest] = image
        known.update(zip(new, self._encoder.encode(list(new.values())), strict=True))
        for sentence, of_sentence in zip(pending, digests, strict=True):
            record = VisualSentence(
                codes=np.stack([known[digest] for digest in of_sentence]),
                source=sentence.entry.source.name,
                category=sentence.entry.source.category,
                key=sentence.plan.key,
                layout=sentence.layout,
            )
            writer.add(record)
        pending.clear()


def read_summary(task: ShardTask, fingerprint: str) -> ShardSummary | None:
    """The summary of a shard that is finished, or was given up, under this plan; None if it is to be written."""
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
    """Tells a full disk while `path` is written as a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space is left to write {path}: free some and run the same command again, what is finished is kept"
        ) from error
