"""What the unified system is compared with: MAE-VQGAN or SegGPT on the same pools (arXiv 2312.02520, Table 4)."""

import dataclasses
from typing import Literal

import jax
from etils import epath
from jax.sharding import Mesh

from lvm_jax.config import to_dict
from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.data.in_context.loader import InContextEvalLoader, InContextLoader
from lvm_jax.data.in_context.pool import Side
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import WhileTraining
from lvm_jax.evaluation.held_out_loss import held_out_loss
from lvm_jax.evaluation.in_context.answers import MaskEvaluator
from lvm_jax.evaluation.in_context.while_training import episodes_of
from lvm_jax.inference.canvas_answers import MaeVqganAnswerer, SegGptAnswerer
from lvm_jax.models.attention.attend import check_backend, choose
from lvm_jax.models.canvas.mae_vqgan_config import MaeVqganConfig
from lvm_jax.models.canvas.seggpt_config import SegGptConfig
from lvm_jax.models.presets import vqgan as vqgan_preset
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.recipes.base import Recipe, Run
from lvm_jax.tasks.base import State
from lvm_jax.tasks.canvas import Hiding
from lvm_jax.tasks.mae_vqgan import MaeVqganTask
from lvm_jax.tasks.seggpt import SegGptTask
from lvm_jax.training.decoder_optimizer import DecoderOptimizerConfig, make_decoder_optimizer
from lvm_jax.training.loop import Evaluation, Every, TrainConfig

_STYLE = RowStyle(shots=(0.0, 1.0))  # an example and a query


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which pools, and the tokenizer that wrote them.

    Attributes:
      shards: a folder of pools or a glob; separate several with commas.
      tokenizer: folder of the image tokenizer, which decodes the pools' codes.
      tokenizer_preset: its shape by name, read where no folder is named: to compile a step.
      classes: "seen", "unseen" or "all"; of those that the pools keep from training.
      fewest: pictures that a class must have; smaller ones are left out.
    """

    shards: str = ""
    tokenizer: str = ""
    tokenizer_preset: str = "taming-f16-1024"
    classes: Side = "seen"
    fewest: int = 0


@dataclasses.dataclass(frozen=True)
class HidingConfig:
    """What training hides; see `CanvasTask`."""

    what: Hiding = "answer"
    share: float = 0.75


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate while training.

    Attributes:
      split: of the pools.
      rows: for the held-out loss; 0: all.
      episodes: whose answers are drawn.
      answers: period of the drawn answers beside baselines and controls, in steps; 0: never.
    """

    split: str = "validation"
    rows: int = 256
    episodes: int = 64
    answers: int = 0

    def __post_init__(self) -> None:
        if self.rows < 0 or self.episodes < 1 or self.answers < 0:
            raise UserError(
                f"config.evaluation has rows={self.rows}, episodes={self.episodes}, answers={self.answers}: rows and "
                "answers are at least 0, episodes at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's whole configuration; experiments/configs/in_context_peers.py explains every key.

    Attributes:
      kind: which network.
      mae_vqgan: read with kind="mae_vqgan".
      seggpt: read with kind="seggpt".
      hiding: what training hides.
      data: which pools.
      train: how long, how large, how often.
      optimizer: AdamW or Muon.
      mesh: sizes of the device mesh.
      evaluation: what to measure.
      recipe: the name of this module.
    """

    kind: Literal["mae_vqgan", "seggpt"]
    mae_vqgan: MaeVqganConfig
    seggpt: SegGptConfig
    hiding: HidingConfig
    data: DataConfig
    train: TrainConfig
    optimizer: DecoderOptimizerConfig
    mesh: MeshConfig
    evaluation: EvaluationConfig
    recipe: Literal["in_context_peers"] = "in_context_peers"


PeerTask = MaeVqganTask | SegGptTask


def make_task(config: Experiment) -> PeerTask:
    """The experiment's task, with the preset's tokenizer in place of its weights."""
    return _task(config, VQGAN.abstract(vqgan_preset(config.data.tokenizer_preset)))


def _task(config: Experiment, vqgan: VQGAN) -> PeerTask:
    tx, hiding = make_decoder_optimizer(config.optimizer), config.hiding
    options = {"hiding": hiding.what, "share": hiding.share}
    if config.kind == "mae_vqgan":
        return MaeVqganTask(config.mae_vqgan, vqgan, tx, **options)
    return SegGptTask(config.seggpt, vqgan, tx, **options)


def prepare(config: Experiment, workdir: epath.Path) -> Run:
    """Opens the pools and builds the run.

    Raises:
      UserError: no pools, no tokenizer, or pools, tokenizer, network and mesh do not fit together.
    """
    del workdir  # only the loop and the export write there
    data = config.data
    if not data.shards:
        raise UserError(
            "config.data.shards is empty: name a folder that data_pipelines.build_uvd wrote"
        )
    if not data.tokenizer:
        raise UserError("config.data.tokenizer is empty: name the folder of the pools' tokenizer")
    vqgan = VQGAN.from_pretrained(data.tokenizer)
    task = _task(config, vqgan)
    check_backend(choose(task.config.attention, task.config.dtype))
    batches, mesh = _batches(config, task, vqgan), make_mesh(config.mesh)
    print(f"segmentation: {batches.records[0]:,} records")

    def export(state: State, folder: epath.Path) -> None:
        model = task.model(state)
        if config.kind == "mae_vqgan":
            # Inference then refuses a tokenizer with other codes.
            model.tokenizer_fingerprint = vqgan.fingerprint()
        model.save_pretrained(folder)
        print(f"the network is in {folder}")

    return Run(
        task=task,
        batches=batches,
        mesh=mesh,
        evaluations=_evaluations(config, task, vqgan, mesh),
        record=to_dict(config) | {"tokenizer": vqgan.fingerprint()},
        export=export,
    )


def _batches(config: Experiment, task: PeerTask, vqgan: VQGAN) -> InContextLoader:
    data = config.data
    return InContextLoader(
        data.shards,
        "train",
        task.form,
        _STYLE,
        config.train.batch_size,
        config.train.seed,
        jax.process_index(),
        jax.process_count(),
        questions=(Question.SEGMENTATION,),
        side=data.classes,
        fewest=data.fewest,
        tokenizer_fingerprint=vqgan.fingerprint(),
    )


def _evaluations(
    config: Experiment, task: PeerTask, vqgan: VQGAN, mesh: Mesh
) -> list[Evaluation | Every]:
    """The held-out loss of answers and, if they have a period, drawn answers."""
    settings = config.evaluation
    rows = InContextEvalLoader(
        config.data.shards,
        settings.split,
        task.form,
        _STYLE,
        Question.SEGMENTATION,
        config.train.batch_size,
        jax.process_index(),
        jax.process_count(),
        limit=settings.rows,
        side=config.data.classes,
        fewest=_STYLE.most_examples + 1,
    )
    placement = BatchPlacement(mesh, config.train.batch_size)
    found: list[Evaluation | Every] = [
        held_out_loss(task.loss, rows, placement, "validation/segmentation")
    ]
    if settings.answers:
        evaluator = MaskEvaluator(episodes_of(rows, settings.episodes))

        def answerer(state: State) -> MaeVqganAnswerer | SegGptAnswerer:
            model = task.model(state)
            made = MaeVqganAnswerer if config.kind == "mae_vqgan" else SegGptAnswerer
            return made(model, vqgan)

        answers = WhileTraining("answers/segmentation", evaluator, answerer)
        found.append(Every(settings.answers, answers))
    return found


RECIPE = Recipe(Experiment, make_task, prepare)
