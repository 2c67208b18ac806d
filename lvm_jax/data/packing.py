"""Sentences to rows of a fixed number of tokens: who lies where, from lengths alone.

A row has seq_len + 1 tokens (inputs are `[:-1]`, labels `[1:]`). A plan is index arrays; no token is read to make it.

`pack` keeps sentences whole: BOS, codes, EOS; segment ids 1, 2, ... in a row, positions restart with each. Only a
sentence that would fill the row to the last token (the paper's 16 images in 4097) gives up its EOS. The rows are
those of best-fit decreasing, computed on the histogram of lengths (after Krell et al., arXiv 2107.02027). Mind what
fits: 16 one-image sentences of 256 codes need 16 * 258 = 4128 tokens, so they fill a row of seq_len 4127, but only 15
go into seq_len 4096.

`concatenate` is the paper's way: all sentences in one stream, cut every seq_len + 1 tokens; one segment, positions run
through, and attention crosses the borders of sentences.
"""

import bisect
import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32, Int64

from lvm_jax.data.visual_sentence import SpecialTokens
from lvm_jax.errors import UserError

LongSentences = Literal["error", "split"]


@dataclasses.dataclass(frozen=True, eq=False)
class RowPlan:
    """Rows of `row_len` tokens made of pieces; row r holds the pieces `row_offsets[r]:row_offsets[r + 1]`.

    Piece p is the codes `start[p]:stop[p]` of sentence `sentence[p]`, with a BOS before and an EOS behind where its
    flags say so. `isolated`: each piece is a segment of its own.
    """

    row_len: int
    isolated: bool
    row_offsets: Int64[np.ndarray, " rows_plus_1"]
    sentence: Int64[np.ndarray, " pieces"]
    start: Int32[np.ndarray, " pieces"]
    stop: Int32[np.ndarray, " pieces"]
    bos: Bool[np.ndarray, " pieces"]
    eos: Bool[np.ndarray, " pieces"]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.row_offsets) - 1

    @property
    def piece_tokens(self) -> Int64[np.ndarray, " pieces"]:
        """Tokens of each piece, BOS and EOS included."""
        return (self.stop - self.start).astype(np.int64) + self.bos + self.eos

    @property
    def fill(self) -> float:
        """Share of the rows' tokens that are not padding, in (0, 1]."""
        return float(self.piece_tokens.sum() / (len(self) * self.row_len))


def pack(
    lengths: Int64[np.ndarray, " n"],
    row_len: int,
    tokens_per_image: int,
    seed: int,
    long_sentences: LongSentences = "error",
) -> RowPlan:
    """Whole sentences into few rows; which of equal length share a row is drawn from `seed`.

    Args:
      lengths: codes of each sentence; those of 0 are left out.
      row_len: seq_len + 1.
      tokens_per_image: where a sentence may be split.
      seed: non-negative.
      long_sentences: what happens to a sentence that does not fit a row with its BOS. "error" refuses it; "split" cuts
        it between images into pieces that are sentences of their own, each with a BOS, the last with the EOS. No code
        is dropped either way.

    Raises:
      UserError: a sentence is too long, or a row is too short for one image.
    """
    pieces = _whole_pieces(lengths, row_len, tokens_per_image, long_sentences)
    sizes = pieces.piece_tokens
    distinct, counts = np.unique(sizes, return_counts=True)
    rng = np.random.default_rng(seed)
    by_size = np.split(np.argsort(sizes, kind="stable"), np.cumsum(counts)[:-1])
    waiting = {
        int(size): rng.permutation(group) for size, group in zip(distinct, by_size, strict=True)
    }
    taken = dict.fromkeys(waiting, 0)
    order, pieces_per_row = [], []
    for contents, rows in _best_fit_decreasing(distinct.tolist(), counts.tolist(), row_len):
        columns = []
        for size in contents:
            columns.append(waiting[size][taken[size] : taken[size] + rows])
            taken[size] += rows
        order.append(np.stack(columns, axis=1).reshape(-1))
        pieces_per_row.append(np.full(rows, len(contents)))
    row_offsets = np.concatenate([[0], np.cumsum(np.concatenate(pieces_per_row))])
    return _reordered(pieces, np.concatenate(order), row_offsets)


def one_per_row(
    lengths: Int64[np.ndarray, " n"],
    row_len: int,
    tokens_per_image: int,
    long_sentences: LongSentences = "error",
) -> RowPlan:
    """A sentence a row, in order, for evaluation; arguments and errors as in `pack`."""
    return _whole_pieces(lengths, row_len, tokens_per_image, long_sentences)


def concatenate(lengths: Int64[np.ndarray, " n"], row_len: int, seed: int) -> RowPlan:
    """All sentences, in an order drawn from `seed`, as one stream of BOS, codes, EOS, cut every `row_len` tokens.

    No token is dropped: the last row ends in padding. Sentences of 0 codes are left out.
    """
    if row_len < 2:
        raise UserError(f"seq_len is {row_len - 1}: it must be at least 1")
    order = np.random.default_rng(seed).permutation(np.flatnonzero(lengths))
    ends = np.cumsum(lengths[order] + 2)
    begins = ends - lengths[order] - 2
    row_begins = np.arange(0, ends[-1], row_len)
    edges = np.sort(np.concatenate([begins, row_begins]), kind="stable")  # merges two sorted runs
    edges = edges[np.diff(edges, prepend=-1) > 0]
    index = np.searchsorted(begins, edges, side="right") - 1
    first = edges - begins[index]
    last = np.append(edges[1:], ends[-1]) - begins[index]
    codes = lengths[order][index]
    return RowPlan(
        row_len=row_len,
        isolated=False,
        row_offsets=np.append(np.searchsorted(edges, row_begins), len(edges)),
        sentence=order[index],
        start=np.maximum(first - 1, 0).astype(np.int32),
        stop=np.minimum(last - 1, codes).astype(np.int32),
        bos=first == 0,
        eos=last == codes + 2,
    )


