"""Episodes with known answers, and the same ones with the one thing taken away that should matter.

A control keeps an episode's truth and changes what precedes it. What cannot be changed is absent: the answers of a
single example cannot be shuffled among themselves, so that it gets another episode's.

N: codes of a picture.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lvm_jax.data.in_context.sequences import Pair, Question
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


Change = Callable[[Sequence[Episode]], list[Episode]]


@dataclasses.dataclass(frozen=True)
class Control:
    """What is taken away, and from which episodes.

    Attributes:
      change: episodes -> the changed ones.
      applies: whether it says something about an episode: one without examples has none to take away.
    """

    change: Change
    applies: Callable[[Episode], bool] = lambda episode: True

    def to(self, episodes: Sequence[Episode]) -> list[bool]:
        """Which episodes it says something about."""
        return [self.applies(episode) for episode in episodes]


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
    """Each example with the answer of the next one; a single one with that of another episode's."""

    def changed(episode: Episode, other: Episode) -> Episode:
        answers = [pair.answer for pair in episode.examples]
        one = len(answers) == 1
        answers = [other.examples[0].answer] if one else answers[1:] + answers[:1]
        pairs = zip(episode.examples, answers, strict=True)
        return dataclasses.replace(
            episode,
            examples=tuple(dataclasses.replace(pair, answer=answer) for pair, answer in pairs),
        )

    return _with_another(episodes, changed)


def other_examples(episodes: Sequence[Episode]) -> list[Episode]:
    """The examples of an episode of another class."""

    def changed(episode: Episode, other: Episode) -> Episode:
        return dataclasses.replace(episode, examples=other.examples[: len(episode.examples)])

    return _with_another(episodes, changed)


def other_object(episodes: Sequence[Episode]) -> list[Episode]:
    """The examples of the rival: they mean something else in the same picture. Without a rival nothing changes."""
    return [dataclasses.replace(e, examples=e.rival.examples) if e.rival else e for e in episodes]


def other_query(episodes: Sequence[Episode]) -> list[Episode]:
    """The picture of another episode's query, and the truth of this one."""

    def changed(episode: Episode, other: Episode) -> Episode:
        query = dataclasses.replace(episode.query, picture=other.query.picture)
        return dataclasses.replace(episode, query=query)

    return _with_another(episodes, changed)


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
    """Only the first examples of each."""
    return [dataclasses.replace(e, examples=e.examples[:count]) for e in episodes]


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
        found["shuffled_answers"] = Control(shuffled_answers, _has_examples(1))
        found["other_examples"] = Control(other_examples, _has_examples(1))
    if any(episode.examples and episode.rival for episode in episodes):
        found["other_object"] = Control(other_object, _has_rival)
    for count in range(most):
        name = f"examples_{count}" if count else "no_examples"
        change = functools.partial(first_examples, count=count)
        found[name] = Control(change, _has_examples(count + 1))
    named = has_category_room or episodes[0].question is Question.CAPTIONING
    if named and all(episode.class_name for episode in episodes):
        found["class_only"] = Control(class_only)
    return found


def _has_examples(count: int) -> Callable[[Episode], bool]:
    return lambda episode: len(episode.examples) >= count


def _has_rival(episode: Episode) -> bool:
    return bool(episode.examples) and episode.rival is not None


def _with_another(
    episodes: Sequence[Episode], changed: Callable[[Episode, Episode], Episode]
) -> list[Episode]:
    """Each episode changed by the next one with at least as many examples, of another class if there is one.

    With fewer examples than its own everywhere else it stays as it is.
    """
    count = len(episodes)

    def of(number: int) -> Episode:
        own = episodes[number]
        following = [episodes[(number + step) % count] for step in range(1, count)]
        as_many = [e for e in following if len(e.examples) >= len(own.examples)]
        others = [e for e in as_many if e.class_name != own.class_name] or as_many
        return changed(own, others[0]) if others else own

    return [of(number) for number in range(count)]
