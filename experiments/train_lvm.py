r"""Trains the decoder on token shards; run again in the same workdir, it continues.

python experiments/train_lvm.py --config=experiments/configs/lvm.py:300m --workdir=DIR --config.data.shards=SHARDS

WORKDIR gets config.json, checkpoints/, metrics.jsonl, tensorboard/, and at the end model/ (Hugging Face layout).
"""

import dataclasses
from typing import Literal

import jax
from absl import flags
from etils import epath
from ml_collections import config_flags

from lvm_jax import cli
from lvm_jax.config import from_mapping, to_dict
from lvm_jax.data.mixture import parse_weights
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.sentences.token_loader import EvalLoader, TokenLoader
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.while_training import EvaluationConfig, check_periods, make_evaluations
from lvm_jax.models.attention.attend import check_backend, choose
from lvm_jax.models.decoder.config import LlamaConfig
from lvm_jax.parallel import runtime
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchLayout
from lvm_jax.tasks.decoder import NextTokenTask
from lvm_jax.training.hooks import HeldOutLoss
from lvm_jax.training.loop import Every, TrainConfig, train
from lvm_jax.training.optimizer import OptimizerConfig, make_optimizer
from lvm_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which shards, in which shares, and how sentences become rows of seq_len + 1 tokens."""

    shards: str
    seq_len: int
    weights: str | dict[str, float] = ""
    packing: Literal["packed", "concat"] = "packed"


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """See `NextTokenTask`."""

    z_loss: float = 0.0
    chunk: int = 0
    accumulation: int = 1

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise UserError(f"config.loss.accumulation is {self.accumulation}: at least 1")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All of a run's configuration."""

    model: LlamaConfig
    data: DataConfig
    train: TrainConfig
    optimizer: OptimizerConfig
    loss: LossConfig
    mesh: MeshConfig
    evaluators: dict[str, int]
    evaluation: EvaluationConfig
    init_from: str = ""


def make_task(config: Experiment) -> NextTokenTask:
    """What a step of the experiment is."""
    return NextTokenTask(
        config.model,
        make_optimizer(config.optimizer),
        seq_len=config.data.seq_len,
        z_loss=config.loss.z_loss,
        loss_chunk=config.loss.chunk,
        accumulation=config.loss.accumulation,
    )


def main() -> None:
    """Builds the task and the data, trains, and writes the model."""
    config = from_mapping(Experiment, _CONFIG.value)
    workdir = epath.Path(_WORKDIR.value)
    if not config.data.shards:
        raise UserError(
            "config.data.shards is empty: name a folder that data_pipelines.build_uvd wrote"
        )
    check_periods(config.evaluators)
    runtime.initialize()
    attention = choose(config.model.attention, config.model.dtype)
    check_backend(attention)
    print(f"attention: {attention} on {jax.default_backend()}")
    process, processes = jax.process_index(), jax.process_count()
    batch, seq_len, weights = config.train.batch_size, config.data.seq_len, config.data.weights
    batches = TokenLoader(
        config.data.shards,
        "train",
        seq_len,
        batch,
        config.train.seed,
        config.data.packing,
        process,
        processes,
        weights=parse_weights(weights) if isinstance(weights, str) else weights,
    )
    _check_vocabulary(config.model, batches.manifest)
    held_out = EvalLoader(config.data.shards, "validation", seq_len, batch, process, processes)

    mesh = make_mesh(config.mesh)
    task = make_task(config)
    layout = BatchLayout(mesh, batch)
    evaluators = make_evaluations(
        [name for name, steps in config.evaluators.items() if steps],
        config.evaluation,
        config.data.shards,
        task.model,
    )
    print(
        f"{batches.rows_per_pass:,} rows of {seq_len} tokens a pass, {batches.fill:.1%} of them filled"
    )
    for name, epochs in batches.epochs(config.train.steps).items():
        print(f"{name}: {epochs:.3g} epochs in {config.train.steps:,} steps")
    state = train(
        task,
        batches,
        config.train,
        mesh=mesh,
        workdir=workdir,
        evaluations=[
            HeldOutLoss(task.loss, held_out, layout),
            lambda step, state: {f"epochs/{k}": n for k, n in batches.epochs(step).items()},
            *(Every(config.evaluators[n], e) for n, made in evaluators.items() for e in made),
        ],
        experiment=to_dict(config) | {"tokenizer": batches.manifest.tokenizer_fingerprint},
        warm_start=(lambda state: task.load(state, config.init_from)) if config.init_from else None,
    )
    model = task.model(state)
    model.tokenizer_fingerprint = batches.manifest.tokenizer_fingerprint
    model.save_pretrained(workdir / "model")
    print(f"the decoder is in {workdir / 'model'}")


def _check_vocabulary(model: LlamaConfig, manifest: Manifest) -> None:
    needed = Vocabulary.lvm(manifest.codebook_size).size
    if model.vocab_size != needed:
        raise UserError(
            f"config.model.vocab_size is {model.vocab_size} and the shards have {manifest.codebook_size} codes: "
            f"set --config.model.vocab_size={needed}, and bos, eos, pad to the three ids after the codes"
        )


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", "experiments/configs/lvm.py:300m", "recipe")
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "folder of the run; running again there resumes it", required=True
    )
    cli.run(main)
