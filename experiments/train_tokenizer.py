r"""Trains the tokenizer on images; run again in the same workdir, it continues.

python experiments/train_tokenizer.py --config=experiments/configs/tokenizer.py:lvm-f16-8192 --workdir=DIR \
    --config.data.images=FOLDER

IMAGES may also be tars ("train-*.tar"), TFRecords ("train.tfrecord-*") or a TFDS dataset ("tfds://NAME:SPLIT").
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
from lvm_jax.data.images.held_out_images import load_images
from lvm_jax.data.images.loader import FileImages, ImageLoader
from lvm_jax.data.images.sources import Subset, open_images, split_source
from lvm_jax.data.splits import read_held_out, spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation.tokenizer.while_training import Reconstructions
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.parallel import runtime
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.pictures.resize import Crop
from lvm_jax.tasks.tokenizer import TokenizerLoss, TokenizerStep, TokenizerTask
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
    feature: str = ""
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
    step: TokenizerStep
    data: DataConfig
    train: TrainConfig
    generator: OptimizerConfig
    critic: OptimizerConfig
    mesh: MeshConfig


def main() -> None:
    """Builds the task and the data, trains, and writes the model."""
    config = from_mapping(Experiment, _CONFIG.value)
    workdir = epath.Path(_WORKDIR.value)
    images, held_out = _split(config.data)
    runtime.initialize()
    batches = ImageLoader(
        images,
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
        how=config.step,
    )
    count = len(held_out.names)
    chosen = Subset(held_out, spread(count, _WATCHED))
    watched = load_images(chosen, config.model.resolution, max_bad=config.data.max_bad)
    print(f"{len(images.names):,} images an epoch, {count:,} held out")
    state = train(
        task,
        batches,
        config.train,
        mesh=make_mesh(config.mesh),
        workdir=workdir,
        evaluations=[Reconstructions(task.export, watched, workdir)],
        experiment=to_dict(config),
    )
    task.export(state).save_pretrained(workdir / "model")
    print(f"the tokenizer is in {workdir / 'model'}")


def _split(data: DataConfig) -> tuple[Subset, Subset]:
    """Images for training, repeats included, and held-out ones."""
    if not data.images:
        raise UserError("config.data.images is empty: name a folder of images")
    listed = read_held_out(data.held_out) if data.held_out else None
    source = open_images(data.images, data.feature)
    images, held_out = split_source(source, data.images, listed, data.held_out_fraction)
    if data.repeats and not isinstance(source, FileImages):
        raise UserError(f"config.data.repeats names sub-folders: {data.images} is no folder")
    unknown = [name for name in data.repeats if not (epath.Path(data.images) / name).is_dir()]
    if unknown:
        raise UserError(
            f"config.data.repeats names {unknown[0]!r}: {data.images} has no such sub-folder"
        )
    order = list(range(len(images.names)))
    for name, times in data.repeats.items():
        folder = str(epath.Path(data.images) / name) + "/"
        below = [i for i, file in enumerate(images.names) if file.startswith(folder)]
        order += below * (times - 1)
    return Subset(images, order), held_out


if __name__ == "__main__":
    cli.run(main)
