"""Held-out episodes to begin with: for the page, and as the prompts of a release."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Self

from absl import logging
from etils import epath

from lvm_jax import files
from lvm_jax.config import from_mapping
from lvm_jax.data.in_context.episodes import BoxMode, RowStyle
from lvm_jax.data.in_context.loader import Episode
from lvm_jax.data.in_context.pool_record import PoolRecord
from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.data.in_context.words import Box, Words
from lvm_jax.data.records.shards import Shards
from lvm_jax.errors import UserError
from lvm_jax.evaluation.in_context.scoring import PoolQuestions
from lvm_jax.inference.in_context_pictures import InContextGenerator

SHOTS = 2  # examples of an episode
EPISODES_OF_QUESTION = 6


@dataclasses.dataclass(frozen=True)
class TrainedRows:
    """What of the rows that a decoder was trained on counts for words; the keys of its configuration.

    Attributes:
      say_category, boxes: see `RowStyle`.
    """

    say_category: bool = True
    boxes: BoxMode = "text"

    @classmethod
    def read(cls, config: epath.PathLike, form: SequenceFormat) -> "TrainedRows":
        """Those that a JSON file has under "rows"; without brackets in the vocabulary words are captions alone.

        Raises:
          UserError: a value has another type.
        """
        if not form.words.has_brackets:
            return cls(say_category=False, boxes="none")
        rows = (files.read_json(config) or {}).get("rows", {})
        names = [field.name for field in dataclasses.fields(cls)]
        known = {name: rows[name] for name in names if name in rows}
        return from_mapping(cls, known, where=str(config))

    def words(self, caption: str, category: str, boxes: Sequence[Box]) -> Words:
        """What such rows say about a picture."""
        said = category if self.say_category else ""
        return Words(caption, said, tuple(boxes) if self.boxes == "text" else ())


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutEpisode:
    """A question from examples, with what is known about it.

    Attributes:
      question: masks or words.
      examples: their records.
      query: its record, which has the truth.
      rival: the same about something else in the query's picture, if the pool has that.
    """

    question: Question
    examples: tuple[PoolRecord, ...]
    query: PoolRecord
    rival: Self | None = None

    @classmethod
    def of(cls, episode: Episode) -> Self:
        """What the loader drew."""
        rival = None if episode.rival is None else cls.of(episode.rival)
        return cls(episode.pairs[-1].question, episode.examples, episode.query, rival)


def held_out_episodes(
    pools: Shards, generator: InContextGenerator, rows: TrainedRows
) -> list[HeldOutEpisode]:
    """Episodes of both questions in turn, with different classes as far as there are some."""
    shots = min(SHOTS, generator.engine.most_examples)
    style = RowStyle(shots=(*[0.0] * shots, 1.0), say_category=rows.say_category, boxes=rows.boxes)
    found = [_of_question(question, pools, generator, style) for question in Question]
    turns = itertools.zip_longest(*found)
    return [HeldOutEpisode.of(episode) for turn in turns for episode in turn if episode]


def _of_question(
    question: Question, pools: Shards, generator: InContextGenerator, style: RowStyle
) -> list[Episode]:
    """Episodes of all sources in turn and of different classes; first those whose picture shows something else too."""
    try:
        episodes = list(_drawn(question, pools, generator, style))
    except UserError as error:  # a small pool is no reason to show no page
        logging.warning("no examples of %s: %s", question.name.lower(), error)
        return []
    by_source: dict[str, dict[str, Episode]] = {}
    for episode in sorted(episodes, key=lambda episode: episode.rival is None):
        by_source.setdefault(episode.query.source, {}).setdefault(episode.query.class_name, episode)
    turns = itertools.zip_longest(*(classes.values() for classes in by_source.values()))
    return [episode for turn in turns for episode in turn if episode][:EPISODES_OF_QUESTION]


def _drawn(
    question: Question, pools: Shards, generator: InContextGenerator, style: RowStyle
) -> Iterator[Episode]:
    asked = PoolQuestions(pools, style, episodes=8 * EPISODES_OF_QUESTION, batch_size=1)
    return asked.loader_for(generator, question).episodes()
