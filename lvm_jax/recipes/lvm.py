"""The LVM recipe: a decoder learns visual sentences from token shards (arXiv 2312.00785, section 3.2)."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
from etils import epath
from jax.sharding import Mesh

from lvm_jax.config import to_dict
from lvm_jax.data.mixture import parse_weights
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.sentences.token_loader import EvalLoader, TokenLoader
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import check_periods
from lvm_jax.evaluation.held_out_loss import held_out_loss
from lvm_jax.evaluation.lvm.while_training import NAMES, EvaluationConfig, make_evaluations
from lvm_jax.models.attention.attend import check_backend, choose
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.recipes.base import LossConfig, Recipe, Run
from lvm_jax.tasks.base import State
from lvm_jax.tasks.code_noise import CodeNoise
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.decoder_optimizer import DecoderOptimizerConfig, make_decoder_optimizer
from lvm_jax.training.loop import Evaluation, Every, TrainConfig
from lvm_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which shards, in which shares, and how sentences become rows of seq_len + 1 tokens.

    Attributes:
      shards: a folder of shards or a glob; separate several with commas.
      seq_len: inputs of a row.
      weights: shares of the images, as "NAME=SHARE,..." or a mapping; empty reads every sentence once a pass.
      packing: "packed" keeps sentences whole and apart; "concat" is the paper's stream, cut into rows.
      question_weight: loss weight of the codes of images that are not the last of their sentence's period, such as the
        images of (image, depth) pairs.
      code_noise: share of the codes that a step reads which are replaced by random ones; labels stay.
    """

    shards: str
    seq_len: int
    weights: str | dict[str, float] = ""
    packing: Literal["packed", "concat"] = "packed"
    question_weight: float = 1.0
    code_noise: float = 0.0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's whole configuration; experiments/configs/lvm.py explains every key.

    Attributes:
      model: the decoder.
      data: what it reads.
      train: how long, how large, how often.
      optimizer: AdamW, or Muon and AdamW.
      loss: how the loss is computed.
      mesh: sizes of the device mesh.
      evaluators: name -> its period in steps, 0 for never.
      evaluation: what the evaluators read.
      init_from: a model folder to start from; "": fresh weights.
      frozen: patterns of parameters not to train, see `DecoderTask`.
      recipe: the name of this module.
    """

    model: DecoderConfig
    data: DataConfig
    train: TrainConfig
    optimizer: DecoderOptimizerConfig
    loss: LossConfig
    mesh: MeshConfig
    evaluators: dict[str, int]
    evaluation: EvaluationConfig
    init_from: str = ""
    frozen: tuple[str, ...] = ()
    recipe: Literal["lvm"] = "lvm"


def make_task(config: Experiment) -> DecoderTask:
    """The experiment's task."""
    return DecoderTask(
        config.model,
        make_decoder_optimizer(config.optimizer),
        seq_len=config.data.seq_len,
        z_loss=config.loss.z_loss,
        loss_chunk=config.loss.chunk,
        accumulation=config.loss.accumulation,
        frozen=config.frozen,
        noise=CodeNoise(
            config.data.code_noise, len(Vocabulary.lvm_of_size(config.model.vocab_size)["codes"])
        ),
    )


def prepare(config: Experiment, workdir: epath.Path) -> Run:
    """Opens the shards and builds the run.

    Raises:
      UserError: no shards, or shards, model, mesh and evaluations do not fit together.
    """
    del workdir  # only the loop and the export write there
    check_periods(config.evaluators, NAMES)
    attention = choose(config.model.attention, config.model.dtype)
    check_backend(attention)
    print(f"attention: {attention} on {jax.default_backend()}")
    batches, task, mesh = open_batches(config), make_task(config), make_mesh(config.mesh)
    fingerprint = batches.manifest.tokenizer_fingerprint

    def export(state: State, folder: epath.Path) -> None:
        model = task.model(state)
        # Inference then refuses a tokenizer with other codes.
        model.tokenizer_fingerprint = fingerprint
        model.save_pretrained(folder)
        print(f"the decoder is in {folder}")

    run = Run(
        task=task,
        batches=batches,
        mesh=mesh,
        evaluations=make_all_evaluations(config, task, batches, mesh),
        record=to_dict(config) | {"tokenizer": fingerprint},
        export=export,
        warm_start=(lambda state: task.load(state, config.init_from)) if config.init_from else None,
    )
    _say_what_is_read(config, batches)
    return run


