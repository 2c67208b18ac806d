"""Pools to batches of rows, all rows of a batch answering one question.

A batch holds arrays of this process's rows:

| name | type | meaning |
|---|---|---|
| tokens, segment_ids, positions, attributes | int32 (B, L) | see `sequences.Row`; segment 0 is padding |
| loss_weights | float32 (B, L) | `[:, t]` is the weight of predicting token t |
| question | int32 () | the batch's only question, a place in `QUESTIONS`; the same on all processes |

How a step leads to its rows, without the steps before it and on any number of processes:

    step        the loader's whole state
     | QuestionOrder: questions are dealt to steps by their shares; how often each came before is a formula
    question, and its n-th batch
     | n * global_batch + the slice of this process
    place       in the endless series of the question's rows
     | EpisodeDrawer: the query by a permutation, its examples by another
    records

Shape legend: B rows of this process, L tokens of a row.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from lvm_jax.data.in_context.episodes import Drawn, EpisodeDrawer, RowStyle
from lvm_jax.data.in_context.pool import Pool, PoolStore, Side
from lvm_jax.data.in_context.pool_record import PoolRecord
from lvm_jax.data.in_context.question_order import QuestionOrder, shares_of
from lvm_jax.data.in_context.sequences import Pair, Question, Row, SequenceFormat, stacked
from lvm_jax.data.records.manifest import Manifest, check_compatible
from lvm_jax.data.records.shards import Shards
from lvm_jax.data.step_loader import HostBatch, StepLoader, slice_of_batch
from lvm_jax.data.text_tokenizer import UnknownCharacters
from lvm_jax.errors import UserError

QUESTIONS = tuple(Question)


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """A row with what it was made of.

    Attributes:
      row: as the decoder reads it.
      pairs: of the row, the query last.
      examples: their records.
      query: its record, which has the truth.
      rival: an episode about something else in the query's picture, if the pool has one.
    """

    row: Row
    pairs: tuple[Pair, ...]
    examples: tuple[PoolRecord, ...]
    query: PoolRecord
    rival: "Episode | None" = None


class RowMaker:
    """Drawn rows to arrays of fixed length; thread-safe.

    Args:
      store: of the records.
      form: of a row.
      styles: what rows show; all have room for the most examples of any.
      questions: that are asked.
      positions: of the decoder; 0: not compared.
      tokenizer_fingerprint: of the VQGAN that reads and draws the codes; None: not compared.

    Raises:
      UserError: the pool is of another tokenizer, the format lacks room for what the style shows, or a row has more
        tokens than the decoder has positions.
    """

    def __init__(
        self,
        store: PoolStore,
        form: SequenceFormat,
        styles: Sequence[RowStyle],
        questions: Sequence[Question],
        positions: int = 0,
        tokenizer_fingerprint: str | None = None,
    ):
        check_compatible(
            store.manifest,
            codebook_size=len(form.words.vocabulary["image"]),
            tokens_per_image=form.tokens_per_image,
            tokenizer_fingerprint=tokenizer_fingerprint,
        )
        self._store, self._form = store, form
        most = max(style.most_examples for style in styles)
        self._room = most + 1
        length = self._room * form.pair_length
        if positions and length > positions:
            raise UserError(
                f"{most} examples and a query have {length} tokens, the decoder {positions} positions: show at most "
                f"{max(0, positions // form.pair_length - 1)} examples, or give it more positions"
            )
        for style in styles:
            self._check(style, questions)

    def _check(self, style: RowStyle, questions: Sequence[Question]) -> None:
        if style.names_classes and not self._form.category_room:
            raise UserError(
                "the style writes classes before pairs and the format has no room for them: set category_room, or "
                "category={'none': 1}"
            )
        says_fields = style.say_category or style.boxes == "text"
        if says_fields and Question.CAPTIONING in questions and not self._form.words.has_brackets:
            raise UserError(
                "words say the class or boxes, and the vocabulary has no brackets: make it with "
                "Vocabulary.unified(bins=1001), or use say_category=False and another mode of boxes"
            )

    def episode(self, drawer: EpisodeDrawer, drawn: Drawn) -> Episode | None:
        """The row, read; None if a record of it is bad or does not fit, which is counted.

        Raises:
          UserError: more bad records than the store allows.
        """
        numbers = (*drawn.examples, drawn.query)
        records = [record for record in self._store.records(numbers) if record is not None]
        if len(records) < len(numbers):
            return None
        pairs = drawer.pairs(drawn, records)
        try:
            row = self._form.row(pairs, self._room)
        except (UserError, UnknownCharacters):
            self._count_misfit(drawn, records, pairs)
            return None
        return Episode(row, tuple(pairs), tuple(records[:-1]), records[-1])

    def _count_misfit(
        self, drawn: Drawn, records: Sequence[PoolRecord], pairs: Sequence[Pair]
    ) -> None:
        """Counts the records of a row that do not fit it."""
        for i, record, pair in zip((*drawn.examples, drawn.query), records, pairs, strict=True):
            try:
                self._form.row([pair])
            except (UserError, UnknownCharacters) as error:
                self._store.count_corrupt(i, f"record {record.key!r}: {error}")

    def row(self, drawer: EpisodeDrawer, drawn: Drawn) -> Row:
        """The row of `episode`; padding, whose loss weighs nothing, where that is None."""
        found = self.episode(drawer, drawn)
        return self.padding() if found is None else found.row

    def padding(self) -> Row:
        """A row that is all padding."""
        return self._form.padding(self._room)


class InContextLoader(StepLoader):
    """Endless training batches; the batch of step s is a pure function of the shards, the arguments and s.

    A bad record (damaged, of words that the tokenizer lacks, too long) is counted and logged, and its row is padding:
    the result is the same on any number of processes.

    Attributes:
      questions: that are asked.
      shares: of the steps that each of them gets; they sum to 1. Task balance divides by them.
      records: number of records of each question.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        form: SequenceFormat,
        style: RowStyle,
        global_batch: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        *,
        later: Sequence[tuple[int, RowStyle]] = (),
        questions: Sequence[Question] = QUESTIONS,
        one_question: bool = True,
        shares: Mapping[str, float] | None = None,
        side: Side = "seen",
        fewest: int = 0,
        positions: int = 0,
        tokenizer_fingerprint: str | None = None,
        max_corrupt: int = 16,
        threads: int = 1,
        prefetch: int = 2,
    ):
        """Opens the shards and reads their indices.

        Args:
          shards: see `find_shards`.
          split: such as "train".
          form: of a row.
          style: what is drawn for each row.
          global_batch: rows a step, over all processes.
          seed: of every draw.
          process_index: which slice of the global batch this process reads.
          process_count: number of slices.
          later: (step, style): from that step on rows have another style, such as classes before examples only, then
            none.
          questions: to ask.
          one_question: all rows of a batch ask the same and have equally many examples, on all processes ("unmixed").
            Otherwise questions are dealt to rows, and a batch has no `question`.
          shares: of the questions, see `shares_of`.
          side: of the classes.
          fewest: pictures that a class must have; smaller ones are left out.
          positions: of the decoder, see `RowMaker`.
          tokenizer_fingerprint: see `RowMaker`.
          max_corrupt: how many bad records each process may meet.
          threads: threads that read ahead; 0 reads on demand.
          prefetch: batches to read ahead, at least one a thread.

        Raises:
          UserError: unusable shards, a question that no record answers, too few pictures of a class, shares that fit no
            question, or see `RowMaker` and `EpisodeDrawer`.
        """
        self._store = PoolStore(shards, split, max_corrupt=max_corrupt)
        self.questions = tuple(questions)
        self._changes = [step for step, _ in later]
        if self._changes != sorted(set(self._changes)) or min(self._changes, default=1) < 1:
            raise UserError(
                f"styles change at steps {self._changes}: from 1 on, each later than the last"
            )
        styles = (style, *(style for _, style in later))
        self._maker = RowMaker(
            self._store, form, styles, self.questions, positions, tokenizer_fingerprint
        )
        most = max(style.most_examples for style in styles)
        pools = [
            Pool.of(self._store, question, examples=most, side=side, fewest=fewest)
            for question in self.questions
        ]
        self.records = tuple(map(len, pools))
        # Rows of one batch are alike, so that experts can be chosen for spans of all of them.
        together = global_batch if one_question else 1
        self._drawers = [
            [EpisodeDrawer(self._store, pool, style, seed, together) for pool in pools]
            for style in styles
        ]
        self._order = QuestionOrder(shares_of(self.questions, self.records, shares), seed)
        self._one_question = one_question
        super().__init__(
            seed=seed,
            global_batch=global_batch,
            process_index=process_index,
            process_count=process_count,
            threads=threads,
            prefetch=prefetch,
        )

    @property
    def shares(self) -> tuple[float, ...]:
        """See the class."""
        return self._order.shares

    @property
    def manifest(self) -> Manifest:
        """The manifest of all data sets together."""
        return self._store.manifest

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has met so far."""
        return self._store.corrupt

    def batch_at(self, step: int) -> HostBatch:
        """This process's rows of `step`."""
        drawers = self._drawers[bisect.bisect_right(self._changes, step)]
        if not self._one_question:
            return stacked(self._mixed(drawers, self.indices_at(step)))
        questions, nths = self._order.at(range(step, step + 1))
        number, places = int(questions[0]), self.indices_at(int(nths[0]))
        rows = self._rows(drawers[number], np.arange(places.start, places.stop))
        return {**stacked(rows), "question": _question_id(self.questions[number])}

    def _mixed(self, drawers: Sequence[EpisodeDrawer], indices: range) -> list[Row]:
        """Rows whose questions are dealt one by one."""
        questions, places = self._order.at(indices)
        rows: dict[int, Row] = {}
        for number, drawer in enumerate(drawers):
            mine = np.flatnonzero(questions == number)
            rows |= zip(mine.tolist(), self._rows(drawer, places[mine]), strict=True)
        return [rows[i] for i in range(len(indices))]

    def _rows(self, drawer: EpisodeDrawer, places: Int64[np.ndarray, " B"]) -> list[Row]:
        return [self._maker.row(drawer, drawn) for drawn in drawer.draw(places)]


