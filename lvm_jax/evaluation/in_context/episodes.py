"""Episodes with known answers, and the same ones with the one thing taken away that should matter.

A control keeps an episode's truth and changes what precedes it. What cannot be changed is absent: the answers of a
single example cannot be shuffled among themselves, so that it gets another episode's.

N: codes of a picture.
"""

import dataclasses
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
        answers = answers[1:] + answers[:1] if len(answers) > 1 else [other.examples[0].answer]
        pairs = zip(episode.examples, answers, strict=True)
        return dataclasses.replace(
            episode,
            examples=tuple(dataclasses.replace(pair, answer=answer) for pair, answer in pairs),
        )

    return _with_another(episodes, changed)


def other_examples(episodes: Sequence[Episode]) -> list[Episode]:
    """The examples of an episode of another class."""
    return _with_another(
        episodes, lambda episode, other: dataclasses.replace(episode, examples=other.examples)
    )


def other_object(episodes: Sequence[Episode]) -> list[Episode]:
    """The examples of the rival: they mean something else in the same picture."""
    return [dataclasses.replace(e, examples=e.rival.examples) if e.rival else e for e in episodes]


def other_query(episodes: Sequence[Episode]) -> list[Episode]:
    """The picture of another episode's query, and the truth of this one."""

    def changed(episode: Episode, other: Episode) -> Episode:
        query = dataclasses.replace(episode.query, picture=other.query.picture)
        return dataclasses.replace(episode, query=query)

    return _with_another(episodes, changed)


def no_examples(episodes: Sequence[Episode]) -> list[Episode]:
    """The query alone."""
    return first_examples(episodes, 0)


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


def controls_of(episodes: Sequence[Episode], has_category_room: bool) -> Mapping[str, Change]:
    """The controls that can be made of some episodes, by name.

    Args:
      episodes: of one question.
      has_category_room: whether the rows have room for a class before a pair. Words can always begin with one.
    """
    fewest = min(len(episode.examples) for episode in episodes)
    found: dict[str, Change] = {}
    if len(episodes) > 1:
        found["other_query"] = other_query
    if fewest and len(episodes) > 1:
        found |= {"shuffled_answers": shuffled_answers, "other_examples": other_examples}
    if fewest and all(episode.rival for episode in episodes):
        found["other_object"] = other_object
    if fewest:
        found["no_examples"] = no_examples
    for count in range(1, fewest):
        found[f"examples_{count}"] = lambda some, count=count: first_examples(some, count)
    named = has_category_room or episodes[0].question is Question.CAPTIONING
    if named and all(episode.class_name for episode in episodes):
        found["class_only"] = class_only
    return found


def _with_another(
    episodes: Sequence[Episode], changed: Callable[[Episode, Episode], Episode]
) -> list[Episode]:
    """Each episode changed by the next of another class, or by the next one where all are of one."""
    count = len(episodes)

    def another(number: int) -> Episode:
        following = [episodes[(number + step) % count] for step in range(1, count)]
        classes = [e for e in following if e.class_name != episodes[number].class_name]
        return (classes or following)[0]

    return [changed(episode, another(number)) for number, episode in enumerate(episodes)]
