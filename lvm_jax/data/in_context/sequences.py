"""Examples and a query as one row of tokens (arXiv 2312.02520).

    segmentation  [BOI] picture [BOI] mask          [EOC]   for every pair, examples first, the query last
    captioning    [BOI] picture [BOT] words padding [EOC]

Words are padded to the length of a picture, so a pair has 2 N + 3 tokens: 515 with N = 256, and three examples with
their query have 2,060. Optionally every pair begins with its category, in a room of fixed length.

Because all places are fixed, delimiters are given and not learnt. What is learnt: the N codes of a mask, or words and
the one pad that says where they end; and, by a weight of their own, the codes of the pictures. The paper does not say
which delimiters and pads count.

Shapes: L tokens of a row, N codes of a picture, B rows.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from lvm_jax.data.in_context.words import NoText, Words, WordsFormat
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary


class Question(enum.Enum):
    """What is asked about a picture; its value is the bit of an attribute value."""

    SEGMENTATION = 1 << 0
    CAPTIONING = 1 << 1


class Attribute(enum.IntEnum):
    """Bits of a token's attribute value, beside that of the question: modality, role, and which pair it is in."""

    IMAGE = 1 << 2
    TEXT = 1 << 3
    INPUT = 1 << 4
    OUTPUT = 1 << 5
    EXAMPLE = 1 << 6
    QUERY = 1 << 7


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A picture and what is said about it.

    Attributes:
      picture: its codes, from 0.
      answer: codes of its mask, or words.
      category: written before the pair, where the format has room for it; "" leaves the room empty.
    """

    picture: Int[np.ndarray, " N"]
    answer: Int[np.ndarray, " N"] | Words
    category: str = ""

    @property
    def question(self) -> Question:
        """What the pair is an example of."""
        return Question.CAPTIONING if isinstance(self.answer, Words) else Question.SEGMENTATION


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One row of a batch.

    Attributes:
      tokens: ids.
      segment_ids: 1; 0 is padding behind the query.
      positions: from 0.
      loss_weights: of predicting each token.
      attributes: what each token is, see `Attribute`; 0 for padding.
    """

    tokens: Int32[np.ndarray, " L"]
    segment_ids: Int32[np.ndarray, " L"]
    positions: Int32[np.ndarray, " L"]
    loss_weights: Float32[np.ndarray, " L"]
    attributes: Int32[np.ndarray, " L"]


# A row while it is made: ids that have one attribute and one loss weight.
_Piece = tuple[Sequence[int] | Int[np.ndarray, " n"], int, float]


