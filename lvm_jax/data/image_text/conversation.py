"""A conversation about pictures, in the published layout.

    {"id": "page-7", "image": "page-7.png", "conversations": [
        {"from": "human", "value": "<image>\nWhat does it say?"}, {"from": "gpt", "value": "Hello"}]}

`image` is a path, a list of paths, or absent. `<image>` in a question stands for the next of them. In an answer it is
text: a page may well say it.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lvm_jax.errors import BadData

PLACEHOLDER = "<image>"
_QUESTION, _ANSWER = "human", "gpt"


class BadConversation(BadData, ValueError):
    """A conversation that cannot become a row; the message says why."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """A question and its answer; None in the last turn of a prompt, whose answer is wanted."""

    question: str
    answer: str | None


@dataclasses.dataclass(frozen=True)
class Conversation:
    """At least one turn.

    Attributes:
      turns: in order.
    """

    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        if not self.turns:
            raise BadConversation("it has no turns: it needs a question and an answer")
        if any(turn.answer is None for turn in self.turns[:-1]):
            raise BadConversation("a turn before the last has no answer")

    @property
    def pictures(self) -> int:
        """Number of placeholders."""
        return sum(turn.question.count(PLACEHOLDER) for turn in self.turns)

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers, in order."""
        return tuple(turn.answer for turn in self.turns if turn.answer is not None)

    def check_pictures(self, given: int) -> None:
        """Checks that every placeholder has its picture.

        Raises:
          BadConversation: it has more pictures than placeholders, or fewer.
        """
        if given != self.pictures:
            raise BadConversation(
                f"it has {given} pictures for {self.pictures} placeholders {PLACEHOLDER}: write one for each picture"
            )

    def to_json(self) -> str:
        """The turns as the published list of {from, value}; equal conversations give equal text."""
        entries = []
        for turn in self.turns:
            entries.append({"from": _QUESTION, "value": turn.question})
            if turn.answer is not None:
                entries.append({"from": _ANSWER, "value": turn.answer})
        return json.dumps(entries, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Conversation":
        """The inverse of `to_json`.

        Raises:
          BadConversation: not JSON, or not in the published layout.
        """
        try:
            entries = json.loads(text)
        # Not JSONDecodeError alone: a number of thousands of digits is a plain ValueError.
        except (ValueError, RecursionError) as error:
            raise BadConversation(f"its conversation is not JSON ({error})") from error
        return cls.of(entries)

    @classmethod
    def of(cls, entries: Any) -> "Conversation":
        """Reads the published list of {from, value}.

        Raises:
          BadConversation: it is no such list, or questions and answers do not take turns.
        """
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise BadConversation(
                f"its conversations are {type(entries).__name__}: they must be a list of {{from, value}}"
            )
        said = [_said(entry, i) for i, entry in enumerate(entries)]
        for i, (speaker, _) in enumerate(said):
            expected = (_QUESTION, _ANSWER)[i % 2]
            if speaker != expected:
                raise BadConversation(
                    f"turn {i} is from {speaker!r}: {_QUESTION} and {_ANSWER} take turns, it must be {expected!r}"
                )
        values: list[str | None] = [value for _, value in said]
        values += [None] * (len(values) % 2)
        return cls(tuple(Turn(q or "", a) for q, a in zip(values[::2], values[1::2], strict=True)))


def picture_paths(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of an entry's pictures.

    Raises:
      BadConversation: `image` is neither a path nor a list of paths.
    """
    found = entry.get("image", [])
    paths = [found] if isinstance(found, str) else found
    if not isinstance(paths, Sequence) or not all(isinstance(path, str) for path in paths):
        raise BadConversation(f"its image is {str(found)[:80]!r}: a path, or a list of paths")
    return tuple(paths)


def _said(entry: Any, number: int) -> tuple[str, str]:
    """Who said what."""
    if not isinstance(entry, Mapping) or not {"from", "value"} <= set(entry):
        raise BadConversation(f"turn {number} is {str(entry)[:80]!r}: it must be {{from, value}}")
    speaker, value = entry["from"], entry["value"]
    if not isinstance(value, str):
        raise BadConversation(f"turn {number} says {str(value)[:80]!r}: it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # as where a text was cut inside an emoji
        half = value[error.start]
        raise BadConversation(
            f"turn {number} has {half!r}, half of a character: cut it off"
        ) from error
    return speaker, value
