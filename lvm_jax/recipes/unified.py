"""The unified recipe: a decoder learns to answer questions about pictures from examples (arXiv 2312.02520)."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

import jax
import optax
from etils import epath
from jax.sharding import Mesh

from lvm_jax.config import to_dict
from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.data.in_context.format_folder import save_format
from lvm_jax.data.in_context.loader import InContextEvalLoader, InContextLoader
from lvm_jax.data.in_context.pool import Side
from lvm_jax.data.in_context.question_order import shares_of
from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.data.in_context.words import NoText, WordsFormat
from lvm_jax.data.mixture import parse_weights
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.evaluation.held_out_loss import held_out_loss
from lvm_jax.evaluation.in_context.while_training import EvaluationConfig, make_evaluations
from lvm_jax.models.attention.attend import check_backend, choose
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.recipes.base import LossConfig, Recipe, Run
from lvm_jax.tasks.base import State
from lvm_jax.tasks.in_context import InContextTask, name_of
from lvm_jax.training.decoder_optimizer import (
    ScheduledConfig,
    learning_rate,
    make_muon,
    make_scheduled_adamw,
)
from lvm_jax.training.loop import Evaluation, Every, TrainConfig
from lvm_jax.training.task_balance import (
    TaskBalance,
    make_task_balanced_muon,
    make_task_balanced_optimizer,
)
from lvm_jax.vocabulary import Vocabulary

Asked = Literal["segmentation", "captioning"]


@dataclasses.dataclass(frozen=True)
class VocabularyConfig:
    """Sizes of `Vocabulary.unified`.

    Attributes:
      text: ids of the text tokenizer.
      image: codes of the image tokenizer.
      bins: places along an edge for the corners of boxes; 0: no boxes, and no brackets around categories.
    """

    text: int = 50_257
    image: int = 1_024
    bins: int = 1_001

    def vocabulary(self) -> Vocabulary:
        """The vocabulary."""
        return Vocabulary.unified(self.text, self.image, self.bins)


@dataclasses.dataclass(frozen=True)
class FormatConfig:
    """How pairs become rows; see `SequenceFormat`."""

    tokens_per_image: int = 256
    category_room: int = 0
    output_weight: float = 1.0
    input_weight: float = 0.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which pools, and which questions about them.

    Attributes:
      shards: a folder of pools or a glob; separate several with commas.
      text_tokenizer: folder of the text tokenizer.
      questions: to ask.
      one_question: all rows of a batch ask the same; False mixes them.
      shares: of the batches, as "segmentation=1,captioning=2" or a mapping; empty: by the square root of the number of
        records.
      classes: "seen", "unseen" or "all"; of those that the pools keep from training.
      fewest: pictures that a class must have; smaller ones are left out.
    """

    shards: str = ""
    text_tokenizer: str = ""
    questions: tuple[Asked, ...] = ("segmentation", "captioning")
    one_question: bool = True
    shares: str | dict[str, float] = ""
    classes: Side = "seen"
    fewest: int = 0

    def asked(self) -> tuple[Question, ...]:
        """The questions."""
        return tuple(Question[name.upper()] for name in self.questions)


@dataclasses.dataclass(frozen=True)
class UnifiedOptimizerConfig(ScheduledConfig):
    """Which optimizer, and whether gradients of the questions are balanced.

    Attributes:
      kind: "adamw" for all parameters; "muon" for the matrices of blocks, and AdamW for the rest.
      balance: gradients are those of one question each and enter both alike.
      weights: of the questions with `balance`, the norms of their gradients; (): 1 each.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    balance: bool = True
    weights: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's whole configuration; experiments/configs/unified.py explains every key.

    Attributes:
      model: the decoder.
      vocabulary: its ids.
      format: how pairs become rows.
      rows: what is drawn for each row.
      data: which pools and questions.
      train: how long, how large, how often.
      optimizer: AdamW, with balanced gradients or without.
      loss: how the loss is computed.
      mesh: sizes of the device mesh.
      evaluators: name -> its period in steps, 0 for never.
      evaluation: what the evaluators read.
      init_from: a model folder to start from; "": fresh weights.
      recipe: the name of this module.
    """

    model: DecoderConfig
    vocabulary: VocabularyConfig
    format: FormatConfig
    rows: RowStyle
    data: DataConfig
    train: TrainConfig
    optimizer: UnifiedOptimizerConfig
    loss: LossConfig
    mesh: MeshConfig
    evaluators: dict[str, int]
    evaluation: EvaluationConfig
    init_from: str = ""
    recipe: Literal["unified"] = "unified"


