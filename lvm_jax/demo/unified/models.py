"""Finds a decoder that answers from examples, and held-out episodes to begin with."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from absl import logging
from etils import epath

from lvm_jax import files
from lvm_jax.config import from_mapping
from lvm_jax.data.in_context.episodes import BoxMode, RowStyle
from lvm_jax.data.in_context.format_folder import has_format
from lvm_jax.data.in_context.loader import Episode, InContextEvalLoader
from lvm_jax.data.in_context.pool import PoolStore
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.demo.words import millions, origins_in_words
from lvm_jax.errors import UserError
from lvm_jax.inference.in_context_pictures import InContextGenerator

MAX_EXAMPLES = 3
SHOTS = 2  # examples of an episode to begin with
EPISODES_OF_QUESTION = 6
_MADE = ("tokenizer/model", "unified/model")  # by a run
_SPLIT = "validation"


@dataclasses.dataclass(frozen=True)
class TrainedRows:
    """What of the rows that a decoder was trained on counts for words; the keys of its configuration.

    Attributes:
      say_category, boxes: see `RowStyle`.
    """

    say_category: bool = True
    boxes: BoxMode = "text"


@dataclasses.dataclass(frozen=True)
class Found:
    """A decoder with its tokenizers, episodes to begin with, and the text of the tab's label.

    Attributes:
      generator: answers.
      rows: what words say.
      episodes: of both questions in turn; none without pools.
      model_words, data_words: the text; "" if nothing is known about the data.
    """

    generator: InContextGenerator
    rows: TrainedRows
    episodes: Sequence[Episode]
    model_words: str
    data_words: str


def find_model(workdirs: Sequence[epath.PathLike]) -> Found | None:
    """Loads the decoder of the first workdir that has one; None if none has.

    Raises:
      UserError: its folder or its pools are damaged.
    """
    run = next(filter(_is_run, map(epath.Path, workdirs)), None)
    if run is None:
        return None
    tokenizer, model = (run / made for made in _MADE)
    generator = InContextGenerator.from_pretrained(model, tokenizer)
    engine = generator.engine
    trained = (files.read_json(run / "unified/config.json") or {}).get("rows", {})
    known = {name: trained[name] for name in ("say_category", "boxes") if name in trained}
    rows = from_mapping(TrainedRows, known, where=str(run / "unified/config.json"))
    if not engine.form.words.has_brackets:
        rows = TrainedRows(say_category=False, boxes="none")
    pools = run / "pools"
    episodes, data_words = [], ""
    if pools.exists() and engine.most_examples > 0:
        episodes = list(_episodes(pools, generator, rows))
        data_words = origins_in_words(PoolStore(pools, _SPLIT).manifest)
    side, codes = generator.vqgan.config.resolution, generator.vqgan.tokens_per_image
    words = (
        f"{model}, a decoder of {millions(generator.model)} parameters that reads {engine.most_examples} examples and "
        f"a query; a picture of {side} x {side} pixels is {codes} codes"
    )
    return Found(generator, rows, episodes, words, data_words)


def _is_run(run: epath.Path) -> bool:
    tokenizer, model = (run / made for made in _MADE)
    return has_format(model) and (tokenizer / "config.json").exists()


def _episodes(
    pools: epath.Path, generator: InContextGenerator, rows: TrainedRows
) -> Iterator[Episode]:
    """Held-out episodes of both questions in turn, with different classes as far as there are some."""
    shots = min(SHOTS, generator.engine.most_examples)
    style = RowStyle(shots=(*[0.0] * shots, 1.0), say_category=rows.say_category, boxes=rows.boxes)
    found = [_of_question(question, pools, generator, style) for question in Question]
    for turn in range(EPISODES_OF_QUESTION):
        yield from (each[turn] for each in found if turn < len(each))


def _of_question(
    question: Question, pools: epath.Path, generator: InContextGenerator, style: RowStyle
) -> list[Episode]:
    """Episodes of all sources in turn and of different classes; first those whose picture shows something else too."""
    try:
        loader = InContextEvalLoader(
            pools,
            _SPLIT,
            generator.engine.form,
            style,
            question,
            1,
            limit=8 * EPISODES_OF_QUESTION,
            side="all",
            fewest=style.most_examples + 1,
            positions=generator.model.config.max_position_embeddings,
            tokenizer_fingerprint=generator.vqgan.fingerprint(),
        )
    except UserError as error:  # a small pool is no reason to show no page
        logging.warning("no examples of %s: %s", question.name.lower(), error)
        return []
    by_source: dict[str, dict[str, Episode]] = {}
    for episode in sorted(loader.episodes(), key=lambda episode: episode.rival is None):
        by_source.setdefault(episode.query.source, {}).setdefault(episode.query.class_name, episode)
    turns = itertools.zip_longest(*(classes.values() for classes in by_source.values()))
    return [episode for turn in turns for episode in turn if episode][:EPISODES_OF_QUESTION]
