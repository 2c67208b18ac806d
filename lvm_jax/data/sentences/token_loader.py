"""Shards to language-model batches.

A batch holds arrays of (rows of this process, seq_len + 1): `tokens`, `segment_ids` and `positions`, int32, and
`loss_weights`, float32; `loss_weights[:, t]` is the weight of predicting token t. Segment 0 is padding.

Six index spaces lead from a step to the bytes on disk. Each arrow is a formula or one look-up, so any step is found
without the steps before it, on any number of hosts:

    step              of the training loop; the loader's whole state
     | StepLoader.indices_at: step * global_batch + the slice of this process
    row of the series endless, the same for every number of processes
     | divmod by rows_per_pass
    row of the pass   a pass is one round over the data (with weights: over each group as often as its weight says)
     | EvenDealer.find: the block of the row; its order is drawn when needed
    piece             a row's template lists its pieces: which codes of a sentence of which bucket (see `packing`)
     | the piece's n-th draw from its bucket; BucketTable.sentence: the n-th of the bucket, permuted
    sentence          0..N - 1 over all shards, in the order of folder, file and record
     | RecordStore.read: the file by binary search, the record by the remainder
    record            of a file: the index says at which byte its frame begins, and where in it the codes begin
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from lvm_jax.data.mixture import make_mixture
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.shards import Shards
from lvm_jax.data.sentences.buckets import BucketTable
from lvm_jax.data.sentences.concat import ConcatRows
from lvm_jax.data.sentences.packing import LongSentences, OnePerRow, PackedRows
from lvm_jax.data.sentences.question_weights import QuestionWeights
from lvm_jax.data.sentences.row_assembly import Rows, assemble
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.data.step_loader import HostBatch, StepLoader, slice_of_batch
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary

Packing = Literal["packed", "concat"]


class TokenLoader(StepLoader):
    """Endless training batches; the batch of step s is a pure function of the shards, the arguments and s.

    Rows are packed by bucket, from the indices alone, and dealt in passes. Without weights a pass has every sentence
    once, in an order of its own. A batch may span two passes.

    Attributes:
      manifest: of all data sets together.
      rows_per_pass: number of rows.
      fill: share of the rows' tokens that are not padding.
      repeated: share of the rows' tokens that are a second look at a sentence's beginning (see `packing`).
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
        weights: Mapping[str, float] | None = None,
        question_weight: float = 1.0,
        long_sentences: LongSentences = "error",
        vocabulary: Vocabulary | None = None,
        max_corrupt: int = 16,
        threads: int = 1,
        prefetch: int = 2,
    ):
        """Opens the shards and packs the rows.

        Args:
          shards: see `find_shards`.
          split: such as "train".
          seq_len: inputs of a row; a row has one token more.
          global_batch: rows a step, over all processes.
          seed: of the rows and their order.
          packing: "packed" keeps sentences whole and apart; "concat" is the paper's stream. See these modules.
          process_index: which slice of the global batch this process reads.
          process_count: number of slices.
          weights: of data sets, sources or categories, see `mixture`; None: every sentence once a pass.
          question_weight: loss weight of codes that only ask, see `question_weights`; nothing else in a batch
            depends on it.
          long_sentences: "error" or "split", see `packing.PackedRows`; "concat" cuts anyway.
          vocabulary: of the rows; None: the published LVM's, for the manifest's codebook.
          max_corrupt: how many bad records each process may skip.
          threads: threads that read ahead; 0 reads on demand.
          prefetch: batches to read ahead, at least one a thread.

        Raises:
          UserError: unusable shards (`SentenceStore`) or weights (`make_mixture`), a sentence longer than a row, or a
            batch that does not divide.
        """
        weighs = question_weight != 1.0
        self._store = SentenceStore(shards, split, max_corrupt=max_corrupt, with_periods=weighs)
        self._questions = QuestionWeights.of(self._store, question_weight) if weighs else None
        images = self._store.images_by_origin()
        self._images = images
        self._mixture = make_mixture(self._store.origins, images, weights or {})
        # uint16, for there is one a sentence, and `MAX_ORIGINS` bounds the groups.
        group = np.array(self._mixture.group_of, np.uint16)[self._store.origin]
        rates = self._mixture.rates(images)
        # A weight of 0 leaves sentences out just as if their records were bad.
        lengths = np.where(rates[group] > 0, self._store.lengths, np.uint32(0))
        table = BucketTable(lengths, group, rates)
        self._vocabulary = vocabulary or Vocabulary.lvm(self._store.manifest.codebook_size)
        self._passes_of_group = table.passes_of_groups(len(self._mixture.names))
        self._rows: Rows
        if packing == "packed":
            per_image = self._store.manifest.tokens_per_image
            self._rows = PackedRows(table, seq_len + 1, per_image, seed, long_sentences)
        elif packing == "concat":
            self._rows = ConcatRows(table, seq_len + 1, seed)
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
        """The manifest of all data sets together."""
        return self._store.manifest

    @property
    def rows_per_pass(self) -> int:
        """Number of rows of a pass."""
        return self._rows.rows_per_pass

    @property
    def fill(self) -> float:
        """Share of the rows' tokens that are not padding."""
        return self._rows.fill

    @property
    def repeated(self) -> float:
        """Share of the rows' tokens that repeat the beginning of a sentence which another row has whole."""
        return self._rows.repeated

    def epochs(self, step: int) -> dict[str, float]:
        """How often each data set has been seen after `step` steps, such as {"coco": 1.25}."""
        # A pass over the rows draws each group as often as its weight says: data sets advance at different speeds.
        passes = step * self.global_batch / self._rows.rows_per_pass
        drawn, available = {}, {}
        for origin, group, images in zip(
            self._store.origins, self._mixture.group_of, self._images.tolist(), strict=True
        ):
            name = origin.dataset
            available[name] = available.get(name, 0) + images
            drawn[name] = drawn.get(name, 0) + images * passes * self._passes_of_group[group]
        return {name: drawn[name] / available[name] for name in drawn if available[name]}

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has skipped so far."""
        return self._store.corrupt

    def batch_at(self, step: int) -> HostBatch:
        """This process's rows of `step`."""
        indices = self.indices_at(step)
        rows = self._rows.rows(indices.start, len(indices))
        batch = assemble(
            rows,
            self._store.codes,
            self._rows.row_len,
            self._vocabulary,
            len(rows),
            self._store.schema.id_type,
        )
        if self._questions is not None:
            self._questions.apply(rows, batch["loss_weights"])
        return batch


