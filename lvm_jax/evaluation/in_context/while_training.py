"""The evaluators that run while a decoder learns to answer from examples, each with its own period.

| name | measures |
|---|---|
| `controls` | what examples and query are worth to the true answer, in nats a token |
| `gradients` | norms of the questions' gradients and the cosine between them, in all and by block |
| `answers` | drawn answers beside baselines and controls; needs the image tokenizer |
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lvm_jax.data.in_context.loader import Episode as LoadedEpisode
from lvm_jax.data.in_context.loader import InContextEvalLoader
from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Evaluator, WhileTraining, check_periods
from lvm_jax.evaluation.in_context.answers import MaskEvaluator, WordsEvaluator
from lvm_jax.evaluation.in_context.episodes import Episode
from lvm_jax.evaluation.in_context.gradients import QuestionGradients
from lvm_jax.evaluation.in_context.losses import LossControls
from lvm_jax.evaluation.in_context.scores import WordSets
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.in_context import InContextTask, name_of

NAMES = ("controls", "gradients", "answers")
_ROOM_FOR_ANSWERS = 8  # prompts answered at once


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate while a decoder trains.

    Attributes:
      split: of the pools.
      rows: of each question for the held-out loss; 0: all.
      episodes: of each question for `controls` and `answers`.
      tokenizer: folder of the VQGAN; only `answers` needs it.
      word_sets: by which captions are compared, "colour=red blue,side=left right"; "": by category and boxes only.
    """

    split: str = "validation"
    rows: int = 256
    episodes: int = 64
    tokenizer: str = ""
    word_sets: str = ""

    def __post_init__(self) -> None:
        if self.rows < 0 or self.episodes < 2:
            raise UserError(
                f"config.evaluation has rows={self.rows}, episodes={self.episodes}: rows is at least 0, and controls "
                "need at least 2 episodes"
            )


def parse_word_sets(text: str) -> WordSets:
    """The sets of "colour=red blue,side=left right".

    Raises:
      UserError: an entry without a name or without words.
    """
    found: dict[str, frozenset[str]] = {}
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        name, _, words = entry.partition("=")
        if not name.strip() or not words.split():
            raise UserError(f"word_sets has the entry {entry!r}: write NAME=WORD WORD ...")
        found[name.strip()] = frozenset(words.lower().split())
    return found


def episodes_of(loader: InContextEvalLoader, limit: int = 0) -> list[Episode]:
    """The episodes of a held-out split, at most `limit` of them; 0: all."""
    found = []
    for drawn in loader.episodes():
        found.append(_episode(drawn))
        if len(found) == limit:
            break
    return found


def _episode(drawn: LoadedEpisode) -> Episode:
    *examples, query = drawn.pairs
    rival = _episode(drawn.rival) if drawn.rival else None
    return Episode(tuple(examples), query, drawn.query.class_name, drawn.query.key, rival)


def make_evaluations(
    periods: Mapping[str, int],
    config: EvaluationConfig,
    task: InContextTask,
    form: SequenceFormat,
    rows: Mapping[Question, InContextEvalLoader],
    placement: BatchPlacement,
) -> list[tuple[str, WhileTraining[Any]]]:
    """The wanted evaluators with their names, for the training loop.

    Args:
      periods: evaluator -> its period, 0 for never.
      config: what they read.
      task: gives the loss and the model.
      form: of the rows.
      rows: question -> its held-out rows.
      placement: the mesh and the batch.

    Raises:
      UserError: an unknown name, a negative period, or `answers` without a tokenizer.
    """
    check_periods(periods, NAMES)
    wanted = [name for name in NAMES if periods.get(name)]
    found: list[tuple[str, WhileTraining[Any]]] = []
    if "gradients" in wanted:
        batches = {
            name_of(question): placement.put(next(iter(loader)))
            for question, loader in rows.items()
        }
        gradients = QuestionGradients(task.loss, batches, len(task.config.mlps))
        found.append(("gradients", _of_params("gradients", gradients)))
    if not {"controls", "answers"} & set(wanted):
        return found
    episodes = {question: episodes_of(loader, config.episodes) for question, loader in rows.items()}
    if "controls" in wanted:
        room = (task.seq_len + 1) // form.pair_length
        for question, some in episodes.items():
            controls = LossControls(task.loss, some, form, room, placement)
            found.append(("controls", _of_params(f"controls/{name_of(question)}", controls)))
    if "answers" in wanted:
        found += [("answers", each) for each in _answers(config, task, form, episodes)]
    return found


def _answers(
    config: EvaluationConfig,
    task: InContextTask,
    form: SequenceFormat,
    episodes: Mapping[Question, list[Episode]],
) -> list[WhileTraining[InContextGenerator]]:
    if not config.tokenizer:
        raise UserError(
            "config.evaluators.answers is on and config.evaluation.tokenizer empty: name the folder of the VQGAN"
        )
    vqgan, sets = VQGAN.from_pretrained(config.tokenizer), parse_word_sets(config.word_sets)

    def evaluator(question: Question) -> Evaluator[InContextGenerator]:
        if question is Question.SEGMENTATION:
            return MaskEvaluator(episodes[question], batch_size=_ROOM_FOR_ANSWERS)
        return WordsEvaluator(episodes[question], sets=sets, batch_size=_ROOM_FOR_ANSWERS)

    return [
        WhileTraining(
            f"answers/{name_of(question)}",
            evaluator(question),
            lambda state: InContextGenerator(task.model(state), vqgan, form),
        )
        for question in episodes
    ]


def _of_params(prefix: str, evaluator: Evaluator[Any]) -> WhileTraining[Any]:
    return WhileTraining(prefix, evaluator, lambda state: state["params"])
