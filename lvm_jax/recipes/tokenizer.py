"""The tokenizer recipe: a VQGAN learns images against a discriminator (arXiv 2012.09841, section 3.1)."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx

from lvm_jax.config import to_dict
from lvm_jax.data.images.held_out_images import load_images
from lvm_jax.data.images.loader import FileImages, ImageLoader, Images
from lvm_jax.data.images.sources import Subset, open_images, split_source
from lvm_jax.data.splits import read_held_out, spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation.tokenizer.while_training import Reconstructions
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.models.tokenizer.kmeans import kmeans
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.pictures.pixels import to_float
from lvm_jax.pictures.resize import Crop
from lvm_jax.recipes.base import Recipe, Run
from lvm_jax.tasks.base import State
from lvm_jax.tasks.tokenizer import (
    CausalPriorConfig,
    TokenizerLoss,
    TokenizerStep,
    TokenizerTask,
)
from lvm_jax.tasks.upkeep import flat
from lvm_jax.training.loop import TrainConfig
from lvm_jax.training.optimizer import OptimizerConfig, make_optimizer

_KMEANS_BATCH = 64  # images whose features are computed together
_WATCHED = 64  # held-out images reconstructed at each evaluation; the first 16 are drawn


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, which of them are held out, and how often a pass repeats those of a sub-folder.

    Attributes:
      images: a folder, tars, TFRecords or a TFDS dataset, see `lvm_jax.data.images.sources`.
      feature: which images to take, if an item of tars, TFRecords or TFDS has several.
      held_out: a file of held-out paths, one a line; "": `held_out_fraction` of the images, by hash.
      held_out_fraction: in (0, 1).
      repeats: sub-folder -> how often a pass shows each of its images.
      crop: how an image becomes a square.
      flip: mirror every other image.
      max_bad: how many undecodable images to skip before the run stops.
    """

    images: str
    feature: str = ""
    held_out: str = ""
    held_out_fraction: float = 0.01
    repeats: Mapping[str, int] = dataclasses.field(default_factory=dict)
    crop: Crop = "random"
    flip: bool = True
    max_bad: int = 100


