"""What is said about a picture, as tokens and back: a category, boxes, a caption (arXiv 2312.02520).

    <c_st> category <c_ed>  <b_st> x1 y1 x2 y2 <b_ed> ...  caption  pad pad ...

Corners are bins of an edge: 0.437 of the width is bin 437 of 1,001. A field that is empty is left out.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary

# Left, top, right, bottom, as shares of the picture's width and height.
Box = tuple[float, float, float, float]


class Text(Protocol):
    """A text tokenizer, such as `lvm_jax.data.text_tokenizer.TextTokenizer`."""

    def encode(self, text: str) -> Sequence[int]:
        """Ids of a text, without special ones."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of any ids."""
        ...


class NoText:
    """Stands for the text tokenizer where nothing is said, or rows are only measured."""

    def encode(self, text: str) -> Sequence[int]:
        """Refuses: nobody named a tokenizer."""
        raise UserError(f"{text!r} has no ids: name a folder in config.data.text_tokenizer")

    def decode(self, ids: Sequence[int]) -> str:
        """Refuses: nobody named a tokenizer."""
        raise UserError(f"{len(ids)} ids have no text: name a folder in config.data.text_tokenizer")


@dataclasses.dataclass(frozen=True)
class Words:
    """What is said about a picture.

    Attributes:
      caption: a phrase or a sentence.
      category: the name of what is meant; "" leaves it out.
      boxes: of what is meant.
    """

    caption: str
    category: str = ""
    boxes: tuple[Box, ...] = ()


@dataclasses.dataclass(frozen=True)
class Parsed:
    """Words that a decoder wrote.

    Attributes:
      words: what could be read.
      broken: ids that could not: of images, of brackets without their partner, of boxes that are none.
    """

    words: Words
    broken: int


@dataclasses.dataclass(frozen=True)
class WordsFormat:
    """Words as ids of the decoder.

    Attributes:
      vocabulary: from `Vocabulary.unified`.
      text: its text tokenizer.
    """

    vocabulary: Vocabulary
    text: Text

    @property
    def has_brackets(self) -> bool:
        """Whether the vocabulary has ids for categories and boxes."""
        return self._bins > 0

    @functools.cached_property
    def _bins(self) -> int:
        return sum(len(found) for found in self.vocabulary.ranges if found.name == "bins")

    def encode(self, words: Words) -> list[int]:
        """The ids, without padding.

        Raises:
          UserError: a box outside its picture, a category or a box without ids for it, or a text with ids that are not
            the vocabulary's.
        """
        if not self.has_brackets and (words.category or words.boxes):
            raise UserError(
                f"category {words.category!r} and {len(words.boxes)} boxes need brackets and bins, and the vocabulary "
                f"has none: make it with Vocabulary.unified(bins=1001)"
            )
        ids = self.category(words.category) if words.category else []
        for box in words.boxes:
            ids += self._box(box)
        return ids + self._plain(words.caption)

    def category(self, name: str) -> list[int]:
        """A category in its brackets."""
        special = self.vocabulary.special
        return [special("c_st"), *self._plain(name), special("c_ed")]

    def _plain(self, text: str) -> list[int]:
        ids = list(self.text.encode(text))
        room = len(self.vocabulary["text"])
        if any(not 0 <= id < room for id in ids):
            raise UserError(
                f"{text!r} has the id {max(ids)}, and the vocabulary has {room} ids of text: use the text tokenizer "
                "that it was made for"
            )
        return ids

    def _box(self, box: Box) -> list[int]:
        left, top, right, bottom = box
        if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
            raise UserError(
                f"box {box} lies outside its picture: corners are shares of the picture's edges, left to right and top "
                "to bottom, from 0 to 1"
            )
        special, last = self.vocabulary.special, self._bins - 1
        bins = [self.vocabulary["bins"].start + round(corner * last) for corner in box]
        return [special("b_st"), *bins, special("b_ed")]

    def parse(self, ids: Sequence[int]) -> Parsed:
        """Reads ids up to the end of their pair, whatever they are.

        The first category counts. Four bins in brackets are a box if they go left to right and top to bottom. All other
        text is the caption. What fits nowhere is counted and left out.
        """
        ids = self._until_end(ids)
        if not self.has_brackets:
            kept = [id for id in ids if id in self.vocabulary["text"]]
            return Parsed(Words(self.text.decode(kept)), len(ids) - len(kept))
        reader = _Reader(self.vocabulary, self._bins)
        at = 0
        while at < len(ids):
            at += reader.read(ids, at)
        category, caption = (
            self.text.decode(found) for found in (reader.category or [], reader.caption)
        )
        return Parsed(Words(caption, category, tuple(reader.boxes)), reader.broken)

    def _until_end(self, ids: Sequence[int]) -> list[int]:
        """Without padding, and without `eoc` and what follows it."""
        end, pad = self.vocabulary.special("eoc"), self.vocabulary.pad
        ids = [int(id) for id in ids]
        ids = ids[: ids.index(end)] if end in ids else ids
        return [id for id in ids if id != pad]


class _Reader:
    """Reads fields one after the other."""

    def __init__(self, vocabulary: Vocabulary, bins: int) -> None:
        self.category: list[int] | None = None
        self.caption: list[int] = []
        self.boxes: list[Box] = []
        self.broken = 0
        self._text, self._bins, self._last = vocabulary["text"], vocabulary["bins"], bins - 1
        self._open, self._close = vocabulary.special("c_st"), vocabulary.special("c_ed")
        self._box, self._box_end = vocabulary.special("b_st"), vocabulary.special("b_ed")

    def read(self, ids: list[int], at: int) -> int:
        """Reads what begins at `at`, and gives the number of its ids."""
        if ids[at] == self._open and self.category is None:
            stop = at + 1
            while stop < len(ids) and ids[stop] in self._text:
                stop += 1
            # Text goes on to whatever follows it; without its bracket it is a category all the same, and broken.
            self.category = ids[at + 1 : stop]
            closed = stop < len(ids) and ids[stop] == self._close
            self.broken += not closed
            return stop - at + closed
        if ids[at] == self._box:
            return self._read_box(ids[at : at + 6])
        if ids[at] in self._text:
            self.caption.append(ids[at])
        else:
            self.broken += 1
        return 1

    def _read_box(self, ids: list[int]) -> int:
        corners = [id - self._bins.start for id in ids[1:5] if id in self._bins]
        if len(ids) == 6 and len(corners) == 4 and ids[5] == self._box_end:
            left, top, right, bottom = corners
            if left <= right and top <= bottom:
                last = self._last
                self.boxes.append((left / last, top / last, right / last, bottom / last))
            else:
                self.broken += 6
            return 6
        self.broken += 1  # the bracket; what follows it is read by itself
        return 1
