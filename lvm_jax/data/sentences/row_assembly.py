"""Rows of tokens: what a row is made of, and how a batch of them is filled with codes.

A row has seq_len + 1 tokens: inputs are `[:-1]`, labels `[1:]`. Letters: B rows, T tokens of a row.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt16

from lvm_jax.data.sentences.visual_sentence import SpecialTokens
from lvm_jax.data.step_loader import Batch

Read = Callable[[np.ndarray, np.ndarray, np.ndarray], Sequence[bytes | None]]
_CODE = np.dtype("<u2")


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
    """Rows as a batch of (size, row_len) arrays: tokens, segment_ids, positions, int32, and loss_weights, float32.

    Args:
      rows: at most `size`; the rest of the batch is padding.
      read: (sentences, starts, counts), int64 (m,) each, to `counts` of their flat codes from `starts` on, as
        little-endian uint16; None for a bad record, whose place in the row becomes padding.
      row_len: T.
      special: ids of BOS, EOS and PAD.
      size: B.
    """
    tokens_BT, segments_BT, positions_BT = (np.empty((size, row_len), np.int32) for _ in range(3))
    weights_BT = np.empty((size, row_len), np.float32)
    n = len(rows)
    tokens_BT[n:], segments_BT[n:], positions_BT[n:], weights_BT[n:] = special.pad, 0, 0, 0
    if rows:
        forms = [
            (_form if row.layout.isolated else _form.__wrapped__)(row.layout, row_len, special)
            for row in rows
        ]
        found, holes = _read_all(rows, forms, read)
        tokens_BT[:n] = _tokens(forms, found, special).reshape(n, row_len)
        np.concatenate([form.segments for form in forms], out=segments_BT[:n].reshape(-1))
        np.concatenate([form.positions for form in forms], out=positions_BT[:n].reshape(-1))
        np.concatenate([form.loss_weights for form in forms], out=weights_BT[:n].reshape(-1))
        for row, place in holes:
            tokens_BT[row, place], segments_BT[row, place] = special.pad, 0
            positions_BT[row, place] = 0
            # The token behind a hole has lost what predicted it, too: one rule says so for both ends.
            weights_BT[row] = label_weights(segments_BT[row])
    return {
        "tokens": tokens_BT,
        "segment_ids": segments_BT,
        "positions": positions_BT,
        "loss_weights": weights_BT,
    }


def label_weights(segment_ids: Int32[np.ndarray, "*rows t"]) -> Float32[np.ndarray, "*rows t"]:
    """What predicting each token weighs: 1 where it continues the segment of the token before it, else 0.

    So neither padding (segment 0) counts, nor the first token of a sentence, which nothing in it predicts; the first
    token of a row is never a label, and weighs 0.
    """
    weights = np.zeros(segment_ids.shape, np.float32)
    before, label = segment_ids[..., :-1], segment_ids[..., 1:]
    weights[..., 1:] = (label == before) & (label != 0)
    return weights


def _read_all(
    rows: Sequence[Row], forms: Sequence["_Form"], read: Read
) -> tuple[list[bytes], list[tuple[int, slice]]]:
    """The codes of all pieces, in order, and the places (row, tokens) of those that cannot be read, which are zeros."""
    counts = np.concatenate([form.counts for form in forms])
    found = read(
        np.concatenate([row.sentences for row in rows]),
        np.concatenate([form.starts for form in forms]),
        counts,
    )
    if None not in found:
        return list(found), []  # pyright: ignore[reportReturnType]
    places = [(number, place) for number, form in enumerate(forms) for place in form.places]
    holes = [place for place, codes in zip(places, found, strict=True) if codes is None]
    return [codes or bytes(2 * n) for codes, n in zip(found, counts.tolist(), strict=True)], holes


def _tokens(
    forms: Sequence["_Form"], found: list[bytes], special: SpecialTokens
) -> Int32[np.ndarray, " rows_t"] | UInt16[np.ndarray, " rows_t"]:
    """The tokens of rows, one after another."""
    # Joined as bytes and read all at once: piece by piece, NumPy takes longer to begin than to copy.
    parts: list[bytes] = []
    begin = 0
    for form in forms:
        row = form.parts.copy()
        row[1::2] = found[begin : begin + len(form.places)]
        begin += len(form.places)
        parts += row
    tokens = np.frombuffer(b"".join(parts), _CODE)
    if special.pad <= np.iinfo(_CODE).max:
        return tokens
    wide = tokens.astype(np.int32)
    ends = np.cumsum([len(form.segments) for form in forms])
    for form, tokens_T in zip(forms, np.split(wide, ends[:-1]), strict=True):
        tokens_T[form.special_at] = form.special
    return wide


class _Form(NamedTuple):
    """A row before its codes.

    Attributes:
      starts, counts: which codes its pieces want.
      places: of the pieces.
      parts: the row as bytes: what is between the codes, and at odd places nothing where codes go.
      special_at, special: the tokens that are no codes, for ids that `parts` cannot hold.
    """

    segments: Int32[np.ndarray, " t"]
    positions: Int32[np.ndarray, " t"]
    loss_weights: Float32[np.ndarray, " t"]
    starts: Int64[np.ndarray, " pieces"]
    counts: Int64[np.ndarray, " pieces"]
    places: list[slice]
    parts: list[bytes]
    special_at: Int64[np.ndarray, " specials"]
    special: Int32[np.ndarray, " specials"]


@functools.lru_cache(maxsize=256)  # packed rows come in few layouts; 16 MB at 4096 tokens
def _form(layout: RowLayout, row_len: int, special: SpecialTokens) -> _Form:
    tokens = np.full(row_len, special.pad, np.int32)
    segments, positions = np.zeros(row_len, np.int32), np.zeros(row_len, np.int32)
    is_code = np.zeros(row_len, bool)
    places, begin = [], 0
    edges = [0]  # where codes begin and end, in turn
    for number, piece in enumerate(layout.pieces, start=1):
        end = begin + piece.tokens
        segments[begin:end] = number if layout.isolated else 1
        positions[begin:end] = np.arange(end - begin) if layout.isolated else np.arange(begin, end)
        if piece.bos:
            tokens[begin] = special.bos
        if piece.eos:
            tokens[end - 1] = special.eos
        places.append(slice(begin, end))
        edges += [begin + piece.bos, end - piece.eos]
        is_code[edges[-2] : edges[-1]] = True
        begin = end
    parts = [
        b"" if number % 2 else tokens[first:last].astype(_CODE).tobytes()
        for number, (first, last) in enumerate(itertools.pairwise([*edges, row_len]))
    ]
    starts = np.array([piece.start for piece in layout.pieces])
    counts = np.array([piece.stop for piece in layout.pieces]) - starts
    special_at = np.flatnonzero(~is_code)
    return _Form(
        segments,
        positions,
        label_weights(segments),
        starts,
        counts,
        places,
        parts,
        special_at,
        tokens[special_at],
    )
