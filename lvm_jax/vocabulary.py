"""The ids of a decoder: named ranges, and which of them may be drawn.

A system's vocabulary is an ordered list of ranges, such as `codes`, or `text | image | specials | bins`. Outside the
decoder, ids of a range count from 0 (a code of the tokenizer, a word piece, a bin); the decoder adds the range's start.
No other module adds a number to the size of a codebook.

Shape legend: V ids of the vocabulary.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool

from lvm_jax.errors import UserError

# Ids of the unified system behind its image codes (arXiv 2312.02520, Table 5): the paper names BOI, BOT and EOC, its
# padding implies a fourth, and the size of its vocabulary leaves room for nine.
_UNIFIED_SPECIALS = ("boi", "bot", "eoc", "pad")
_UNIFIED_RESERVED = 9
# Around a category and around a box, if there are bins for boxes.
_UNIFIED_BRACKETS = ("c_st", "c_ed", "b_st", "b_ed")

# The ids behind the codes in the published LVM vocabulary of 8292: BOS, EOS, PAD, and 97 unused ones.
_LVM_RESERVED = 100


@dataclasses.dataclass(frozen=True)
class IdRange:
    """The ids `start .. stop - 1`."""

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        """Number of ids."""
        return self.stop - self.start

    def __contains__(self, id: int) -> bool:
        """Whether an id of the decoder lies in the range."""
        return self.start <= id < self.stop


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Named, adjacent ranges of ids from 0, and the ids with names of their own.

    Attributes:
      ranges: in the order of their ids; together they are 0 .. size - 1.
      specials: (name, id) of single ids, such as ("bos", 8192); each lies in one of the ranges.
    """

    ranges: tuple[IdRange, ...]
    specials: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        expected = 0
        for found in self.ranges:
            if found.start != expected or len(found) < 1:
                raise UserError(
                    f"the id range {found.name!r} is {found.start}..{found.stop - 1}: it must start at {expected}, "
                    "where the range before it ends, and hold at least one id"
                )
            expected = found.stop
        names = [found.name for found in self.ranges]
        for kind, given in (("id range", names), ("special id", [n for n, _ in self.specials])):
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                raise UserError(f"two {kind}s are named {twice[0]!r}: give each a name of its own")
        for name, id in self.specials:
            if not 0 <= id < expected:
                raise UserError(f"the special {name!r} has id {id}: ids are 0..{expected - 1}")

    @classmethod
    def of(
        cls, sizes: Mapping[str, int], specials: Mapping[str, int] | None = None
    ) -> "Vocabulary":
        """Makes adjacent ranges of the given sizes.

        Args:
          sizes: name -> number of ids, in the order of the ids.
          specials: name -> id.

        Raises:
          UserError: an empty range, a name given twice, or a special outside all ranges.
        """
        ranges, start = [], 0
        for name, size in sizes.items():
            ranges.append(IdRange(name, start, start + size))
            start += size
        return cls(tuple(ranges), tuple((specials or {}).items()))

    @classmethod
    def lvm(cls, codebook_size: int) -> "Vocabulary":
        """The published LVM vocabulary: codes, then BOS, EOS, PAD and 97 unused ids.

        Args:
          codebook_size: codes of the tokenizer, at least 1.

        Raises:
          UserError: there is no code.
        """
        if codebook_size < 1:
            raise UserError(f"codebook_size is {codebook_size}: it must be at least 1")
        special = {"bos": codebook_size, "eos": codebook_size + 1, "pad": codebook_size + 2}
        return cls.of({"codes": codebook_size, "specials": _LVM_RESERVED}, special)

    @classmethod
    def lvm_of_size(cls, vocab_size: int) -> "Vocabulary":
        """The published LVM vocabulary with `vocab_size` ids in all: the inverse of `Vocabulary.lvm(codes).size`.

        Raises:
          UserError: too few ids for a code besides the reserved ones.
        """
        if vocab_size <= _LVM_RESERVED:
            raise UserError(
                f"vocab_size is {vocab_size}: {_LVM_RESERVED} ids are reserved, so it must be at least "
                f"{_LVM_RESERVED + 1}"
            )
        return cls.lvm(vocab_size - _LVM_RESERVED)

    @classmethod
    def unified(cls, text: int = 50_257, image: int = 1_024, bins: int = 0) -> "Vocabulary":
        """Text and images in one vocabulary (arXiv 2312.02520): 51,290 ids; 52,295 with 1,001 bins.

        The order is text, image codes, specials, bins. `boi` and `bot` begin an image and a text, `eoc` ends a pair,
        `pad` fills a text. With bins there are also the brackets `c_st` and `c_ed` of a category, and `b_st` and `b_ed`
        of a box. BOS and EOS are `boi` and `eoc`: every sequence begins with an image and ends with a pair's end.

        Args:
          text: ids of the text tokenizer; GPT-2's by default.
          image: codes of the image tokenizer.
          bins: places along an edge of an image, 0 and 1 included, that a box's corner may have; 0: no boxes.

        Raises:
          UserError: no ids of text or of images, or a single bin.
        """
        if bins < 0 or bins == 1:
            raise UserError(f"bins is {bins}: it must be 0 or at least 2, for both ends of an edge")
        brackets = _UNIFIED_BRACKETS if bins else ()
        first = text + image
        named = {name: first + i for i, name in enumerate(_UNIFIED_SPECIALS)}
        named |= {name: first + _UNIFIED_RESERVED + i for i, name in enumerate(brackets)}
        sizes = {"text": text, "image": image, "specials": _UNIFIED_RESERVED + len(brackets)}
        if bins:
            sizes["bins"] = bins
        return cls.of(sizes, named | {"bos": named["boi"], "eos": named["eoc"]})

    @property
    def size(self) -> int:
        """Number of ids, reserved ones included: the decoder's `vocab_size`."""
        return self.ranges[-1].stop

    @property
    def bos(self) -> int:
        """The id that begins a sentence."""
        return self.special("bos")

    @property
    def eos(self) -> int:
        """The id that ends a sentence."""
        return self.special("eos")

    @property
    def pad(self) -> int:
        """The id that fills a row after its sentences."""
        return self.special("pad")

    def special(self, name: str) -> int:
        """The id of a special name.

        Raises:
          UserError: no special of that name.
        """
        for known, id in self.specials:
            if known == name:
                return id
        raise UserError(_unknown("special id", name, (known for known, _ in self.specials)))

    def __getitem__(self, name: str) -> IdRange:
        """The range with a name.

        Raises:
          UserError: no range of that name.
        """
        for found in self.ranges:
            if found.name == name:
                return found
        raise UserError(_unknown("id range", name, (found.name for found in self.ranges)))

    def range_of(self, id: int) -> IdRange:
        """The range that an id lies in.

        Raises:
          UserError: the id lies outside the vocabulary.
        """
        for found in self.ranges:
            if id in found:
                return found
        raise UserError(f"id {id} is not in the vocabulary: ids are 0..{self.size - 1}")

    def mask(self, *names: str) -> Bool[np.ndarray, " V"]:
        """True for the ids that may be drawn: those of the named ranges and specials. Read-only, made once.

        Raises:
          UserError: a name is neither a range nor a special.
        """
        return _mask(self, names)


@functools.lru_cache(maxsize=64)
def _mask(vocabulary: Vocabulary, names: tuple[str, ...]) -> Bool[np.ndarray, " V"]:
    mask = np.zeros(vocabulary.size, bool)
    ranges = {found.name for found in vocabulary.ranges}
    for name in names:
        if name in ranges:
            found = vocabulary[name]
            mask[found.start : found.stop] = True
        else:
            mask[vocabulary.special(name)] = True
    mask.setflags(write=False)  # cached: every caller gets this very array
    return mask


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    return f"the vocabulary has no {kind} {name!r}; known: {', '.join(known) or 'none'}"
