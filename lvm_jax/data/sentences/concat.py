"""Sentences into rows the paper's way: `concat`.

All sentences, shuffled anew in each pass, form one stream of BOS, codes, EOS, which is cut every seq_len + 1 tokens. A
row is one segment, its positions run through, and attention crosses the borders of sentences. No token is dropped: the
last row of a pass ends in padding. Row i is found without the rows before it (see `dealing`).

Shape legend: N sentences of a block.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from lvm_jax.data.dealing import EvenDealer, occurrence
from lvm_jax.data.sentences.buckets import BucketTable
from lvm_jax.data.sentences.row_assembly import Piece, Row, RowTemplate
from lvm_jax.errors import UserError

BLOCK_SENTENCES = 16384


class ConcatRows:
    """The paper's stream of tokens; see `row_assembly.Rows` and the module.

    Args:
      table: the sentences by bucket.
      row_len: seq_len + 1.
      seed: of the order; non-negative.

    Raises:
      UserError: a row has no label.
    """

    repeated = 0.0  # a stream never fills a row with a second look at a sentence

    def __init__(self, table: BucketTable, row_len: int, seed: int):
        if row_len < 2:
            raise UserError(f"seq_len is {row_len - 1}: it must be at least 1")
        self.row_len = row_len
        self._table, self._seed = table, seed
        self._codes = np.array([bucket.codes for bucket in table.buckets])
        self._members = np.array([(bucket.first, bucket.count) for bucket in table.buckets])
        draws = np.array([bucket.draws for bucket in table.buckets])
        self._dealer = EvenDealer(draws, BLOCK_SENTENCES, seed)
        self._total = int(self._dealer.counts @ (self._codes + 2))
        self.rows_per_pass = -(-self._total // row_len)
        self.fill = self._total / (self.rows_per_pass * row_len)
        self._block = functools.lru_cache(maxsize=4)(self._make_block)

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows first..first + count - 1; O(1) in `first`."""
        return [self._row(row) for row in range(first, first + count)]

    def _row(self, row: int) -> Row:
        number, place = divmod(row, self.rows_per_pass)
        begin, end = place * self.row_len, min((place + 1) * self.row_len, self._total)
        block = self._dealer.find(begin, self._codes + 2)  # 2: a sentence also has BOS and EOS
        pieces: list[Piece] = []
        sentences: list[np.ndarray] = []
        at = begin
        while at < end:
            # All sentences of this block with a token in [at, end); the row may run on into the next block.
            stream = self._block(number, block)
            low = int(np.searchsorted(stream.ends, at, side="right"))
            high = int(np.searchsorted(stream.ends, end, side="left")) + 1
            for codes, last in zip(
                stream.codes[low:high].tolist(), stream.ends[low:high].tolist(), strict=True
            ):
                # Where the row's edges cut the sentence, counted from 0 before its BOS to codes + 2 behind its EOS.
                start, stop = max(begin - last + codes + 2, 0), min(end - last, 0) + codes + 2
                pieces.append(
                    Piece(
                        max(start - 1, 0),
                        min(stop - 1, codes),
                        bos=start == 0,
                        eos=stop == codes + 2,
                    )
                )
                at = min(last, end)
            sentences.append(stream.sentences[low:high])
            block += 1
        return Row(RowTemplate(tuple(pieces), isolated=False), np.concatenate(sentences))

    def _make_block(self, number: int, block: int) -> "_Stream":
        buckets = self._dealer.types(number, block)
        before = self._dealer.before(block)
        # Draws count on over passes, so a sentence's turn comes again only after its whole bucket was seen.
        drawn = before + number * self._dealer.counts
        codes = self._codes[buckets]
        return _Stream(
            self._table.sentence(
                self._members[buckets, 0],
                self._members[buckets, 1],
                drawn[buckets] + occurrence(buckets),
                buckets,  # as the salt
                self._seed,
            ),
            codes,
            int(before @ (self._codes + 2)) + np.cumsum(codes + 2),
        )


class _Stream(NamedTuple):
    """A block's sentences, in order; `ends` counts the tokens of the pass up to the end of each."""

    sentences: Int64[np.ndarray, " N"]
    codes: Int64[np.ndarray, " N"]
    ends: Int64[np.ndarray, " N"]
