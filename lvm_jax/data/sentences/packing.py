"""Sentences into rows of seq_len + 1 tokens, whole and apart: `packed`.

Each sentence is BOS, codes, EOS, a segment of its own; positions restart. Only a sentence that would fill the row to
the last token (the paper's 16 images in 4097) gives up its EOS. Which lengths share a row is best-fit decreasing on the
histogram of lengths (after Krell et al., arXiv 2107.02027); which sentences they are is drawn anew in each pass.

Images do not divide a row: beside 15 images of 256 codes, each with BOS and EOS, 227 of 4097 tokens are left, 5.5%, and
no packing of whole sentences can use them. There a row ends with one sentence more, which the end of the row cuts off:
a second look at the beginning of a sentence that another row has whole. Every sentence is drawn whole once a pass.

Rows are planned by bucket (see `buckets`) and dealt by `dealing`: row i is found without the rows before it.
"""

import bisect
import functools
import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt32

from lvm_jax.data.dealing import EvenDealer, occurrence
from lvm_jax.data.sentences.buckets import BucketTable
from lvm_jax.data.sentences.row_assembly import Piece, Row, RowTemplate
from lvm_jax.errors import UserError

LongSentences = Literal["error", "split"]
BLOCK_ROWS = 4096


class PackedRows:
    """Sentences whole and apart, in few rows; see `row_assembly.Rows` and the module.

    Args:
      table: the sentences by bucket.
      row_len: seq_len + 1.
      tokens_per_image: where a sentence may be split.
      seed: non-negative; of everything that is drawn.
      long_sentences: what happens to a sentence that does not fit a row with its BOS. "error" refuses it; "split" cuts
        it between images into pieces that are sentences of their own, each with a BOS, the last with the EOS. No code
        is dropped either way.

    Raises:
      UserError: a sentence is too long, or a row is too short for one image.
    """

    def __init__(
        self,
        table: BucketTable,
        row_len: int,
        tokens_per_image: int,
        seed: int,
        long_sentences: LongSentences = "error",
    ):
        self.row_len = row_len
        self._table, self._seed = table, seed
        items, draws = [], []
        for bucket in table.buckets:
            for piece in whole_pieces(bucket.codes, row_len, tokens_per_image, long_sentences):
                items.append(_Item(piece, bucket.first, bucket.count))
                draws.append(bucket.draws)
        groups = _best_fit_decreasing([item.piece.tokens for item in items], draws, row_len)
        contents = [_with_a_beginning(row, items, row_len) for row, _ in groups]
        counts = np.array([rows for _, rows in groups])
        self.rows_per_pass = int(counts.sum())
        self._templates = [
            RowTemplate(
                tuple(items[item].piece for item in full), True, repeats=len(full) > len(row)
            )
            for full, (row, _) in zip(contents, groups, strict=True)
        ]
        total = self.rows_per_pass * row_len
        used = [template.tokens for template in self._templates]
        again = [template.pieces[-1].tokens * template.repeats for template in self._templates]
        self.fill, self.repeated = float(counts @ used) / total, float(counts @ again) / total
        self._dealer = EvenDealer(counts, BLOCK_ROWS, seed)
        self._members = np.array([(item.first, item.count) for item in items])
        # The items of template t are slots[slot_begin[t] : slot_begin[t + 1]].
        self._slots = np.concatenate([np.array(row) for row in contents])
        self._slot_begin = np.cumsum([0, *map(len, contents)])
        self._block = functools.lru_cache(maxsize=4)(self._make_block)

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows first..first + count - 1; O(1) in `first`."""
        number, place = divmod(first, self.rows_per_pass)
        block = self._dealer.find(place)
        at = place - self._dealer.begin(block)
        found: list[Row] = []
        while len(found) < count:
            rows = self._block(number, block)
            templates = rows.templates[at : at + count - len(found)].tolist()
            edges = rows.edges[at : at + len(templates) + 1].tolist()
            found += [
                Row(self._templates[template], rows.sentences[begin:end])
                for template, (begin, end) in zip(templates, itertools.pairwise(edges), strict=True)
            ]
            block, at = block + 1, 0
            if block == self._dealer.blocks:
                number, block = number + 1, 0
        return found

    def _make_block(self, number: int, block: int) -> "_Block":
        """The rows of a block, all at once: a row alone would cost the same few array operations."""
        before = self._dealer.before(block) + number * self._dealer.counts
        templates = self._dealer.types(number, block)
        begins = self._slot_begin[templates]
        sizes = self._slot_begin[templates + 1] - begins
        ends = np.cumsum(sizes)
        # The slots of each row's template, row after row: 0..sizes[r] - 1 from begins[r] on.
        items = self._slots[np.arange(ends[-1]) + np.repeat(begins - ends + sizes, sizes)]
        # An item may be in several templates, and its draws are numbered over all of them: count those that lie before
        # this block. In float64, exact to 2^53 draws.
        drawn = np.bincount(
            self._slots,
            weights=np.repeat(before, np.diff(self._slot_begin)),
            minlength=len(self._members),
        ).astype(np.int64)
        sentences = self._table.sentence(
            self._members[items, 0],
            self._members[items, 1],
            drawn[items] + occurrence(items),
            items,
            self._seed,
        )
        return _Block(templates, np.append(0, ends), sentences)


class OnePerRow:
    """A sentence a row, in order, once: for evaluation.

    Arguments and errors as in `PackedRows`; sentences of 0 codes have no row.
    """

    def __init__(
        self,
        lengths: UInt32[np.ndarray, " n"],
        row_len: int,
        tokens_per_image: int,
        long_sentences: LongSentences = "error",
    ):
        distinct, of_sentence = np.unique(lengths, return_inverse=True)
        self._templates_of = [
            [
                RowTemplate((piece,), isolated=True)
                for piece in whole_pieces(int(codes), row_len, tokens_per_image, long_sentences)
            ]
            if codes
            else []
            for codes in distinct
        ]
        self._length_of = of_sentence  # a row of `distinct`
        rows_of = np.array([len(templates) for templates in self._templates_of])
        self._ends = np.cumsum(rows_of[of_sentence])

    def __len__(self) -> int:
        """Number of rows."""
        return int(self._ends[-1])

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows first..first + count - 1, as far as there are so many."""
        found = []
        for row in range(first, min(first + count, len(self))):
            sentence = int(np.searchsorted(self._ends, row, side="right"))
            templates = self._templates_of[self._length_of[sentence]]
            template = templates[row - int(self._ends[sentence]) + len(templates)]
            found.append(Row(template, np.array([sentence])))
        return found


