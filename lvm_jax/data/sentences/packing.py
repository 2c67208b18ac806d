"""Sentences into rows of seq_len + 1 tokens, whole and apart: `packed`.

Each sentence is BOS, codes, EOS, a segment of its own, and its positions start at 0. Only a sentence that would fill
the row to the last token (the paper's 16 images in 4097) gives up its EOS. Best-fit decreasing on the histogram of
lengths decides which lengths share a row (after Krell et al., arXiv 2107.02027); which sentences those are is drawn
anew in each pass.

Images do not divide a row: beside 15 images of 256 codes, each with BOS and EOS, 227 of 4097 tokens are left, 5.5%, and
no packing of whole sentences can use them. Such a row ends with one more sentence, cut off at the end of the row: a
second look at the beginning of a sentence that another row has whole. Every sentence is drawn whole once a pass.

Rows are packed by bucket (see `buckets`) and dealt by `dealing`: row i is found without the rows before it.

Shape legend: N sentences; R rows of a block, P their pieces.
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
      tokens_per_image: a sentence is split only between images.
      seed: of everything that is drawn; non-negative.
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
        # The pieces of a split sentence are items of their own: they may go into different rows.
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
        # Every template's contents and count are known, so the fill is exact before any row is read.
        total = self.rows_per_pass * row_len
        used = [template.tokens for template in self._templates]
        again = [template.pieces[-1].tokens * template.repeats for template in self._templates]
        self.fill, self.repeated = float(counts @ used) / total, float(counts @ again) / total
        self._dealer = EvenDealer(counts, BLOCK_ROWS, seed)
        self._members = np.array([(item.first, item.count) for item in items])
        # Rows have different numbers of items, so they lie in one flat array: those of template t are
        # slots[slot_begin[t] : slot_begin[t + 1]].
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
        """Makes the rows of a block at once: a single row would cost as many array operations."""
        # Draws count on over passes, so a sentence's turn comes again only after its whole bucket was seen.
        before = self._dealer.before(block) + number * self._dealer.counts
        templates = self._dealer.types(number, block)
        begins = self._slot_begin[templates]
        sizes = self._slot_begin[templates + 1] - begins
        ends = np.cumsum(sizes)
        # Row after row, the slots begins[r] .. begins[r] + sizes[r] - 1 of its template, without a loop in Python.
        items = self._slots[np.arange(ends[-1]) + np.repeat(begins - ends + sizes, sizes)]
        # Several templates may share an item, whose draws are numbered over all of them: count those before this
        # block. bincount adds in float64, exact to 2^53 draws.
        drawn = np.bincount(
            self._slots,
            weights=np.repeat(before, np.diff(self._slot_begin)),
            minlength=len(self._members),
        ).astype(np.int64)
        sentences = self._table.sentence(
            self._members[items, 0],
            self._members[items, 1],
            drawn[items] + occurrence(items),
            items,  # as the salt: items of one bucket draw in orders of their own
            self._seed,
        )
        return _Block(templates, np.append(0, ends), sentences)


class OnePerRow:
    """One sentence a row, in order, once: for evaluation.

    Arguments and errors as in `PackedRows`; sentences of 0 codes get no row.
    """

    def __init__(
        self,
        lengths: UInt32[np.ndarray, " N"],
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
        self._length_of = of_sentence  # number of its length in `distinct`
        rows_of = np.array([len(templates) for templates in self._templates_of])
        self._ends = np.cumsum(rows_of[of_sentence])

    def __len__(self) -> int:
        """Number of rows."""
        return int(self._ends[-1])

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows first..first + count - 1; fewer at the end."""
        found = []
        for row in range(first, min(first + count, len(self))):
            sentence = int(np.searchsorted(self._ends, row, side="right"))
            templates = self._templates_of[self._length_of[sentence]]
            # The sentence's rows end at _ends[sentence]: count back from there.
            template = templates[row - int(self._ends[sentence]) + len(templates)]
            found.append(Row(template, np.array([sentence])))
        return found


def whole_pieces(
    codes: int, row_len: int, tokens_per_image: int, long_sentences: LongSentences
) -> list[Piece]:
    """A sentence of `codes` codes as one piece, or split between images if it is longer than a row.

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
            f"set seq_len to at least {codes}, or build sentences of fewer images (the loader's long_sentences='split' "
            "cuts them)"
        )
    # A sentence that fits with its BOS stays whole, whatever `room` would cut.
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
    """Rows in order: row r has the template `templates[r]` and `sentences[edges[r] : edges[r + 1]]`."""

    templates: Int64[np.ndarray, " R"]
    edges: Int64[np.ndarray, " R+1"]
    sentences: Int64[np.ndarray, " P"]


class _Item(NamedTuple):
    """A piece, and the sentences that it can come from: `first`, `count` as in `Bucket`."""

    piece: Piece
    first: int
    count: int


def _with_a_beginning(row: tuple[int, ...], items: list[_Item], row_len: int) -> list[int]:
    """The items of a row, and one to fill its end: the beginning of another sentence from a bucket of the row.

    So the groups of a mixture fill up their own rows, and their shares stay what the weights say. The filler is a new
    item in `items` with draws of its own: as one of the row's items, it would use up draws that must be whole.
    """
    room = row_len - sum(items[item].piece.tokens for item in row)
    if room < 2:  # a BOS and one code to predict
        return list(row)
    # The shortest sentence that reaches the end of the row loses least to the cut; if none does, take the longest.
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

    The rows get as full as if the items were placed one by one, but equal items are placed together.
    """
    # Equal rows are one entry with a count: the time depends on the number of lengths, not of sentences.
    rooms: list[int] = []  # the different free spaces of open rows, ascending
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
            if at == len(rooms):  # no open row has room: begin as many empty ones as it takes
                room, contents, rows = capacity, (), count
            else:
                room = rooms[at]
                contents, rows = open_rows[room].pop()
                if not open_rows[room]:
                    del open_rows[room], rooms[at]
            # Best fit fills the row it has begun before it begins the next; less than a rowful goes into one row.
            per_row = min(room // size, count)
            used = min(rows, count // per_row)
            # Rows that were not needed stay open; empty ones need not, as new ones cost nothing.
            if used < rows and contents:
                add(contents, room, rows - used)
            add(contents + (item,) * per_row, room - per_row * size, used)
            count -= per_row * used
    return [group for groups in open_rows.values() for group in groups]