def assemble(
    plan: RowPlan,
    row: int,
    read: Callable[[int], np.ndarray | None],
    special: SpecialTokens,
) -> tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]:
    """Tokens, segment ids and positions of a row, int32 (row_len,) each.

    Args:
      plan: what lies where.
      row: 0..len(plan) - 1.
      read: the flat codes of a sentence, or None for a bad record, whose place in the row becomes padding.
      special: ids of BOS, EOS and PAD.
    """
    tokens = np.full(plan.row_len, special.pad, np.int32)
    segment_ids = np.zeros(plan.row_len, np.int32)
    positions = np.zeros(plan.row_len, np.int32)
    begin = 0
    first, last = int(plan.row_offsets[row]), int(plan.row_offsets[row + 1])
    for piece in range(first, last):
        start, stop = int(plan.start[piece]), int(plan.stop[piece])
        bos, eos = bool(plan.bos[piece]), bool(plan.eos[piece])
        end = begin + bos + stop - start + eos
        codes = read(int(plan.sentence[piece]))
        if codes is not None:
            tokens[begin + bos : end - eos] = codes[start:stop]
            if bos:
                tokens[begin] = special.bos
            if eos:
                tokens[end - 1] = special.eos
            segment_ids[begin:end] = piece - first + 1 if plan.isolated else 1
            positions[begin:end] = (
                np.arange(end - begin) if plan.isolated else np.arange(begin, end)
            )
        begin = end
    return tokens, segment_ids, positions


def _whole_pieces(
    lengths: np.ndarray, row_len: int, tokens_per_image: int, long_sentences: LongSentences
) -> RowPlan:
    """A piece a row: sentences whole, or split between images where they are longer than a row."""
    room = (row_len - 1) // tokens_per_image * tokens_per_image
    if room == 0:
        raise UserError(
            f"seq_len is {row_len - 1}: a row must hold an image, so it must be at least {tokens_per_image}"
        )
    longest = int(lengths.argmax())
    if lengths[longest] + 1 > row_len and long_sentences == "error":
        raise UserError(
            f"sentence {longest} has {lengths[longest]} codes, a row holds {row_len - 1} after its BOS: "
            f"set seq_len to at least {lengths[longest]}, or long_sentences to 'split'"
        )
    # A sentence that fits with its BOS stays whole even where that is no whole number of `room`s.
    pieces = np.where(lengths + 1 <= row_len, np.minimum(lengths, 1), -(-lengths // room))
    sentence = np.repeat(np.arange(len(lengths)), pieces)
    nth = np.arange(len(sentence)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = nth * room
    final = nth == pieces[sentence] - 1
    stop = np.where(final, lengths[sentence], start + room)
    return RowPlan(
        row_len=row_len,
        isolated=True,
        row_offsets=np.arange(len(sentence) + 1),
        sentence=sentence,
        start=start.astype(np.int32),
        stop=stop.astype(np.int32),
        bos=np.ones(len(sentence), bool),
        eos=final & (stop - start + 2 <= row_len),
    )


def _reordered(plan: RowPlan, order: np.ndarray, row_offsets: np.ndarray) -> RowPlan:
    columns = {
        name: getattr(plan, name)[order] for name in ("sentence", "start", "stop", "bos", "eos")
    }
    return dataclasses.replace(plan, row_offsets=row_offsets, **columns)


def _best_fit_decreasing(
    sizes: list[int], counts: list[int], capacity: int
) -> list[tuple[tuple[int, ...], int]]:
    """Best-fit decreasing over a histogram: (the sizes in a row, the number of such rows).

    The result is the one that placing the items one by one would give; equal items are placed together.
    """
    rooms: list[int] = []  # free space of the open rows, ascending
    open_rows: dict[int, list[tuple[tuple[int, ...], int]]] = {}

    def add(contents: tuple[int, ...], rows: int) -> None:
        room = capacity - sum(contents)
        if room not in open_rows:
            open_rows[room] = []
            bisect.insort(rooms, room)
        open_rows[room].append((contents, rows))

    for size, count in sorted(zip(sizes, counts, strict=True), reverse=True):
        while count:
            at = bisect.bisect_left(rooms, size)
            if at == len(rooms):  # no open row has room: as many empty ones as it takes
                room, contents, rows = capacity, (), count
            else:
                room = rooms[at]
                contents, rows = open_rows[room].pop()
                if not open_rows[room]:
                    del open_rows[room], rooms[at]
            # Best fit fills a row it has begun before it begins the next; fewer than a rowful go into one row.
            per_row = min(room // size, count)
            used = min(rows, count // per_row)
            if used < rows and contents:
                add(contents, rows - used)
            add(contents + (size,) * per_row, used)
            count -= per_row * used
    return [group for groups in open_rows.values() for group in groups]
