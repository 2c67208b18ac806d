"""Rows of tokens: what a row is made of, and how a batch of them is filled with codes.

A row has seq_len + 1 tokens: inputs are `[:-1]`, labels `[1:]`. Letters: B rows, T tokens of a row.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int32, Int64

from lvm_jax.data.steps import Batch
from lvm_jax.data.visual_sentence import SpecialTokens

Read = Callable[[np.ndarray, np.ndarray, np.ndarray], Sequence[np.ndarray | None]]


class Piece(NamedTuple):
    """The codes `start:stop` of a sentence, with a BOS before and an EOS behind where the flags say so."""

    start: int
    stop: int
    bos: bool
    eos: bool

    @property
    def tokens(self) -> int:
        """BOS and EOS included."""
        return self.stop - self.start + self.bos + self.eos


@dataclasses.dataclass(frozen=True, eq=False)
class RowLayout:
    """The pieces of a row in order, whatever sentences they are of.

    `isolated`: each piece is a segment of its own, and positions restart with it.
    `repeats`: the last piece is a second look at a sentence that another row has whole.
    """

    pieces: tuple[Piece, ...]
    isolated: bool
    repeats: bool = False

    @property
    def tokens(self) -> int:
        """That are not padding."""
        return sum(piece.tokens for piece in self.pieces)


class Row(NamedTuple):
    """A layout, and the sentence of each piece."""

    layout: RowLayout
    sentences: Int64[np.ndarray, " pieces"]


class Rows(Protocol):
    """An endless series of rows in passes.

    Attributes:
      row_len: tokens of a row.
      rows_per_pass: in a pass every sentence is drawn once (or as often as its weight says).
      fill: share of the rows' tokens that are not padding, in (0, 1].
      repeated: share of them that are the beginning of a sentence which another row has whole.
    """

    row_len: int
    rows_per_pass: int
    fill: float
    repeated: float

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows first..first + count - 1 of the series; safe to call from any thread."""
        ...


def assemble(
    rows: Sequence[Row], read: Read, row_len: int, special: SpecialTokens, size: int
) -> Batch:
    """Rows as a batch: tokens, segment_ids, positions, int32 (size, row_len) each.

    Args:
      rows: at most `size`; the rest of the batch is padding.
      read: (sentences, starts, counts), int64 (m,) each, to `counts` of their flat codes from `starts` on; None for a
        bad record, whose place in the row becomes padding.
      row_len: T.
      special: ids of BOS, EOS and PAD.
      size: B.
    """
    tokens_BT, segments_BT, positions_BT = (np.empty((size, row_len), np.int32) for _ in range(3))
    tokens_BT[len(rows) :], segments_BT[len(rows) :], positions_BT[len(rows) :] = special.pad, 0, 0
    forms = [
        (_form if row.layout.isolated else _form.__wrapped__)(row.layout, row_len, special)
        for row in rows
    ]
    codes = iter(_read_all(rows, forms, read) if rows else [])
    for form, tokens_T, segments_T, positions_T in zip(
        forms, tokens_BT, segments_BT, positions_BT, strict=False
    ):
        tokens_T[:], segments_T[:], positions_T[:] = form.tokens, form.segments, form.positions
        for (piece, inner), found in zip(form.places, codes, strict=False):
            if found is None:
                tokens_T[piece], segments_T[piece], positions_T[piece] = special.pad, 0, 0
            else:
                tokens_T[inner] = found
    return {"tokens": tokens_BT, "segment_ids": segments_BT, "positions": positions_BT}


def _read_all(
    rows: Sequence[Row], forms: Sequence["_Form"], read: Read
) -> Sequence[np.ndarray | None]:
    """The codes of all pieces, in order."""
    return read(
        np.concatenate([row.sentences for row in rows]),
        np.concatenate([form.starts for form in forms]),
        np.concatenate([form.counts for form in forms]),
    )


class _Form(NamedTuple):
    """A row before its codes; which codes its pieces want; where each piece lies, and its codes in it."""

    tokens: Int32[np.ndarray, " t"]
    segments: Int32[np.ndarray, " t"]
    positions: Int32[np.ndarray, " t"]
    starts: Int64[np.ndarray, " pieces"]
    counts: Int64[np.ndarray, " pieces"]
    places: list[tuple[slice, slice]]


@functools.lru_cache(maxsize=256)  # packed rows come in few layouts; 12 MB at 4096 tokens
def _form(layout: RowLayout, row_len: int, special: SpecialTokens) -> _Form:
    tokens = np.full(row_len, special.pad, np.int32)
    segments, positions = np.zeros(row_len, np.int32), np.zeros(row_len, np.int32)
    places, begin = [], 0
    for number, piece in enumerate(layout.pieces, start=1):
        end = begin + piece.tokens
        segments[begin:end] = number if layout.isolated else 1
        positions[begin:end] = np.arange(end - begin) if layout.isolated else np.arange(begin, end)
        if piece.bos:
            tokens[begin] = special.bos
        if piece.eos:
            tokens[end - 1] = special.eos
        places.append((slice(begin, end), slice(begin + piece.bos, end - piece.eos)))
        begin = end
    starts = np.array([piece.start for piece in layout.pieces])
    counts = np.array([piece.stop for piece in layout.pieces]) - starts
    return _Form(tokens, segments, positions, starts, counts, places)
