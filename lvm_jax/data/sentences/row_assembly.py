"""Rows of tokens: what a row is made of, and how a batch of rows is filled with codes.

A row has seq_len + 1 tokens: inputs are `[:-1]`, labels `[1:]`.

Everything about a row but its codes follows from its template, and packed rows have few templates. So segments,
positions, loss weights and special ids are made once a template and copied, and filling a row is one join of bytes.

Shape legend: B rows, T tokens of a row, P pieces of a row, S its tokens that are not codes.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

from lvm_jax.data.step_loader import HostBatch
from lvm_jax.vocabulary import Vocabulary

Read = Callable[[np.ndarray, np.ndarray, np.ndarray], Sequence[bytes | None]]


class Piece(NamedTuple):
    """The codes `start:stop` of a sentence, with a BOS before and an EOS behind if the flags say so."""

    start: int
    stop: int
    bos: bool
    eos: bool

    @property
    def tokens(self) -> int:
        """Number of tokens, BOS and EOS included."""
        return self.stop - self.start + self.bos + self.eos


@dataclasses.dataclass(frozen=True, eq=False)
class RowTemplate:
    """The pieces of a row, in order, of whatever sentences.

    Compared and cached by identity, which is cheaper than hashing the pieces: packing makes each template once.

    Attributes:
      pieces: from the first token on; padding fills the rest.
      isolated: each piece is a segment of its own, and positions restart with it.
      repeats: the last piece is a second look at a sentence that another row has whole.
    """

    pieces: tuple[Piece, ...]
    isolated: bool
    repeats: bool = False

    @property
    def tokens(self) -> int:
        """Number of tokens that are not padding."""
        return sum(piece.tokens for piece in self.pieces)


class Row(NamedTuple):
    """A template, and the sentence of each of its pieces."""

    template: RowTemplate
    sentences: Int64[np.ndarray, " P"]


class Rows(Protocol):
    """An endless series of rows in passes, which are rounds over the data.

    Attributes:
      row_len: tokens of a row.
      rows_per_pass: rows of a pass, which draws every sentence once (or as often as its weight says).
      fill: share of the rows' tokens that are not padding, in (0, 1].
      repeated: share of the rows' tokens that repeat the beginning of a sentence which another row has whole.
    """

    row_len: int
    rows_per_pass: int
    fill: float
    repeated: float

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows first..first + count - 1 of the series; safe to call from any thread."""
        ...


def assemble(
    rows: Sequence[Row],
    read: Read,
    row_len: int,
    vocabulary: Vocabulary,
    size: int,
    id_type: str = "<u2",
) -> HostBatch:
    """Makes a batch of rows, (B, T) arrays: tokens, segment_ids, positions, int32, and loss_weights, float32.

    Args:
      rows: at most `size`; the rest of the batch is padding.
      read: maps (sentences, starts, counts), int64 each, to `counts` flat codes of each sentence from `starts` on, as
        bytes of `id_type`; None for a bad record, whose place in the row becomes padding.
      row_len: T.
      vocabulary: for the ids of BOS, EOS and PAD.
      size: B.
      id_type: of the codes that `read` gives, "<u2" or "<u4".
    """
    tokens_BT, segments_BT, positions_BT = (np.empty((size, row_len), np.int32) for _ in range(3))
    # Empty, not zeros: everything below is written once.
    weights_BT = np.empty((size, row_len), np.float32)
    n, pad = len(rows), vocabulary.pad
    tokens_BT[n:], segments_BT[n:], positions_BT[n:], weights_BT[n:] = pad, 0, 0, 0
    if rows:
        make = _blank_maker(row_len, vocabulary, id_type)
        # A row of `concat` has a template that never comes again: do not let it push others out of the cache.
        blanks = [
            (make if row.template.isolated else make.__wrapped__)(row.template) for row in rows
        ]
        found, holes = _read_all(rows, blanks, read, np.dtype(id_type).itemsize)
        tokens_BT[:n] = _tokens(blanks, found, vocabulary, id_type).reshape(n, row_len)
        np.concatenate([blank.segments for blank in blanks], out=segments_BT[:n].reshape(-1))
        np.concatenate([blank.positions for blank in blanks], out=positions_BT[:n].reshape(-1))
        np.concatenate([blank.loss_weights for blank in blanks], out=weights_BT[:n].reshape(-1))
        for row, place in holes:
            tokens_BT[row, place], segments_BT[row, place], positions_BT[row, place] = pad, 0, 0
            # The token behind a hole is no longer predicted by the one before it, so the whole row is weighted anew.
            weights_BT[row] = label_weights(segments_BT[row])
    return {
        "tokens": tokens_BT,
        "segment_ids": segments_BT,
        "positions": positions_BT,
        "loss_weights": weights_BT,
    }


def label_weights(segment_ids: Int[np.ndarray, "*B T"]) -> Float32[np.ndarray, "*B T"]:
    """The weight of predicting each token: 1 if it continues the segment of the token before it, else 0.

    So padding (segment 0) does not count, nor does the first token of a sentence, which nothing in it predicts. The
    first token of a row is never a label and weighs 0.
    """
    weights = np.zeros(segment_ids.shape, np.float32)
    before, label = segment_ids[..., :-1], segment_ids[..., 1:]
    weights[..., 1:] = (label == before) & (label != 0)
    return weights


# segments, positions and loss_weights of a row's tokens
_Segments = tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"], Float32[np.ndarray, " t"]]