def make_task(config: Experiment) -> InContextTask:
    """The experiment's task. Without data, questions have the configured shares, or equal ones."""
    form = row_format(config, None)
    asked = config.data.asked()
    return _task(config, form, shares_of(asked, [1] * len(asked), given_shares(config.data)))


def _task(config: Experiment, form: SequenceFormat, shares: Iterable[float]) -> InContextTask:
    check(config, form)
    length = (config.rows.most_examples + 1) * form.pair_length
    return InContextTask(
        config.model,
        _optimizer(config, shares),
        seq_len=length - 1,
        questions=config.data.asked(),
        one_question=config.data.one_question,
        z_loss=config.loss.z_loss,
        loss_chunk=config.loss.chunk,
        accumulation=config.loss.accumulation,
    )


def _optimizer(config: Experiment, shares: Iterable[float]) -> optax.GradientTransformation:
    settings = config.optimizer
    if not settings.balance:
        return make_muon(settings) if settings.kind == "muon" else make_scheduled_adamw(settings)
    balance = _balance(config, shares)
    if settings.kind == "muon":
        return make_task_balanced_muon(settings, balance)
    return make_task_balanced_optimizer(settings, balance, learning_rate(settings))


def _balance(config: Experiment, shares: Iterable[float]) -> TaskBalance:
    asked = config.data.asked()
    weights = config.optimizer.weights or (1.0,) * len(asked)
    if len(weights) != len(asked):
        raise UserError(
            f"config.optimizer.weights has {len(weights)} numbers for the questions "
            f"{', '.join(config.data.questions)}: give one for each"
        )
    return TaskBalance(tuple(shares), weights)


def row_format(config: Experiment, text: TextTokenizer | None) -> SequenceFormat:
    """How pairs become rows; without a text tokenizer rows can only be measured."""
    words = WordsFormat(config.vocabulary.vocabulary(), text or NoText())
    return SequenceFormat(words, **dataclasses.asdict(config.format))


def given_shares(data: DataConfig) -> Mapping[str, float] | None:
    """The configured shares; None: by the number of records."""
    shares = parse_weights(data.shares) if isinstance(data.shares, str) else data.shares
    return shares or None