class InContextEvalLoader:
    """One question about the records of a split, each once as the query, in an order that the seed draws.

    A new iteration starts anew. Every process yields the same number of batches of one shape; rows of segment 0 fill up
    the last ones.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        form: SequenceFormat,
        style: RowStyle,
        question: Question,
        global_batch: int,
        process_index: int = 0,
        process_count: int = 1,
        *,
        limit: int = 0,
        side: Side = "seen",
        fewest: int = 0,
        positions: int = 0,
        tokenizer_fingerprint: str | None = None,
        seed: int = 0,
        max_corrupt: int = 16,
    ):
        """Opens the shards; arguments and errors as in `InContextLoader`, and `limit`, the most queries; 0: all."""
        if limit < 0:
            raise UserError(f"{limit} queries are asked for: at least 1, or 0 for all")
        self._slice = slice_of_batch(global_batch, process_index, process_count)
        self._store = PoolStore(shards, split, max_corrupt=max_corrupt)
        self._maker = RowMaker(
            self._store, form, (style,), (question,), positions, tokenizer_fingerprint
        )
        pool = Pool.of(
            self._store, question, examples=style.most_examples, side=side, fewest=fewest
        )
        self._drawer = EpisodeDrawer(self._store, pool, style, seed, global_batch)
        self._question, self._global_batch = question, global_batch
        self._queries = min(len(pool), limit or len(pool))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self._queries // self._global_batch)

    def __iter__(self) -> Iterator[HostBatch]:
        for first in range(0, len(self) * self._global_batch, self._global_batch):
            places = range(first + self._slice.start, first + self._slice.stop)
            rows = [
                self._maker.row(self._drawer, drawn)
                for drawn in self._drawer.draw(
                    np.arange(places.start, min(places.stop, self._queries))
                )
            ]
            rows += [self._maker.padding()] * (len(places) - len(rows))
            yield {**stacked(rows), "question": _question_id(self._question)}

    def episodes(self) -> Iterator[Episode]:
        """The same rows of all processes, with their records and their rivals; without bad ones."""
        drawn = self._drawer.draw(np.arange(self._queries))
        for one, other in zip(drawn, self._drawer.rivals(drawn), strict=True):
            episode = self._maker.episode(self._drawer, one)
            if episode is not None:
                rival = self._maker.episode(self._drawer, other) if other else None
                yield dataclasses.replace(episode, rival=rival)


def _question_id(question: Question) -> np.ndarray:
    return np.array(QUESTIONS.index(question), np.int32)