def whole_pieces(
    codes: int, row_len: int, tokens_per_image: int, long_sentences: LongSentences
) -> list[Piece]:
    """A sentence of `codes` codes as one piece, or split between images where it is longer than a row.

    Raises:
      UserError: see `PackedRows`.
    """
    room = (row_len - 1) // tokens_per_image * tokens_per_image
    if room == 0:
        raise UserError(
            f"seq_len is {row_len - 1}: a row must hold an image, so it must be at least {tokens_per_image}"
        )
    if codes + 1 > row_len and long_sentences == "error":
        raise UserError(
            f"a sentence has {codes} codes, a row holds {row_len - 1} after its BOS: "
            f"set seq_len to at least {codes}, or long_sentences to 'split'"
        )
    # A sentence that fits with its BOS stays whole even where that is no whole number of `room`s.
    step = codes if codes + 1 <= row_len else room
    return [
        Piece(
            start,
            min(start + step, codes),
            bos=True,
            eos=start + step >= codes and codes - start + 2 <= row_len,
        )
        for start in range(0, codes, step)
    ]


class _Block(NamedTuple):
    """Rows in order: row r has template `templates[r]` and the sentences `edges[r] : edges[r + 1]`."""

    templates: Int64[np.ndarray, " rows"]
    edges: Int64[np.ndarray, " rows_plus_1"]
    sentences: Int64[np.ndarray, " slots"]


class _Item(NamedTuple):
    """A piece, and the sentences of which it can be: `first`, `count` as in `Bucket`."""

    piece: Piece
    first: int
    count: int


def _with_a_beginning(row: tuple[int, ...], items: list[_Item], row_len: int) -> list[int]:
    """The items of a row, and one that fills its end: the beginning of another sentence of a bucket that is in the row.

    So every group of a mixture fills its own rows, and its share stays what its weight says. The filler is added to
    `items`, with draws of its own: were it one of the row's items, the sentences it cuts would be missing whole.
    """
    room = row_len - sum(items[item].piece.tokens for item in row)
    if room < 2:  # a BOS and one code to predict
        return list(row)
    # The shortest that reaches to the end of the row wastes least of a sentence; if none does, the longest.
    by_size = sorted(row, key=lambda item: items[item].piece.tokens)
    long_enough = [item for item in by_size if items[item].piece.tokens >= room]
    piece, first, count = items[(long_enough or by_size[-1:])[0]]
    if piece.tokens > room:
        piece = Piece(piece.start, piece.start + room - 1, bos=True, eos=False)
    items.append(_Item(piece, first, count))
    return [*row, len(items) - 1]


def _best_fit_decreasing(
    sizes: Sequence[int], counts: Sequence[int], capacity: int
) -> list[tuple[tuple[int, ...], int]]:
    """Best-fit decreasing of `counts[i]` items of `sizes[i]` each: (the items in a row, the number of such rows).

    The rows are as full as placing the items one by one would leave them; items of one number are placed together.
    """
    # Rows of equal contents are one entry with a number: the time depends on the distinct lengths, not the sentences.
    rooms: list[int] = []  # free space of the open rows, ascending
    open_rows: dict[int, list[tuple[tuple[int, ...], int]]] = {}

    def add(contents: tuple[int, ...], room: int, rows: int) -> None:
        if room not in open_rows:
            open_rows[room] = []
            bisect.insort(rooms, room)
        open_rows[room].append((contents, rows))

    for item in sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True):
        size, count = sizes[item], counts[item]
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
                add(contents, room, rows - used)
            add(contents + (item,) * per_row, room - per_row * size, used)
            count -= per_row * used
    return [group for groups in open_rows.values() for group in groups]