def check(config: Experiment, form: SequenceFormat) -> None:
    """Requires settings that belong together.

    Raises:
      UserError: they do not.
    """
    model, vocabulary = config.model, form.words.vocabulary
    ids = {
        "vocab_size": vocabulary.size,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    wrong = {name: id for name, id in ids.items() if vars(model)[name] != id}
    if wrong:
        name, id = next(iter(wrong.items()))
        raise UserError(
            f"config.model.{name} is {vars(model)[name]} and the vocabulary makes it {id}: give the sizes of the "
            "vocabulary in the argument, as in unified.py:quickstart,text=512,image=256,bins=65, which sets both"
        )
    _check_places(model, form)
    if config.optimizer.weights and not config.optimizer.balance:
        raise UserError(
            f"config.optimizer.weights is {config.optimizer.weights} and config.optimizer.balance False, which weighs "
            "no question: set balance=True, or weights=()"
        )
    if config.optimizer.balance and not config.data.one_question:
        raise UserError(
            "config.optimizer.balance is True and config.data.one_question False: gradients are balanced between "
            "batches of one question each; set balance=False, or one_question=True"
        )
    if "moe" in model.mlps and model.moe.dispatch == "spans":
        _check_spans(config, form)


def _check_places(model: DecoderConfig, form: SequenceFormat) -> None:
    """One place of all pairs has one vector, and an answer's token looks back at the picture's code of its place."""
    if model.place_embeddings and model.tokens_per_image != form.pair_length:
        raise UserError(
            f"config.model.tokens_per_image is {model.tokens_per_image} and a pair has {form.pair_length} tokens: set "
            "it to that"
        )
    between = form.tokens_per_image + 1
    if model.look_back not in (0, between):
        raise UserError(
            f"config.model.look_back is {model.look_back} and a picture's codes stand {between} tokens before those of "
            "its answer: set it to that, or 0"
        )


def _check_spans(config: Experiment, form: SequenceFormat) -> None:
    """Spans are decided once for all rows of a batch, so these must be alike."""
    if config.model.moe.spans != form.spans:
        raise UserError(
            f"config.model.moe.spans is {config.model.moe.spans} and pairs have {form.spans}: set it to that"
        )
    if not config.data.one_question:
        raise UserError(
            "config.model.moe.dispatch is 'spans' and config.data.one_question is False: spans need batches whose rows "
            "are alike; set one_question=True, or dispatch=all_experts and spans=()"
        )


def prepare(config: Experiment, workdir: epath.Path) -> Run:
    """Opens the pools and builds the run.

    Raises:
      UserError: no pools, no text tokenizer, or pools, model, mesh and evaluations do not fit together.
    """
    del workdir  # only the loop and the export write there
    data = config.data
    if not data.shards:
        raise UserError(
            "config.data.shards is empty: name a folder that data_pipelines.build_uvd wrote"
        )
    if not data.text_tokenizer:
        raise UserError("config.data.text_tokenizer is empty: name the folder of a text tokenizer")
    check_backend(choose(config.model.attention, config.model.dtype))
    text = TextTokenizer(data.text_tokenizer, vocab_size=config.vocabulary.text)
    form = row_format(config, text)
    batches, mesh = open_batches(config, form), make_mesh(config.mesh)
    task = _task(config, form, batches.shares)
    fingerprint = batches.manifest.tokenizer_fingerprint

    def export(state: State, folder: epath.Path) -> None:
        model = task.model(state)
        # Inference then refuses a tokenizer with other codes.
        model.tokenizer_fingerprint = fingerprint
        model.save_pretrained(folder)
        save_format(folder, form, text, data.asked())
        print(f"the decoder is in {folder}")

    _say_what_is_read(batches)
    return Run(
        task=task,
        batches=batches,
        mesh=mesh,
        evaluations=evaluations(config, task, form, mesh),
        record=to_dict(config) | {"tokenizer": fingerprint, "text_tokenizer": text.fingerprint},
        export=export,
        warm_start=(lambda state: task.load(state, config.init_from)) if config.init_from else None,
    )


def open_batches(config: Experiment, form: SequenceFormat) -> InContextLoader:
    """The training rows of this process.

    Raises:
      UserError: see `InContextLoader`.
    """
    data = config.data
    return InContextLoader(
        data.shards,
        "train",
        form,
        config.rows,
        config.train.batch_size,
        config.train.seed,
        jax.process_index(),
        jax.process_count(),
        questions=data.asked(),
        one_question=data.one_question,
        shares=given_shares(data),
        side=data.classes,
        fewest=data.fewest,
        positions=config.model.max_position_embeddings,
    )


def held_out(
    config: Experiment, form: SequenceFormat, question: Question, limit: int
) -> InContextEvalLoader:
    """The held-out rows of one question; classes with too few pictures for its examples are left out."""
    return InContextEvalLoader(
        config.data.shards,
        config.evaluation.split,
        form,
        config.rows,
        question,
        config.train.batch_size,
        jax.process_index(),
        jax.process_count(),
        limit=limit,
        side=config.data.classes,
        fewest=config.rows.most_examples + 1,
        positions=config.model.max_position_embeddings,
    )


def evaluations(
    config: Experiment, task: InContextTask, form: SequenceFormat, mesh: Mesh
) -> list[Evaluation | Every]:
    """The held-out loss of each question, and the configured evaluators."""
    placement = BatchPlacement(mesh, config.train.batch_size)
    rows = {
        question: held_out(config, form, question, config.evaluation.rows)
        for question in config.data.asked()
    }
    losses = [
        held_out_loss(task.loss, loader, placement, f"validation/{name_of(question)}")
        for question, loader in rows.items()
    ]
    made = make_evaluations(config.evaluators, config.evaluation, task, form, rows, placement)
    return [*losses, *(Every(config.evaluators[name], each) for name, each in made)]


def _say_what_is_read(batches: InContextLoader) -> None:
    for question, records, share in zip(batches.questions, batches.records, batches.shares):
        print(f"{name_of(question)}: {records:,} records, {share:.1%} of the batches")


RECIPE = Recipe(Experiment, make_task, prepare)