@dataclasses.dataclass(frozen=True)
class KMeansConfig:
    """Whether a fresh codebook starts from k-means over the features of training images.

    Attributes:
      images: to take features from, rounded up to whole batches of 64; 0: the codebook starts at random.
      iterations: of Lloyd's algorithm.
    """

    images: int = 0
    iterations: int = 20

    def __post_init__(self) -> None:
        if self.images < 0 or self.iterations < 1:
            raise UserError(
                f"config.kmeans has images={self.images}, iterations={self.iterations}: images must not be negative, "
                "iterations must be at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's whole configuration; experiments/configs/tokenizer.py explains every key.

    Attributes:
      model: the tokenizer.
      discriminator: what it is trained against.
      loss: what the task minimises.
      step: how a step is computed, and what the state keeps beside the weights.
      data: the images.
      train: how long, how large, how often.
      generator: the tokenizer's optimizer.
      critic: the discriminator's optimizer.
      mesh: sizes of the device mesh.
      kmeans: how a fresh codebook starts.
      prior: what foretells codes, if the loss has a `causal_weight`.
      recipe: the name of this module.
    """

    model: VQGANConfig
    discriminator: DiscriminatorConfig
    loss: TokenizerLoss
    step: TokenizerStep
    data: DataConfig
    train: TrainConfig
    generator: OptimizerConfig
    critic: OptimizerConfig
    mesh: MeshConfig
    kmeans: KMeansConfig = dataclasses.field(default_factory=KMeansConfig)
    prior: CausalPriorConfig = dataclasses.field(default_factory=CausalPriorConfig)
    recipe: Literal["tokenizer"] = "tokenizer"


def make_task(config: Experiment) -> TokenizerTask:
    """The experiment's task."""
    return TokenizerTask(
        config.model,
        make_optimizer(config.generator),
        make_optimizer(config.critic),
        loss=config.loss,
        discriminator=config.discriminator,
        how=config.step,
        prior=config.prior,
    )


def prepare(config: Experiment, workdir: epath.Path) -> Run:
    """Lists the images and builds the run.

    Raises:
      UserError: no images, or they cannot be split or read.
    """
    images, held_out = open_split(config.data)
    task = make_task(config)
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
    shown = Subset(held_out, spread(len(held_out.names), _WATCHED))
    watched = load_images(shown, config.model.resolution, max_bad=config.data.max_bad)
    print(f"{len(images.names):,} images an epoch, {len(held_out.names):,} held out")

    def export(state: State, folder: epath.Path) -> None:
        task.export(state).save_pretrained(folder)
        print(f"the tokenizer is in {folder}")

    return Run(
        task=task,
        batches=batches,
        mesh=make_mesh(config.mesh),
        evaluations=[Reconstructions(task.export, watched, workdir)],
        record=to_dict(config),
        export=export,
        warm_start=(lambda state: start_from_kmeans(task, state, images, config))
        if config.kmeans.images
        else None,
    )


def start_from_kmeans(
    task: TokenizerTask, state: State, images: Images, config: Experiment
) -> State:
    """A fresh state whose codes are k-means centres of what its encoder makes of the first training images.

    Every process reads the same images, so all of them start from one codebook.

    Raises:
      UserError: the images have fewer features than there are codes.
    """
    began = time.monotonic()
    wanted, vqgan = config.kmeans.images, task.export(state)
    with ImageLoader(
        images,
        config.model.resolution,
        min(wanted, _KMEANS_BATCH),
        config.train.seed,
        config.data.crop,
        config.data.flip,
        max_bad=config.data.max_bad,
        threads=0,
    ) as loader:
        features = [
            _features(vqgan, jnp.asarray(loader.batch_at(step)["images"]))
            for step in range(-(-wanted // loader.global_batch))
        ]
    codes_KD, errors = kmeans(
        jnp.concatenate(features),
        vqgan.codebook_size,
        iterations=config.kmeans.iterations,
        key=jax.random.key(config.train.seed),
    )
    print(
        f"k-means over {len(features) * loader.global_batch:,} images: mean squared error "
        f"{errors[0]:.4g} -> {errors[-1]:.4g} ({time.monotonic() - began:.0f} s)"
    )
    return task.with_codebook(state, codes_KD)


@nnx.jit
def _features(vqgan: VQGAN, images_BHWC: jax.Array) -> jax.Array:
    """The features of images as the quantizer compares them, (B * N, D)."""
    quantized = vqgan.quantize(vqgan.encode_features(to_float(images_BHWC)))
    return flat(quantized.inputs_BhwD)


def open_split(data: DataConfig) -> tuple[Subset, Subset]:
    """The training images, repeats included, and the held-out ones.

    Raises:
      UserError: no images, none for one of the two, or `repeats` names a sub-folder that does not exist.
    """
    if not data.images:
        raise UserError("config.data.images is empty: name a folder of images")
    listed = read_held_out(data.held_out) if data.held_out else None
    source = open_images(data.images, data.feature)
    images, held_out = split_source(source, data.images, listed, data.held_out_fraction)
    if not data.repeats:
        return images, held_out
    if not isinstance(source, FileImages):
        raise UserError(f"config.data.repeats names sub-folders: {data.images} is not a folder")
    numbers = list(images.numbers)
    for name, times in data.repeats.items():
        if times < 1:
            raise UserError(
                f"config.data.repeats has {name!r} {times} times: at least once; to leave images out, move them away"
            )
        folder = epath.Path(data.images) / name
        if not folder.is_dir():
            raise UserError(
                f"config.data.repeats names {name!r}: {data.images} has no such sub-folder"
            )
        below = [n for n in images.numbers if source.names[n].startswith(f"{folder}/")]
        numbers += below * (times - 1)
    return Subset(source, numbers), held_out


RECIPE = Recipe(Experiment, make_task, prepare)