@dataclasses.dataclass(frozen=True)
class SequenceFormat:
    """How pairs become rows.

    Attributes:
      words: ids of words; it has the vocabulary.
      tokens_per_image: N, codes of a picture.
      category_room: tokens for the category before a pair, brackets included; 0: none is written, as published.
      output_weight: of the loss of an answer's tokens (L_out).
      input_weight: of the loss of a picture's codes (L_in); the paper tries 0, 0.5 and 1.
    """

    words: WordsFormat
    tokens_per_image: int = 256
    category_room: int = 0
    output_weight: float = 1.0
    input_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.tokens_per_image < 1 or self.category_room < 0 or self.category_room in (1, 2):
            raise UserError(
                f"tokens_per_image={self.tokens_per_image}, category_room={self.category_room}: a picture has at least "
                "1 code, and a category at least 3 tokens with its brackets, or no room"
            )
        if self.category_room and not self.words.has_brackets:
            raise UserError(
                f"category_room={self.category_room} needs brackets, and the vocabulary has none: make it with "
                "Vocabulary.unified(bins=1001)"
            )
        if min(self.output_weight, self.input_weight) < 0:
            raise UserError(
                f"output_weight={self.output_weight}, input_weight={self.input_weight}: they must be at least 0"
            )

    @classmethod
    def of_masks(cls, codes: int, tokens_per_image: int) -> "SequenceFormat":
        """Rows that hold pictures and masks, and no words.

        Args:
          codes: of the image tokenizer.
          tokens_per_image: N.
        """
        vocabulary = Vocabulary.unified(text=1, image=codes)  # a vocabulary has some text
        return cls(WordsFormat(vocabulary, NoText()), tokens_per_image)

    @property
    def pair_length(self) -> int:
        """Tokens of a pair."""
        return self.category_room + 2 * self.tokens_per_image + 3

    @property
    def spans(self) -> tuple[int, ...]:
        """Lengths of spans of equal attributes, pair after pair: `MoEConfig.spans` for rows of equally many pairs."""
        lengths = (self.category_room, 1 + self.tokens_per_image, 2 + self.tokens_per_image)
        return tuple(length for length in lengths if length)

    def row(self, pairs: Sequence[Pair], room: int = 0) -> Row:
        """Examples and, last, the query with its answer.

        Args:
          pairs: of one question.
          room: pairs that the row has room for; the rest of it is padding. 0: exactly these.

        Raises:
          UserError: no pair, more than fit, of several questions, or something in them that does not fit.
        """
        if not 1 <= len(pairs) <= (room or len(pairs)):
            raise UserError(
                f"{len(pairs)} pairs for a row of {room}: give at least the query, and no more examples than fit"
            )
        if len({pair.question for pair in pairs}) > 1:
            raise UserError(
                "the pairs of a row ask several questions: give masks only, or words only"
            )
        pieces = [
            piece
            for number, pair in enumerate(pairs)
            for piece in self._pair(pair, number == len(pairs) - 1)
        ]
        return self._joined(pieces, (room or len(pairs)) * self.pair_length)

    def padding(self, room: int) -> Row:
        """A row with room for `room` pairs that holds none."""
        return self._joined([], room * self.pair_length)

    def prompt(self, examples: Sequence[Pair], query: Pair) -> Row:
        """A row up to the delimiter of the query's answer, which is to be drawn; its own is not read."""
        pieces = [piece for pair in examples for piece in self._pair(pair, False)]
        category, begin, picture, (ids, attribute, _), *_ = self._pair(
            self._unanswered(query), True
        )
        pieces += [category, begin, picture, (ids, attribute, 0.0)]
        return self._joined(pieces, sum(len(ids) for ids, _, _ in pieces))

    def _unanswered(self, query: Pair) -> Pair:
        blank = np.zeros(self.tokens_per_image, np.int32)
        answer = Words("") if query.question is Question.CAPTIONING else blank
        return dataclasses.replace(query, answer=answer)

    def answer_attribute(self, question: Question) -> int:
        """The attribute value of the answer to the query, which drawn tokens have."""
        return self._attribute(question, question is Question.CAPTIONING, Attribute.OUTPUT, True)

    def drawable(self, question: Question) -> Bool[np.ndarray, " V"]:
        """The ids that an answer may have: codes; or text, brackets, bins, and pad for its end."""
        vocabulary = self.words.vocabulary
        if question is Question.SEGMENTATION:
            return vocabulary.mask("image")
        brackets = ("bins", "c_st", "c_ed", "b_st", "b_ed") if self.words.has_brackets else ()
        return vocabulary.mask("text", "pad", *brackets)

    def _pair(self, pair: Pair, is_query: bool) -> list[_Piece]:
        """Category, beginning and codes of the picture, beginning of the answer, the answer, end."""
        special, question = self.words.vocabulary.special, pair.question
        says = question is Question.CAPTIONING
        about = self._attribute(question, False, Attribute.INPUT, is_query)
        name = self._attribute(question, True, Attribute.INPUT, is_query)
        out = self._attribute(question, says, Attribute.OUTPUT, is_query)
        if isinstance(pair.answer, Words):
            learnt, rest = self._said(pair.answer)
        else:
            learnt, rest = self._codes(pair.answer, "mask"), []
        return [
            (self._category(pair.category), name, 0.0),
            ([special("boi")], about, 0.0),
            (self._codes(pair.picture, "picture"), about, self.input_weight),
            ([special("bot" if says else "boi")], out, 0.0),
            (learnt, out, self.output_weight),
            ([*rest, special("eoc")], out, 0.0),
        ]

    def _attribute(self, question: Question, is_text: bool, role: Attribute, is_query: bool) -> int:
        modality = Attribute.TEXT if is_text else Attribute.IMAGE
        return (
            question.value | modality | role | (Attribute.QUERY if is_query else Attribute.EXAMPLE)
        )

    def _codes(self, codes: Int[np.ndarray, " N"], what: str) -> Int[np.ndarray, " N"]:
        image = self.words.vocabulary["image"]
        if codes.shape != (self.tokens_per_image,):
            raise UserError(
                f"a {what} has codes of shape {codes.shape}: it must have tokens_per_image={self.tokens_per_image}; "
                "encode it at the size of the tokenizer"
            )
        if codes.min() < 0 or codes.max() >= len(image):
            raise UserError(
                f"a {what} has codes {codes.min()}..{codes.max()}, and the vocabulary has {len(image)}: encode it with "
                "the tokenizer that the vocabulary was made for"
            )
        return codes.astype(np.int32) + image.start

    def _said(self, words: Words) -> tuple[list[int], list[int]]:
        """Ids of words with the first pad, which are learnt, and the other pads."""
        ids, room = self.words.encode(words), self.tokens_per_image
        if len(ids) > room:
            raise UserError(
                f"the caption {words.caption[:40]!r} with {len(words.boxes)} boxes has {len(ids)} tokens and room for "
                f"{room}: shorten it, or leave out boxes"
            )
        padded = ids + [self.words.vocabulary.pad] * (room - len(ids))
        return padded[: len(ids) + 1], padded[len(ids) + 1 :]

    def _category(self, name: str) -> list[int]:
        if name and not self.category_room:
            raise UserError(f"category {name!r} has no room: set category_room, or leave it out")
        ids = self.words.category(name) if name else []
        if len(ids) > self.category_room:
            raise UserError(
                f"category {name!r} has {len(ids)} tokens with its brackets, and category_room={self.category_room}: "
                "raise it"
            )
        return ids + [self.words.vocabulary.pad] * (self.category_room - len(ids))

    def _joined(self, pieces: Sequence[_Piece], length: int) -> Row:
        lengths = [len(ids) for ids, _, _ in pieces]
        used = sum(lengths)

        def filled(values: Sequence[float], fill: int, kind: type) -> Any:
            column = np.full(length, fill, kind)
            column[:used] = np.repeat(np.array(values, kind), lengths)
            return column

        tokens = np.full(length, self.words.vocabulary.pad, np.int32)
        tokens[:used] = np.concatenate(
            [np.zeros(0, np.int32), *(np.array(ids, np.int32) for ids, _, _ in pieces)]
        )
        return Row(
            tokens,
            filled([1] * len(pieces), 0, np.int32),
            np.arange(length, dtype=np.int32),
            filled([weight for _, _, weight in pieces], 0, np.float32),
            filled([attribute for _, attribute, _ in pieces], 0, np.int32),
        )

    def pairs(self, tokens: Int[np.ndarray, " L"]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ids of each whole pair of a row: those of its picture, and those of its answer, without delimiters.

        `codes` and `WordsFormat.parse` read them.
        """
        N, first = self.tokens_per_image, self.category_room + 1
        found = []
        for start in range(0, len(tokens) - self.pair_length + 1, self.pair_length):
            pair = tokens[start : start + self.pair_length]
            # Behind the query of a short row lies nothing but padding.
            if pair[self.category_room] == self.words.vocabulary.special("boi"):
                found.append((pair[first : first + N], pair[first + N + 1 : first + 2 * N + 1]))
        return found

    def codes(self, ids: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], int]:
        """Codes of a picture or a mask, and how many ids were none; code 0 takes their places."""
        image = self.words.vocabulary["image"]
        good = (ids >= image.start) & (ids < image.stop)
        return np.where(good, ids - image.start, 0), int(np.sum(~good))


def stacked(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Rows as the arrays of a batch, (B, L) each, by the names that `DecoderTask` reads."""
    names = [field.name for field in dataclasses.fields(Row)]
    return {name: np.stack([vars(row)[name] for row in rows]) for name in names}
