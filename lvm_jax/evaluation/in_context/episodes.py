"""Episodes with known answers, and the same ones with the one thing taken away that should matter.

A control keeps an episode's truth and changes what precedes it. What cannot be changed is absent: the answers of a
single example cannot be shuffled among themselves, so that it gets another episode's.

N: codes of a picture.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from lvm_jax.data.in_context.sequences import Pair, Question
from lvm_jax.data.in_context.words import Words
from lvm_jax.errors import UserError
from lvm_jax.inference.in_context import InContextPrompt


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """A question with its answer.

    Attributes:
      examples: pairs of one class.
      query: its answer is the truth.
      class_name: of what is meant; "" if nobody knows.
      key: where it came from.
      rival: the same picture, asked about something else in it by examples of that; None if there is nothing known.
    """

    examples: tuple[Pair, ...]
    query: Pair
    class_name: str = ""
    key: str = ""
    rival: "Episode | None" = None

    @property
    def question(self) -> Question:
        """What is asked."""
        return self.query.question

    @property
    def prompt(self) -> InContextPrompt:
        """The episode without its answer."""
        return InContextPrompt(
            self.examples, self.query.picture, self.question, self.query.category
        )


Answer = Int[np.ndarray, " N"] | Words  # of a pair
Change = Callable[[Sequence[Episode]], list[Episode]]


@dataclasses.dataclass(frozen=True)
class Control:
    """What is taken away, and from which episodes.

    Attributes:
      change: episodes -> the changed ones. One with nothing to take away, such as an example, stays the same object.
    """

    change: Change

    def to(self, episodes: Sequence[Episode]) -> list[bool]:
        """Which episodes it says something about: those that it changes."""
        changed = zip(episodes, self.change(episodes), strict=True)
        return [other is not episode for episode, other in changed]


def check_episodes(episodes: Sequence[Episode], question: Question) -> None:
    """Requires episodes of a question, whose queries are not among their examples.

    Raises:
      UserError: none, or one of another question or with its query among its examples.
    """
    if not episodes:
        raise UserError(
            f"0 episodes of {question.name.lower()}: the pools give none; check split and classes"
        )
    for episode in episodes:
        if {pair.question for pair in (*episode.examples, episode.query)} != {question}:
            raise UserError(f"episode {episode.key!r} does not ask for {question.name.lower()}")
        for pair in episode.examples:
            if np.array_equal(pair.picture, episode.query.picture):
                raise UserError(
                    f"episode {episode.key!r} has its query among its examples: its answer would be given; take "
                    "another example"
                )


def shuffled_answers(episodes: Sequence[Episode]) -> list[Episode]:
    """Each example with the answer of the next one; a single one with that of another episode's.

    Examples whose answers are all the same stay as they are.
    """

    def changed(episode: Episode, others: Iterator[Episode]) -> Episode | None:
        own = [pair.answer for pair in episode.examples]
        answers = own[1:] + own[:1]
        if len(own) == 1:
            answers = [other.examples[0].answer for other in others if other.examples][:1]
        if all(map(_equal, own, answers)):
            return None
        pairs = zip(episode.examples, answers, strict=True)
        return dataclasses.replace(
            episode,
            examples=tuple(dataclasses.replace(pair, answer=answer) for pair, answer in pairs),
        )

    return _with_others(episodes, changed)


def other_examples(episodes: Sequence[Episode]) -> list[Episode]:
    """The examples of an episode of another class, as many."""

    def changed(episode: Episode, others: Iterator[Episode]) -> Episode | None:
        count = len(episode.examples)
        fitting = (other.examples[:count] for other in others if len(other.examples) >= count)
        examples = next(fitting, None)
        return dataclasses.replace(episode, examples=examples) if examples else None

    return _with_others(episodes, changed)


def other_object(episodes: Sequence[Episode]) -> list[Episode]:
    """The examples of the rival: they mean something else in the same picture. Without a rival nothing changes."""
    return [
        dataclasses.replace(e, examples=e.rival.examples) if e.rival and e.examples else e
        for e in episodes
    ]


def other_query(episodes: Sequence[Episode]) -> list[Episode]:
    """The picture of another episode's query, one that differs, and the truth of this one."""

    def changed(episode: Episode, others: Iterator[Episode]) -> Episode | None:
        own = episode.query.picture
        pictures = (other.query.picture for other in others)
        picture = next((each for each in pictures if not np.array_equal(each, own)), None)
        if picture is None:
            return None
        return dataclasses.replace(
            episode, query=dataclasses.replace(episode.query, picture=picture)
        )

    return _with_others(episodes, changed)


def class_only(episodes: Sequence[Episode]) -> list[Episode]:
    """The query alone, with the name of its class."""
    return [
        dataclasses.replace(
            episode,
            examples=(),
            query=dataclasses.replace(episode.query, category=episode.class_name),
        )
        for episode in episodes
    ]


def first_examples(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """Only the first examples of each; one with no more than that stays as it is."""
    return [
        dataclasses.replace(e, examples=e.examples[:count]) if len(e.examples) > count else e
        for e in episodes
    ]


def controls_of(episodes: Sequence[Episode], has_category_room: bool) -> Mapping[str, Control]:
    """The controls that can be made of some episodes, by name.

    Args:
      episodes: of one question.
      has_category_room: whether the rows have room for a class before a pair. Words can always begin with one.
    """
    most = max(len(episode.examples) for episode in episodes)
    found: dict[str, Control] = {}
    if len(episodes) > 1:
        found["other_query"] = Control(other_query)
    if most and len(episodes) > 1:
        found["shuffled_answers"] = Control(shuffled_answers)
        found["other_examples"] = Control(other_examples)
    if any(episode.examples and episode.rival for episode in episodes):
        found["other_object"] = Control(other_object)
    for count in range(most):
        name = f"examples_{count}" if count else "no_examples"
        found[name] = Control(functools.partial(first_examples, count=count))
    named = has_category_room or episodes[0].question is Question.CAPTIONING
    if named and all(episode.class_name for episode in episodes):
        found["class_only"] = Control(class_only)
    return found


def _equal(one: Answer, other: Answer) -> bool:
    if isinstance(one, Words) or isinstance(other, Words):
        return bool(one == other)
    return np.array_equal(one, other)


def _with_others(
    episodes: Sequence[Episode],
    changed: Callable[[Episode, Iterator[Episode]], Episode | None],
) -> list[Episode]:
    """Each episode changed by the others: those of another class first, and each time from the next one on.

    Where `changed` gives None, an episode stays as it is.
    """

    def of(number: int) -> Episode:
        own = episodes[number]
        following = [*episodes[number + 1 :], *episodes[:number]]
        unlike = (other for other in following if other.class_name != own.class_name)
        alike = (other for other in following if other.class_name == own.class_name)
        return changed(own, itertools.chain(unlike, alike)) or own

    return [of(number) for number in range(len(episodes))]
