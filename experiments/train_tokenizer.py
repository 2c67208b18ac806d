r"""Trains the tokenizer on a folder of images; run again in the same workdir, it continues.

python experiments/train_tokenizer.py --config=experiments/configs/tokenizer.py:lvm-f16-8192 --workdir=DIR \
    --config.data.images=FOLDER

WORKDIR gets config.json, checkpoints/, metrics.jsonl, tensorboard/, samples/STEP.png, and at the end model/.
"""

import dataclasses
from collections.abc import Mapping

import jax
from absl import flags
from etils import epath
from ml_collections import config_flags

from lvm_jax import cli
from lvm_jax.config import from_mapping, to_dict
from lvm_jax.data.images import Crop, ImageLoader, find_images
from lvm_jax.data.splits import read_held_out, split_files
from lvm_jax.errors import UserError
from lvm_jax.evaluation.held_out_images import load_images
from lvm_jax.models.discriminator import DiscriminatorConfig
from lvm_jax.models.vqgan_config import VQGANConfig
from lvm_jax.parallel import runtime
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.tasks.tokenizer import TokenizerLoss, TokenizerTask
from lvm_jax.training.hooks import Reconstructions
from lvm_jax.training.loop import TrainConfig, train
from lvm_jax.training.optimizer import OptimizerConfig, make_optimizer

_CONFIG = config_flags.DEFINE_config_file(
    "config", "experiments/configs/tokenizer.py:lvm-f16-8192", "recipe"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run; running again there resumes it", required=True
)
_WATCHED = 64  # held-out images reconstructed at each evaluation; the first 16 are drawn


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, which of them are held out, and how often those of a sub-folder come in an epoch."""

    images: str
    held_out: str = ""
    held_out_fraction: float = 0.01
    repeats: Mapping[str, int] = dataclasses.field(default_factory=dict)
    crop: Crop = "random"
    flip: bool = True
    max_bad: int = 100


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All of a run's configuration; the critic is the discriminator's optimizer."""

    model: VQGANConfig
    discriminator: DiscriminatorConfig
    loss: TokenizerLoss
    data: DataConfig
    train: TrainConfig
    generator: OptimizerConfig
    critic: OptimizerConfig
    mesh: MeshConfig


def main() -> None:
    """Builds the task and the data, trains, and writes the model."""
    config = from_mapping(Experiment, _CONFIG.value)
    workdir = epath.Path(_WORKDIR.value)
    files, held_out = _split(config.data)
    runtime.initialize()
    batches = ImageLoader(
        files,
        config.model.resolution,
        config.train.batch_size,
        config.train.seed,
        config.data.crop,
        config.data.flip,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        max_bad=config.data.max_bad,
    )
    task = TokenizerTask(
        config.model,
        make_optimizer(config.generator),
        make_optimizer(config.critic),
        loss=config.loss,
        discriminator=config.discriminator,
    )
    spread = held_out[:: max(1, len(held_out) // _WATCHED)][:_WATCHED]
    watched = load_images(spread, config.model.resolution, max_bad=config.data.max_bad)
    print(f"{len(files):,} images an epoch, {len(held_out):,} held out")
    state = train(
        task,
        batches,
        config.train,
        mesh=make_mesh(config.mesh),
        workdir=workdir,
        evaluations=[
            Reconstructions(
                jax.jit(task.reconstruct), watched, config.model.num_embeddings, workdir
            )
        ],
        experiment=to_dict(config),
    )
    task.export(state).save_pretrained(workdir / "model")
    print(f"the tokenizer is in {workdir / 'model'}")


def _split(data: DataConfig) -> tuple[list[str], list[str]]:
    """Training files, repeats included, and held-out files."""
    if not data.images:
        raise UserError("config.data.images is empty: name a folder of images")
    listed = read_held_out(data.held_out) if data.held_out else None
    train_files, held_out = split_files(
        find_images(data.images), data.images, listed, data.held_out_fraction
    )
    unknown = [name for name in data.repeats if not (epath.Path(data.images) / name).is_dir()]
    if unknown:
        raise UserError(
            f"config.data.repeats names {unknown[0]!r}: {data.images} has no such sub-folder"
        )
    repeated = list(train_files)
    for name, times in data.repeats.items():
        below = [f for f in train_files if f.startswith(str(epath.Path(data.images) / name) + "/")]
        repeated += below * (times - 1)
    return repeated, held_out


if __name__ == "__main__":
    cli.run(main)
