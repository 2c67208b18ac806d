"""Shards to language-model batches.

A batch is `{"tokens", "segment_ids", "positions"}`, int32 (rows of this process, seq_len + 1) each. Segment 0 is
padding; a label counts where its segment is that of its input and not 0.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from lvm_jax.data import packing as packings
from lvm_jax.data.manifest import Manifest
from lvm_jax.data.packing import LongSentences, RowPlan
from lvm_jax.data.shards import SentenceStore, Shards
from lvm_jax.data.steps import Batch, StepLoader, shuffled_index
from lvm_jax.data.visual_sentence import SpecialTokens, VisualSentence
from lvm_jax.errors import UserError

Packing = Literal["packed", "concat"]


class TokenLoader(StepLoader):
    """Endless training batches; the batch of step s is a pure function of the shards, the arguments and s.

    Rows are planned once, from the indices. Each epoch visits every row once, in an order of its own. A batch may lie
    on both sides of an epoch's border.

    Attributes:
      manifest: of all data sets together.
      rows_per_epoch: number of rows.
      fill: share of the rows' tokens that are not padding.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        seq_len: int,
        global_batch: int,
        seed: int,
        packing: Packing = "packed",
        process_index: int = 0,
        process_count: int = 1,
        *,
        long_sentences: LongSentences = "error",
        max_corrupt: int = 16,
        threads: int = 1,
        prefetch: int = 2,
    ):
        """Opens the shards and plans the rows.

        Args:
          shards: a data set's folder, a folder of data sets, a glob of either or of shard files, or a list of these.
          split: such as "train".
          seq_len: inputs a row; a row has one token more.
          global_batch: rows a step, of all processes together.
          seed: of the rows and of their order.
          packing: "packed" keeps sentences whole and apart; "concat" is the paper's stream (see `packing`).
          process_index: which slice of the global batch this process reads.
          process_count: number of slices.
          long_sentences: "error" or "split", see `packing.pack`; "concat" cuts anyway.
          max_corrupt: bad records that may be skipped, each process for itself.
          threads: that read ahead; 0 reads when asked.
          prefetch: batches to read ahead, one a thread at least.

        Raises:
          UserError: unusable shards (see `SentenceStore`), a sentence longer than a row, a batch that does not divide.
        """
        self._store = SentenceStore(shards, split, max_corrupt=max_corrupt)
        row_len, per_image = seq_len + 1, self._store.manifest.tokens_per_image
        if packing == "packed":
            self._plan = packings.pack(
                self._store.lengths, row_len, per_image, seed, long_sentences
            )
        elif packing == "concat":
            self._plan = packings.concatenate(self._store.lengths, row_len, seed)
        else:
            raise UserError(f"packing is {packing!r}: it must be 'packed' or 'concat'")
        super().__init__(
            seed=seed,
            global_batch=global_batch,
            process_index=process_index,
            process_count=process_count,
            threads=threads,
            prefetch=prefetch,
        )

    @property
    def manifest(self) -> Manifest:
        """Of all data sets together."""
        return self._store.manifest

    @property
    def rows_per_epoch(self) -> int:
        """Rows in the plan."""
        return len(self._plan)

    @property
    def fill(self) -> float:
        """Share of the rows' tokens that are not padding."""
        return self._plan.fill

    @property
    def corrupt(self) -> int:
        """Distinct bad records that this process has skipped so far."""
        return self._store.corrupt

    def batch_at(self, step: int) -> Batch:
        """This process's rows of `step`."""
        rows = [shuffled_index(i, len(self._plan), self.seed) for i in self.indices_at(step)]
        return _batch(self._store, self._plan, rows)


class EvalLoader:
    """A split once, in order, a sentence a row; iterating again starts again.

    Every process yields the same number of batches of the same shape; what is missing at the end is rows of segment 0.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        seq_len: int,
        global_batch: int,
        process_index: int = 0,
        process_count: int = 1,
        *,
        long_sentences: LongSentences = "error",
        max_corrupt: int = 16,
    ):
        """Opens the shards; arguments and errors as in `TokenLoader`."""
        if global_batch < 1 or global_batch % process_count:
            raise UserError(
                f"global_batch is {global_batch}: it must be a positive multiple of the {process_count} processes"
            )
        self._store = SentenceStore(shards, split, max_corrupt=max_corrupt)
        self._plan = packings.one_per_row(
            self._store.lengths, seq_len + 1, self._store.manifest.tokens_per_image, long_sentences
        )
        self._global_batch = global_batch
        self._local_batch = global_batch // process_count
        self._first = process_index * self._local_batch

    @property
    def manifest(self) -> Manifest:
        """Of all data sets together."""
        return self._store.manifest

    @property
    def corrupt(self) -> int:
        """Distinct bad records that this process has skipped so far."""
        return self._store.corrupt

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._plan) // self._global_batch)

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self)):
            first = number * self._global_batch + self._first
            yield _batch(self._store, self._plan, range(first, first + self._local_batch))

    def sentences(self) -> Iterator[VisualSentence]:
        """The sentences of the split, in order, bad records left out: the stuff of visual prompts."""
        for i in range(len(self._store)):
            sentence = self._store.sentence(i) if self._store.lengths[i] else None
            if sentence is not None:
                yield sentence


def _batch(store: SentenceStore, plan: RowPlan, rows: "list[int] | range") -> Batch:
    """The rows of a plan as one batch; a row number beyond the plan is padding."""

    def read(i: int) -> np.ndarray | None:
        sentence = store.sentence(i)
        return None if sentence is None else sentence.codes.reshape(-1)

    special = SpecialTokens(store.manifest.codebook_size)
    shape = (len(rows), plan.row_len)
    tokens, segment_ids, positions = (
        np.full(shape, special.pad, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
    )
    for slot, row in enumerate(rows):
        if row < len(plan):
            tokens[slot], segment_ids[slot], positions[slot] = packings.assemble(
                plan, row, read, special
            )
    return {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}
