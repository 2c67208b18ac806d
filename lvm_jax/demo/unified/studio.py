"""What the tab does, without the page: examples and a query to a mask or words, and the same query after others.

H, W: pixels as the model sees them, N: codes of a picture.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

from lvm_jax.data.in_context.pool_record import PoolRecord
from lvm_jax.data.in_context.sequences import Pair, Question
from lvm_jax.data.in_context.words import Box, Words
from lvm_jax.demo.codes import Coder, Item
from lvm_jax.errors import UserError
from lvm_jax.evaluation.in_context.held_out import HeldOutEpisode, TrainedRows
from lvm_jax.evaluation.in_context.scores import boxes_iou, mask_iou
from lvm_jax.inference.in_context import InContextPrompt
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.inference.sampling import Sampling
from lvm_jax.pictures.annotation_maps import mask_to_rgb, rgb_to_mask
from lvm_jax.pictures.resize import resize

Where = Literal["none", "examples", "all"]  # before which pairs the category is written
MASKS, SAID = Question.SEGMENTATION, Question.CAPTIONING
_GREEDY = Sampling(temperature=0.0)
_SAME = 0.95  # IoU from which on two masks look the same

Mask = Bool[np.ndarray, "H W"]


@dataclasses.dataclass(frozen=True, eq=False)
class Shot:
    """An example: a picture with a mask or words, or both.

    Attributes:
      picture: of the example.
      mask: of what is meant, as a picture in white and black.
      caption: what is said about it.
      boxes: of what is meant.
    """

    picture: Item
    mask: Item | None = None
    caption: str = ""
    boxes: tuple[Box, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """What is asked.

    Attributes:
      question: masks or words.
      shots: examples.
      query: the picture that is asked about.
      category: name of what is meant; "" says nothing.
      where: before which pairs it is written.
    """

    question: Question = MASKS
    shots: tuple[Shot, ...] = ()
    query: Item | None = None
    category: str = ""
    where: Where = "none"


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What the model answers.

    Attributes:
      what: which examples it saw, in words.
      seconds: that it took.
      drawn: a mask, as it was drawn; None: it was words.
      words: what it said.
      broken: ids of the words that could not be read.
    """

    what: str
    seconds: float
    drawn: Item | None = None
    words: Words | None = None
    broken: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A held-out episode to start from.

    Attributes:
      prompt: without its answer.
      truth: the true answer, a mask as a picture or words.
      others: examples of another thing, which the query's picture shows too if `rival` is known.
      other: the name of that thing.
      rival: the true answer about it.
    """

    prompt: Prompt
    truth: Item | Words
    others: tuple[Shot, ...] = ()
    other: str = ""
    rival: Item | Words | None = None


class Studio:
    """A decoder that answers from examples, ready to be asked.

    Args:
      generator: decoder and tokenizers.
      rows: what words say.

    Attributes:
      coder: turns pictures into codes.
      most_examples: that a prompt may have.
      has_room: whether the category may be written before pairs.
    """

    def __init__(self, generator: InContextGenerator, rows: TrainedRows, most: int) -> None:
        self.coder = Coder(generator.vqgan)
        self._engine, self._rows = generator.engine, rows
        self.most_examples = min(most, self._engine.most_examples)
        self.has_room = self._engine.form.category_room > 0

    def shot(self, record: PoolRecord) -> Shot:
        """A record of a pool as an example."""
        (picture,) = self.coder.of_codes(record.picture[None])
        mask = None if record.mask is None else self.coder.of_codes(record.mask[None])[0]
        return Shot(picture, mask, record.caption, record.boxes)

    def example(self, episode: HeldOutEpisode) -> Example:
        """A held-out episode."""
        question = episode.question
        shots = tuple(map(self.shot, episode.examples))
        query = self.shot(episode.query)
        prompt = Prompt(question, shots, query.picture, episode.query.class_name)
        rival = episode.rival
        if rival is None:
            return Example(prompt, self._truth(question, episode.query))
        return Example(
            prompt,
            self._truth(question, episode.query),
            tuple(map(self.shot, rival.examples)),
            rival.query.class_name,
            self._truth(question, rival.query),
        )

    def mask_of(self, picture: UInt8[np.ndarray, "_ _ 3"], before: Item | None = None) -> Item:
        """A mask, white on black, in the colours that the model knows; added to the one before."""
        size = self.coder.vqgan.config.resolution
        mask = rgb_to_mask(resize(picture, size))
        if before is not None:
            mask |= rgb_to_mask(
                before.seen_HWC if before.given_HWC is None else resize(before.given_HWC, size)
            )
        (item,) = self.coder.of_pictures([mask_to_rgb(mask)])
        return item

    def box_mask(self, box: Box) -> Item:
        """The mask of a rectangle."""
        size = self.coder.vqgan.config.resolution
        left, top, right, bottom = (round(corner * size) for corner in box)
        mask = np.zeros((size, size), bool)
        mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        (item,) = self.coder.of_pictures([mask_to_rgb(mask)])
        return item

    def answer(self, prompt: Prompt, what: str) -> Answer:
        """The likeliest answer.

        Raises:
          UserError: something is missing in the prompt; the message says what.
          UnknownCharacters: the text tokenizer lacks a character.
        """
        asked = self._asked(prompt)
        started = time.monotonic()
        if prompt.question is MASKS:
            codes_RBN = self._engine.masks([asked], sampling=_GREEDY)
            (drawn,) = self.coder.of_codes(codes_RBN[0])
            return Answer(what, time.monotonic() - started, drawn)
        ((parsed,),) = self._engine.words([asked], sampling=_GREEDY)
        return Answer(what, time.monotonic() - started, None, parsed.words, parsed.broken)

    def _asked(self, prompt: Prompt) -> InContextPrompt:
        if prompt.query is None:
            raise UserError(
                "0 queries: drop the picture whose answer you want, or start from an example"
            )
        written = prompt.where if self.has_room else "none"
        if written != "none" and not prompt.category:
            raise UserError(
                "the category has 0 characters: type the name of what is meant, or write it before no pair"
            )
        before = prompt.category if written != "none" else ""
        pairs = tuple(self._pair(prompt, i, shot, before) for i, shot in enumerate(prompt.shots, 1))
        own = prompt.category if written == "all" else ""
        return InContextPrompt(pairs, prompt.query.codes_N, prompt.question, own)

    def _pair(self, prompt: Prompt, number: int, shot: Shot, before: str) -> Pair:
        if prompt.question is MASKS:
            if shot.mask is None:
                raise UserError(f"example {number} has no mask: paint or drop one, or remove it")
            return Pair(shot.picture.codes_N, shot.mask.codes_N, before)
        if not shot.caption:
            raise UserError(f"example {number} has 0 words: say what is in it, or remove it")
        return Pair(
            shot.picture.codes_N,
            self._rows.words(shot.caption, prompt.category, shot.boxes),
            before,
        )

    def _truth(self, question: Question, record: PoolRecord) -> Item | Words:
        if question is SAID:
            return self._rows.words(record.caption, record.class_name, record.boxes)
        assert record.mask is not None  # or it would not be in the pool
        return self.coder.of_codes(record.mask[None])[0]


def mask_in(item: Item) -> Mask:
    """Where a drawn picture is nearer to white than to black."""
    return rgb_to_mask(item.seen_HWC)


def painted(picture: UInt8[np.ndarray, "H W 3"], mask: Mask) -> UInt8[np.ndarray, "H W 3"]:
    """The picture, darkened where the mask is not."""
    return np.where(mask[..., None], picture, picture // 4 + 12).astype(np.uint8)


def agreement(answer: Answer, truth: Item | Words) -> str:
    """Compares an answer with the truth in words."""
    if isinstance(truth, Words):
        assert answer.words is not None
        if answer.words == truth:
            return "equal to the truth"
        said = answer.words
        facts = [f"category {_right(said.category == truth.category)}"] if truth.category else []
        facts.append(f"caption {_right(said.caption == truth.caption)}")
        facts += [f"box IoU {boxes_iou(said.boxes, truth.boxes):.2f}"] if truth.boxes else []
        return f"{', '.join(facts)} against the truth"
    assert answer.drawn is not None
    return f"IoU {mask_iou(mask_in(answer.drawn), mask_in(truth)):.2f} with the truth"


def _right(is_right: bool) -> str:
    return "right" if is_right else "wrong"


def how_much_changed(own: Answer, others: Sequence[Answer]) -> str:
    """Says in words what other examples did to the answer."""
    told = [_compared(own, other) for other in others]
    if all(same for same, _ in told):
        names = " and ".join(other.what for other in others)
        return f"The answer is the same {names}: it does not depend on the examples."
    return "The answer changes with the examples: " + "; ".join(words for _, words in told) + "."


def _compared(own: Answer, other: Answer) -> tuple[bool, str]:
    """Whether another answer is the same, and how far it is, in words."""
    if own.drawn is None or other.drawn is None:
        same = own.words == other.words
        return same, f"{'the same' if same else 'other'} words {other.what}"
    iou = mask_iou(mask_in(own.drawn), mask_in(other.drawn))
    return iou >= _SAME, f"IoU {iou:.2f} with the answer {other.what}"