class _Blank(NamedTuple):
    """A row before its codes: everything that its template says.

    Attributes:
      segments, positions, loss_weights: of the row's tokens.
      starts, counts: which codes each piece takes of its sentence.
      places: the tokens of each piece.
      around_codes: the row as bytes, cut where codes begin and end; the odd elements are empty, and codes go there.
      special_at, special: the tokens that are not codes, for ids that `around_codes` cannot hold.
    """

    segments: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, " T"]
    loss_weights: Float32[np.ndarray, " T"]
    starts: Int64[np.ndarray, " P"]
    counts: Int64[np.ndarray, " P"]
    places: list[slice]
    around_codes: list[bytes]
    special_at: Int64[np.ndarray, " S"]
    special: Int32[np.ndarray, " S"]


@functools.lru_cache(maxsize=8)
def _blank_maker(row_len: int, vocabulary: Vocabulary, id_type: str) -> Any:
    """`_blank` for a loader's fixed arguments, cached by template alone: hashing the vocabulary for each row shows."""
    return functools.lru_cache(maxsize=256)(  # 16 MB at 4096 tokens
        lambda template: _blank(template, row_len, vocabulary, id_type)
    )


def _blank(template: RowTemplate, row_len: int, vocabulary: Vocabulary, id_type: str) -> _Blank:
    # Looked up once: a concatenated row makes its blank anew, of many pieces.
    bos, eos, pad = vocabulary.bos, vocabulary.eos, vocabulary.pad
    tokens = np.full(row_len, pad, np.int32)
    is_code = np.zeros(row_len, bool)
    places, begin = [], 0
    edges = [0]  # where codes begin and end, in turn
    for piece in template.pieces:
        end = begin + piece.tokens
        if piece.bos:
            tokens[begin] = bos
        if piece.eos:
            tokens[end - 1] = eos
        places.append(slice(begin, end))
        edges += [begin + piece.bos, end - piece.eos]
        is_code[edges[-2] : edges[-1]] = True
        begin = end
    stored, width = tokens.astype(id_type).tobytes(), np.dtype(id_type).itemsize
    around_codes = [
        b"" if number % 2 else stored[width * first : width * last]
        for number, (first, last) in enumerate(itertools.pairwise([*edges, row_len]))
    ]
    if template.isolated:
        segments, positions, loss_weights = _segment_each(places, row_len)
    else:
        segments, positions, loss_weights = _one_segment(begin, row_len)
    starts = np.array([piece.start for piece in template.pieces])
    special_at = np.flatnonzero(~is_code)
    return _Blank(
        segments=segments,
        positions=positions,
        loss_weights=loss_weights,
        starts=starts,
        counts=np.array([piece.stop for piece in template.pieces]) - starts,
        places=places,
        around_codes=around_codes,
        special_at=special_at,
        special=tokens[special_at],
    )


def _segment_each(places: Sequence[slice], row_len: int) -> _Segments:
    """Of a row with a segment for the tokens of each place."""
    segments, positions = np.zeros(row_len, np.int32), np.zeros(row_len, np.int32)
    for number, place in enumerate(places, start=1):
        segments[place] = number
        positions[place] = np.arange(place.stop - place.start)
    return segments, positions, label_weights(segments)


# All concatenated rows are full, but for the last of a pass: they share these arrays, though not their blanks.
@functools.lru_cache(maxsize=8)
def _one_segment(tokens: int, row_len: int) -> _Segments:
    """Of a row with one segment, of its first `tokens` tokens."""
    positions = np.arange(row_len, dtype=np.int32)
    segments = (positions < tokens).astype(np.int32)
    return segments, positions * segments, label_weights(segments)


def _read_all(
    rows: Sequence[Row], blanks: Sequence[_Blank], read: Read, id_bytes: int
) -> tuple[list[bytes], list[tuple[int, slice]]]:
    """Reads the codes of all pieces, in order; unreadable ones are zeros, and their places (row, tokens) come along."""
    counts = np.concatenate([blank.counts for blank in blanks])
    # One call for the whole batch, so that the store can look all records up in a few array operations.
    found = read(
        np.concatenate([row.sentences for row in rows]),
        np.concatenate([blank.starts for blank in blanks]),
        counts,
    )
    if None not in found:
        return list(found), []  # pyright: ignore[reportReturnType]
    places = [(number, place) for number, blank in enumerate(blanks) for place in blank.places]
    holes = [place for place, codes in zip(places, found, strict=True) if codes is None]
    filled = [
        codes or bytes(id_bytes * count)
        for codes, count in zip(found, counts.tolist(), strict=True)
    ]
    return filled, holes


def _tokens(
    blanks: Sequence[_Blank], found: list[bytes], vocabulary: Vocabulary, id_type: str
) -> np.ndarray:
    """The tokens of all rows, one after another: of `id_type` if it can hold the special ids, else int32."""
    # Join bytes and view them as an array once: for each piece, NumPy's overhead would exceed the copying.
    joined: list[bytes] = []
    begin = 0
    for blank in blanks:
        row = blank.around_codes.copy()
        row[1::2] = found[begin : begin + len(blank.places)]
        begin += len(blank.places)
        joined += row
    tokens = np.frombuffer(b"".join(joined), id_type)
    if max(vocabulary.bos, vocabulary.eos, vocabulary.pad) < 1 << 8 * tokens.itemsize:
        return tokens
    # A codebook of 65,536 codes fits two bytes, but its special ids, which lie behind the codes, do not.
    wide = tokens.astype(np.int32)
    ends = np.cumsum([len(blank.segments) for blank in blanks])
    for blank, tokens_T in zip(blanks, np.split(wide, ends[:-1]), strict=True):
        tokens_T[blank.special_at] = blank.special
    return wide
