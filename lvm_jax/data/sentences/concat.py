"""Sentences into rows the paper's way: `concat`.

All sentences, in an order drawn anew in each pass, are one stream of BOS, codes, EOS, cut every seq_len + 1 tokens.
A row is one segment, positions run through it, and attention crosses the borders of sentences. No token is dropped: the
last row of a pass ends in padding. Row i is found without the rows before it (see `passes`).
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from lvm_jax.data.dealing import Passes, occurrence
from lvm_jax.data.sentences.buckets import KindTable
from lvm_jax.data.sentences.row_assembly import Piece, Row, RowLayout
from lvm_jax.errors import UserError

BLOCK_SENTENCES = 16384


class ConcatRows:
    """The paper's stream of tokens; see `rows.Rows` and the module.

    Args:
      table: the sentences by kind.
      row_len: seq_len + 1.
      seed: non-negative; of the order.

    Raises:
      UserError: a row of no label.
    """

    repeated = 0.0

    def __init__(self, table: KindTable, row_len: int, seed: int):
        if row_len < 2:
            raise UserError(f"seq_len is {row_len - 1}: it must be at least 1")
        self.row_len = row_len
        self._table, self._seed = table, seed
        self._codes = np.array([kind.codes for kind in table.kinds])
        self._members = np.array([(kind.first, kind.count) for kind in table.kinds])
        self._passes = Passes(np.array([kind.draws for kind in table.kinds]), BLOCK_SENTENCES, seed)
        self._total = int(self._passes.counts @ (self._codes + 2))
        self.rows_per_pass = -(-self._total // row_len)
        self.fill = self._total / (self.rows_per_pass * row_len)
        self._block = functools.lru_cache(maxsize=4)(self._make_block)

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows first..first + count - 1; O(1) in `first`."""
        return [self._row(row) for row in range(first, first + count)]

    def _row(self, row: int) -> Row:
        number, place = divmod(row, self.rows_per_pass)
        begin, end = place * self.row_len, min((place + 1) * self.row_len, self._total)
        block = self._passes.find(begin, self._codes + 2)
        pieces: list[Piece] = []
        sentences: list[np.ndarray] = []
        at = begin
        while at < end:
            stream = self._block(number, block)
            low = int(np.searchsorted(stream.ends, at, side="right"))
            high = int(np.searchsorted(stream.ends, end, side="left")) + 1
            for codes, last in zip(
                stream.codes[low:high].tolist(), stream.ends[low:high].tolist(), strict=True
            ):
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
        return Row(RowLayout(tuple(pieces), isolated=False), np.concatenate(sentences))

    def _make_block(self, number: int, block: int) -> "_Stream":
        kinds = self._passes.types(number, block)
        before = self._passes.before(block)
        drawn = before + number * self._passes.counts
        codes = self._codes[kinds]
        return _Stream(
            self._table.sentence(
                self._members[kinds, 0],
                self._members[kinds, 1],
                drawn[kinds] + occurrence(kinds),
                kinds,
                self._seed,
            ),
            codes,
            int(before @ (self._codes + 2)) + np.cumsum(codes + 2),
        )


class _Stream(NamedTuple):
    """Sentences in order; `ends`: the tokens of the pass up to the end of each."""

    sentences: Int64[np.ndarray, " n"]
    codes: Int64[np.ndarray, " n"]
    ends: Int64[np.ndarray, " n"]
