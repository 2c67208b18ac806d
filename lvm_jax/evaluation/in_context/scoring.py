"""Scores a finished decoder on the episodes of pools."""

import dataclasses
from collections.abc import Sequence

import jax
import optax
from etils import epath
from flax import nnx

from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.data.in_context.loader import InContextEvalLoader
from lvm_jax.data.in_context.pool import Side
from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.data.records.shards import Shards
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.in_context.answers import MaskEvaluator, WordsEvaluator
from lvm_jax.evaluation.in_context.episodes import Episode
from lvm_jax.evaluation.in_context.gradients import QuestionGradients
from lvm_jax.evaluation.in_context.losses import LossControls
from lvm_jax.evaluation.in_context.scores import WordSets
from lvm_jax.evaluation.in_context.shown import show_masks, show_words
from lvm_jax.evaluation.in_context.while_training import episodes_of
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.in_context import InContextTask, name_of


@dataclasses.dataclass(frozen=True)
class PoolQuestions:
    """Which episodes to ask; classes with too few pictures for the examples are left out.

    Attributes:
      shards: of pools, written with the decoder's image tokenizer.
      style: how many examples there are and what they show.
      questions: to ask.
      split: of the pools.
      classes: "seen", "unseen" or "all".
      episodes: of each question; 0: all.
      sets: of words that captions are compared by.
      batch_size: prompts at once.
    """

    shards: Shards
    style: RowStyle
    questions: tuple[Question, ...] = tuple(Question)
    split: str = "validation"
    classes: Side = "all"
    episodes: int = 64
    sets: WordSets = dataclasses.field(default_factory=dict)
    batch_size: int = 8

    def loader(
        self,
        question: Question,
        form: SequenceFormat,
        tokenizer_fingerprint: str,
        positions: int = 0,
    ) -> InContextEvalLoader:
        """The rows and episodes of one question; arguments and errors as in `InContextLoader`."""
        return InContextEvalLoader(
            self.shards,
            self.split,
            form,
            self.style,
            question,
            self.batch_size,
            limit=self.episodes,
            side=self.classes,
            fewest=self.style.most_examples + 1,
            positions=positions,
            tokenizer_fingerprint=tokenizer_fingerprint,
        )

    def loader_for(self, generator: InContextGenerator, question: Question) -> InContextEvalLoader:
        """The same, as a decoder reads them."""
        engine, fingerprint = generator.engine, generator.vqgan.fingerprint()
        return self.loader(
            question, engine.form, fingerprint, engine.config.max_position_embeddings
        )


def score(
    generator: InContextGenerator, asked: PoolQuestions, folder: epath.PathLike | None = None
) -> dict[str, Result]:
    """Drawn answers, losses of the true ones, and how the questions' gradients agree.

    Args:
      generator: the decoder with its tokenizers.
      asked: the episodes.
      folder: gets a good, a middling and a bad answer to each question; None: none are drawn.

    Returns:
      "segmentation", "segmentation_controls", and the same for captioning; "gradients" if both are asked.

    Raises:
      UserError: the pools are of another tokenizer or have no such episodes.
    """
    loaders = {question: asked.loader_for(generator, question) for question in asked.questions}
    episodes = {question: episodes_of(loader) for question, loader in loaders.items()}
    results: dict[str, Result] = {}
    for question, some in episodes.items():
        answered = _masks if question is Question.SEGMENTATION else _words
        results[name_of(question)] = answered(generator, asked, some, folder)
    # Losses need no mesh: they are computed on this process's first device.
    placement = BatchPlacement(make_mesh(devices=jax.devices()[:1]), asked.batch_size)
    form, room = generator.engine.form, asked.style.most_examples + 1
    config, params = generator.engine.config, nnx.state(generator.model, nnx.Param)
    task = InContextTask(config, optax.identity(), seq_len=room * form.pair_length - 1)
    for question, some in episodes.items():
        controls = LossControls(task.loss, some, form, room, placement)
        results[f"{name_of(question)}_controls"] = controls.run(params)
    if len(loaders) > 1:
        batches = {name_of(q): placement.put(next(iter(rows))) for q, rows in loaders.items()}
        gradients = QuestionGradients(task.loss, batches, len(config.mlps))
        results[gradients.name] = gradients.run(params)
    return results


def _masks(
    generator: InContextGenerator,
    asked: PoolQuestions,
    episodes: Sequence[Episode],
    folder: epath.PathLike | None,
) -> Result:
    evaluator = MaskEvaluator(episodes, batch_size=asked.batch_size)
    drawn = evaluator.answer(generator)
    shown = show_masks(episodes, drawn, generator.vqgan, folder) if folder else {}
    return evaluator.score(drawn) | shown


def _words(
    generator: InContextGenerator,
    asked: PoolQuestions,
    episodes: Sequence[Episode],
    folder: epath.PathLike | None,
) -> Result:
    evaluator = WordsEvaluator(episodes, sets=asked.sets, batch_size=asked.batch_size)
    said = evaluator.answer(generator)
    shown = show_words(episodes, said, asked.sets, generator.vqgan, folder) if folder else {}
    return evaluator.score(said) | shown