def open_batches(config: Experiment) -> TokenLoader:
    """The training rows of this process.

    Raises:
      UserError: no shards, or their vocabulary or images are not the model's.
    """
    data = config.data
    if not data.shards:
        raise UserError(
            "config.data.shards is empty: name a folder that data_pipelines.build_uvd wrote"
        )
    batches = TokenLoader(
        data.shards,
        "train",
        data.seq_len,
        config.train.batch_size,
        config.train.seed,
        data.packing,
        jax.process_index(),
        jax.process_count(),
        weights=parse_weights(data.weights) if isinstance(data.weights, str) else data.weights,
        question_weight=data.question_weight,
    )
    _check_vocabulary(config.model, batches.manifest)
    _check_images(config.model, batches.manifest, data.packing)
    return batches


def make_all_evaluations(
    config: Experiment, task: DecoderTask, batches: TokenLoader, mesh: Mesh
) -> list[Evaluation | Every]:
    """The held-out loss, the passes over each data set so far, and the configured evaluators."""
    batch_size, shards = config.train.batch_size, config.data.shards
    process, processes = jax.process_index(), jax.process_count()
    held_out = EvalLoader(shards, "validation", config.data.seq_len, batch_size, process, processes)
    wanted = [name for name, steps in config.evaluators.items() if steps]
    made = make_evaluations(wanted, config.evaluation, shards, task.model)

    def epochs(step: int, state: State) -> Mapping[str, float]:
        del state
        return {f"epochs/{name}": count for name, count in batches.epochs(step).items()}

    return [
        held_out_loss(task.loss, held_out, BatchPlacement(mesh, batch_size)),
        epochs,
        *(
            Every(config.evaluators[name], each)
            for name, several in made.items()
            for each in several
        ),
    ]


def _say_what_is_read(config: Experiment, batches: TokenLoader) -> None:
    rows, seq_len, steps = batches.rows_per_pass, config.data.seq_len, config.train.steps
    print(f"{rows:,} rows of {seq_len} tokens a pass, {batches.fill:.1%} of them filled")
    for name, epochs in batches.epochs(steps).items():
        print(f"{name}: {epochs:.3g} epochs in {steps:,} steps")


def _check_vocabulary(model: DecoderConfig, manifest: Manifest) -> None:
    needed = Vocabulary.lvm(manifest.codebook_size).size
    if model.vocab_size != needed:
        raise UserError(
            f"config.model.vocab_size is {model.vocab_size} and the shards have {manifest.codebook_size} codes: "
            f"set --config.model.vocab_size={needed}, and bos, eos, pad to the three ids after the codes"
        )


def _check_images(model: DecoderConfig, manifest: Manifest, packing: str) -> None:
    given = {"tokens_per_image": model.tokens_per_image, "look_back": model.look_back}
    needed = manifest.tokens_per_image
    wrong = [name for name, tokens in given.items() if tokens and tokens != needed]
    if wrong:
        raise UserError(
            f"config.model.{wrong[0]} is {given[wrong[0]]} and the images of the shards have {needed} codes: set "
            + " ".join(f"--config.model.{name}={needed}" for name in wrong)
        )
    if any(given.values()) and packing == "concat":
        raise UserError(
            "config.data.packing is 'concat', whose positions run through all sentences of a row: place_embeddings, "
            "look_back and positions='rotary_2d' need positions that begin with the sentence; set it to 'packed'"
        )


RECIPE = Recipe(Experiment, make_task, prepare)