class EvalLoader:
    """A split once, in order, one sentence a row; a new iteration starts at the beginning.

    Every process yields the same number of batches of one shape, so that no collective operation waits for a process
    that has ended; rows of segment 0 fill up the last ones.
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
        vocabulary: Vocabulary | None = None,
        max_corrupt: int = 16,
    ):
        """Opens the shards; arguments and errors as in `TokenLoader`."""
        self._slice = slice_of_batch(global_batch, process_index, process_count)
        self._store = SentenceStore(shards, split, max_corrupt=max_corrupt)
        self._row_len = seq_len + 1
        self._vocabulary = vocabulary or Vocabulary.lvm(self._store.manifest.codebook_size)
        self._rows = OnePerRow(
            self._store.lengths, seq_len + 1, self._store.manifest.tokens_per_image, long_sentences
        )
        self._global_batch = global_batch

    @property
    def manifest(self) -> Manifest:
        """The manifest of all data sets together."""
        return self._store.manifest

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has skipped so far."""
        return self._store.corrupt

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._rows) // self._global_batch)

    def __iter__(self) -> Iterator[HostBatch]:
        for number in range(len(self)):
            first = number * self._global_batch + self._slice.start
            yield assemble(
                self._rows.rows(first, len(self._slice)),
                self._store.codes,
                self._row_len,
                self._vocabulary,
                len(self._slice),
                self._store.schema.id_type,
            )

    def sentences(self) -> Iterator[VisualSentence]:
        """The sentences of the split, in order, without bad records; visual prompts are made of them."""
        for i in range(len(self._store)):
            sentence = self._store.sentence(i) if self._store.lengths[i] else None
            if sentence is not None:
                yield sentence
