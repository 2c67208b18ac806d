"""Composers of conversations: a question about an item's picture and its text, or a conversation as it is."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.items import Item, Kind, Text, Value, refuse_other_kinds
from data_pipelines.sentences.base import OneItem, Unfit, of_role, words_of_role
from lvm_jax.data.image_text.conversation import PLACEHOLDER, Conversation, Turn
from lvm_jax.errors import UserError

Composition = tuple[list[Value], str]
_TAKER = "a conversation"


@dataclasses.dataclass(frozen=True)
class Ask(OneItem):
    """One question about the first picture of an item; the answer is its text.

    Attributes:
      questions: one is drawn for each item; "" shows the picture alone.
      answer: the role of the text.
    """

    questions: tuple[str, ...] = ("",)
    answer: str = "text"

    def __post_init__(self) -> None:
        if not self.questions:
            raise UserError("questions is empty: name at least one, '' for none")
        if any(PLACEHOLDER in question for question in self.questions):
            raise UserError(f"a question holds {PLACEHOLDER}: the picture is put before it anyway")

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 1

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> Composition:
        """The picture, the conversation, and what may not be in two splits."""
        question = self.questions[int(rng.integers(len(self.questions)))]
        asked = f"{PLACEHOLDER}\n{question}" if question else PLACEHOLDER
        answer = words_of_role(items[0], self.answer, _TAKER)
        conversation = Conversation((Turn(asked, answer),))
        images = of_role(items[0], "image", Kind.PICTURE, _TAKER)[:1]
        return _composition(images, conversation.to_json(), items[0])


@dataclasses.dataclass(frozen=True)
class Talk(OneItem):
    """The conversation that an item holds, with all of its pictures.

    Attributes:
      max_images: the most pictures.
    """

    max_images: int = 8

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> Composition:
        """The pictures, the conversation, and what may not be in two splits."""
        images = items[0].get("image", [])
        if len(images) > self.max_images:
            raise Unfit(0, f"it has {len(images)} pictures, max_images is {self.max_images}")
        refuse_other_kinds(images, (Kind.PICTURE,), "role 'image'", _TAKER)
        said = words_of_role(items[0], "conversation", _TAKER)
        return _composition(images, said, items[0])


def _composition(images: Sequence[Value], conversation: str, item: Item) -> Composition:
    facets = list(item.get("facets", []))
    roles = ["image"] * len(images) + ["conversation"] + ["facet"] * len(facets)
    return [*images, Text(conversation), *facets], ",".join(roles)
