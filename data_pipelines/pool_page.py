"""A page of rows of a pool, as a decoder gets them, for a person to look at.

Shape legend: H, W of the page or of a picture.
"""

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from lvm_jax.data.in_context.episodes import EpisodeDrawer, RowStyle
from lvm_jax.data.in_context.pool import Pool, PoolStore
from lvm_jax.data.in_context.pool_record import CAPTION, MASK, PoolRecord
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.inference.codec import decode_codes
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_uint8

_EXAMPLES = 2  # of a row; fewer if no class has so many pictures
_LABEL, _GAP, _PAIR_GAP = 14, 2, 8
_LEAST = 96  # pixels of the side of a picture on the page
_TINT = np.array([255, 40, 40])  # of what a mask covers
_FONT = ImageFont.load_default(_LABEL - 4)


@dataclasses.dataclass(frozen=True)
class DrawnRow:
    """One row of the page: the examples and, last, the query, with what is asked about them."""

    split: str
    question: Question
    records: tuple[PoolRecord, ...]


def drawn_rows(
    folder: epath.PathLike, splits: Sequence[str], count: int, seed: int
) -> list[DrawnRow]:
    """Up to `count` rows, of all splits and questions in turn, with queries at random.

    Raises:
      UserError: the folder does not hold a pool, or more records than allowed are bad.
    """
    series = [
        _rows(store, question, count, seed)
        for store in (PoolStore(folder, split) for split in splits)
        for question, bit in ((Question.SEGMENTATION, MASK), (Question.CAPTIONING, CAPTION))
        if (store.holds & bit > 0).any()
    ]
    turns = [row for turn in range(count) for rows in series for row in rows[turn : turn + 1]]
    return turns[:count]


def _rows(store: PoolStore, question: Question, count: int, seed: int) -> list[DrawnRow]:
    alone = Pool.of(store, question, examples=0)
    examples = min(_EXAMPLES, int(alone.pictures.max()) - 1)
    style = RowStyle(shots=(0.0,) * examples + (1.0,))
    pool = Pool.of(store, question, examples=examples, fewest=examples + 1)
    drawer = EpisodeDrawer(store, pool, style, seed)
    rows = []
    for drawn in drawer.draw(np.arange(min(count, len(pool)))):
        records = store.records((*drawn.examples, drawn.query))
        found = tuple(record for record in records if record is not None)
        if len(found) == len(records):
            rows.append(DrawnRow(store.split, question, found))
    return rows


def pool_page(rows: Sequence[DrawnRow], tokenizer: VQGAN) -> UInt8[np.ndarray, "H W 3"]:
    """Rows below each other: every pair is a picture with the picture under its mask, or with its words.

    Args:
      rows: at least one.
      tokenizer: that encoded them.
    """
    side = max(_LEAST, tokenizer.config.resolution)
    pair, height = 2 * side + _GAP + _PAIR_GAP, side + 2 * _LABEL
    longest = max(len(row.records) for row in rows)
    page = Image.new("RGB", (longest * pair, height * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    decoded = _decoded(rows, tokenizer)
    for number, row in enumerate(rows):
        top = number * height
        draw.text((2, top), _title(row), fill="black", font=_FONT)
        for column, record in enumerate(row.records):
            place = (column * pair, top + _LABEL)
            is_query = column == len(row.records) - 1
            name = "query, and its answer" if is_query else f"example {column + 1}"
            draw.text((place[0] + 2, place[1]), name, fill="dimgray", font=_FONT)
            picture, mask = next(decoded)
            left, below = place[0] + side + _GAP, place[1] + _LABEL
            page.paste(_shown(picture, side), (place[0], below))
            if mask is None:
                draw.text((left + 2, below), _words(record, side), fill="navy", font=_FONT)
            else:
                page.paste(_shown(_tinted(picture, mask), side), (left, below))
    return np.asarray(page)


def _decoded(
    rows: Sequence[DrawnRow], tokenizer: VQGAN
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Picture and mask of each record of each row; no mask where words are asked for."""
    pairs = [
        (record.picture, record.mask if row.question is Question.SEGMENTATION else None)
        for row in rows
        for record in row.records
    ]
    codes = [part for pair in pairs for part in pair if part is not None]
    # One call for all: one by one, each batch size would compile a program of its own.
    pictures = iter(to_uint8(decode_codes(tokenizer, np.stack(codes))))
    for _, mask in pairs:
        yield next(pictures), None if mask is None else next(pictures)


def _title(row: DrawnRow) -> str:
    query = row.records[-1]
    kept = ", kept from training" if query.unseen else ""
    return f"{row.split}, {row.question.name.lower()}, {query.class_name!r}{kept}: {query.key}"


def _shown(picture: UInt8[np.ndarray, "H W 3"], side: int) -> Image.Image:
    return Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)


def _tinted(
    picture: UInt8[np.ndarray, "H W 3"], mask: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture, darker, with what a decoded mask covers in red."""
    inside_HW1 = mask.mean(axis=2, keepdims=True) >= 128
    return np.where(inside_HW1, (picture + 2 * _TINT) // 3, picture // 2).astype(np.uint8)


def _words(record: PoolRecord, side: int) -> str:
    boxes = [" ".join(f"{corner:.2f}" for corner in box) for box in record.boxes[:4]]
    lines = [f"[{record.class_name}]", *boxes, *textwrap.wrap(record.caption, max(8, side // 6))]
    return "\n".join(lines[: side // (_LABEL - 2)])
