"""The Vary recipe: towers and a decoder learn to read, from image-text shards (arXiv 2312.06109, section 3).

One recipe serves both stages. In the first a tower, its projector and a small decoder are trained together, which makes
the new vocabulary. In the second that tower and CLIP's are frozen in front of a large decoder.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

import jax
import numpy as np
from etils import epath

from lvm_jax.config import to_dict
from lvm_jax.data.image_text.augment import NO_AUGMENTATION, Augmentation
from lvm_jax.data.image_text.curriculum import Curriculum, Stage, check_stages
from lvm_jax.data.image_text.loader import ImageTextEvalLoader, ImageTextLoader, RowShape
from lvm_jax.data.image_text.templates import template_of
from lvm_jax.data.image_text.views import Fit, View
from lvm_jax.data.mixture import parse_weights
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import WhileTraining, check_periods
from lvm_jax.evaluation.documents.image_use import ImageUse
from lvm_jax.evaluation.held_out_loss import held_out_loss
from lvm_jax.models.attention.attend import check_backend, choose
from lvm_jax.models.decoder.resized import load_resized
from lvm_jax.models.vision_language import parts
from lvm_jax.models.vision_language.config import CLIP, VITDET, VisionLanguageConfig
from lvm_jax.models.vision_language.own_folder import without_adapters
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.recipes.base import LossConfig, Recipe, Run
from lvm_jax.tasks.base import State
from lvm_jax.tasks.image_text import ImageTextTask
from lvm_jax.training.decoder_optimizer import DecoderOptimizerConfig, make_decoder_optimizer
from lvm_jax.training.loop import Evaluation, Every, TrainConfig
from lvm_jax.training.rate_groups import with_rates

IMAGE_USE = ImageUse.name


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which shards, and how conversations become rows of seq_len + 1 tokens with their pictures.

    Attributes:
      shards: a folder of shards or a glob; separate several with commas.
      tokenizer: folder of the text tokenizer, which also names the template.
      seq_len: inputs of a row.
      max_images: pictures of a row.
      weights: shares of data sets and sources, as "NAME=SHARE,..." or a mapping; empty reads every record once a pass.
      stages: (step, longest answer in characters, 0: any) of a curriculum, the first at step 0.
      fit: how a picture becomes the ViTDet tower's view, see `View`.
      clip_fit: the same for the CLIP tower.
      augment: change pictures in training with the published probabilities.
    """

    shards: str
    tokenizer: str
    seq_len: int
    max_images: int = 1
    weights: str | dict[str, float] = ""
    stages: tuple[tuple[int, ...], ...] = ((0, 0),)
    fit: Fit = "squash"
    clip_fit: Fit = "crop"
    augment: bool = False

    def __post_init__(self) -> None:
        check_stages(self.curriculum)

    @property
    def curriculum(self) -> tuple[Stage, ...]:
        """The stages as pairs."""
        if any(len(stage) != 2 for stage in self.stages):
            raise UserError(
                f"config.data.stages is {self.stages}: each stage is (step, longest answer in characters)"
            )
        return tuple((stage[0], stage[1]) for stage in self.stages)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is measured while it trains.

    Attributes:
      split: of the shards.
      max_records: of the split; 0 takes all.
    """

    split: str = "validation"
    max_records: int = 512

    def __post_init__(self) -> None:
        if self.max_records < 0:
            raise UserError(
                f"config.evaluation.max_records is {self.max_records}: it must not be negative"
            )


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """Weights to begin from; "": fresh ones.

    Attributes:
      model: a folder of `VisionLanguage.save_pretrained`, the whole model; the others must then be "".
      tower: of the ViTDet tower: SAM's weights, a tower's folder, or a whole model such as Vary-tiny's.
      clip: of the CLIP tower.
      decoder: a folder of the decoder; it may lack the ids of pictures and have fewer positions.
    """

    model: str = ""
    tower: str = ""
    clip: str = ""
    decoder: str = ""

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return any((self.model, self.tower, self.clip, self.decoder))

    def __post_init__(self) -> None:
        if self.model and (self.tower or self.clip or self.decoder):
            raise UserError(
                "config.init_from.model names a whole model: leave init_from.tower, clip and decoder empty"
            )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's whole configuration; experiments/configs/vary.py explains every key.

    Attributes:
      model: towers and decoder.
      data: what it reads.
      train: how long, how large, how often.
      optimizer: AdamW, or Muon and AdamW.
      learning_rates: path of parameters -> their learning rate, as a factor on the optimizer's.
      loss: how the loss is computed.
      mesh: sizes of the device mesh.
      evaluators: name -> its period in steps, 0 for never.
      evaluation: what the evaluators read.
      init_from: weights to begin from.
      frozen: patterns of parameters not to train, see `ImageTextTask`.
      recipe: the name of this module.
    """

    model: VisionLanguageConfig
    data: DataConfig
    train: TrainConfig
    optimizer: DecoderOptimizerConfig
    learning_rates: dict[str, float]
    loss: LossConfig
    mesh: MeshConfig
    evaluators: dict[str, int]
    evaluation: EvaluationConfig
    init_from: StartConfig
    frozen: tuple[str, ...] = ()
    recipe: Literal["vary"] = "vary"


def make_task(config: Experiment) -> ImageTextTask:
    """The experiment's task.

    Raises:
      UserError: rows are longer than the decoder's learned positions.
    """
    decoder, data = config.model.decoder, config.data
    if decoder.positions == "learned" and data.seq_len > decoder.max_position_embeddings:
        raise UserError(
            f"config.data.seq_len is {data.seq_len} and the decoder has {decoder.max_position_embeddings} positions: "
            "shorten the rows, or raise config.model.decoder.max_position_embeddings"
        )
    return ImageTextTask(
        config.model,
        with_rates(make_decoder_optimizer(config.optimizer), config.learning_rates),
        seq_len=data.seq_len,
        max_images=data.max_images,
        z_loss=config.loss.z_loss,
        loss_chunk=config.loss.chunk,
        accumulation=config.loss.accumulation,
        frozen=config.frozen,
    )


def prepare(config: Experiment, workdir: epath.Path) -> Run:
    """Opens the shards and builds the run.

    Raises:
      UserError: no shards or tokenizer, or shards, tokenizer, model and mesh do not fit together.
    """
    del workdir  # only the loop and the export write there
    check_periods(config.evaluators, (IMAGE_USE,))
    attention = choose(config.model.decoder.attention, config.model.decoder.dtype)
    check_backend(attention)
    print(f"attention: {attention} on {jax.default_backend()}")
    tokenizer = open_tokenizer(config)
    batches = open_batches(config, tokenizer)
    task, mesh = make_task(config), make_mesh(config.mesh)

    def export(state: State, folder: epath.Path) -> None:
        model = task.model(state)
        model.tokenizer_fingerprint = tokenizer.fingerprint
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        print(f"the model is in {folder}, its tokenizer too")

    return Run(
        task=task,
        batches=batches,
        mesh=mesh,
        evaluations=make_evaluations(
            config, task, tokenizer, BatchPlacement(mesh, config.train.batch_size)
        ),
        record=to_dict(config) | {"tokenizer": tokenizer.fingerprint},
        export=export,
        warm_start=(lambda state: warm_start(config, task, state))
        if config.init_from.given
        else None,
    )


def open_tokenizer(config: Experiment) -> TextTokenizer:
    """The text tokenizer, whose special ids are the model's.

    Raises:
      UserError: none is named, or its ids are others.
    """
    if not config.data.tokenizer:
        raise UserError(
            "config.data.tokenizer is empty: name the folder of a text tokenizer; data_pipelines.train_text_tokenizer "
            "makes a small one"
        )
    model, decoder = config.model, config.model.decoder
    tokenizer = TextTokenizer(config.data.tokenizer, vocab_size=decoder.vocab_size)
    template_of(tokenizer)  # it names a template, and the tokens that this needs
    expected = {
        "image_patch": ("image_patch_id", model.image_patch_id),
        "image_start": ("image_start_id", model.image_start_id),
        "image_end": ("image_end_id", model.image_end_id),
        "eos": ("decoder.eos_token_id", decoder.eos_token_id),
        "pad": ("decoder.pad_token_id", decoder.pad_token_id),
    }
    for name, (key, id) in expected.items():
        if tokenizer.ids[name] != id:
            raise UserError(
                f"{name} has id {tokenizer.ids[name]} in {config.data.tokenizer} and config.model.{key} is {id}: set "
                f"--config.model.{key}={tokenizer.ids[name]}, or use the tokenizer that the model was made for"
            )
    return tokenizer


def open_batches(config: Experiment, tokenizer: TextTokenizer) -> Curriculum:
    """The training rows of this process, in the stages of the curriculum.

    Raises:
      UserError: no shards, or none that fit.
    """
    data = config.data
    if not data.shards:
        raise UserError(
            "config.data.shards is empty: name a folder that data_pipelines.build_uvd wrote"
        )
    weights = parse_weights(data.weights) if isinstance(data.weights, str) else data.weights
    return Curriculum(
        [
            (
                begin,
                ImageTextLoader(
                    data.shards,
                    "train",
                    tokenizer,
                    row_shape(config),
                    config.train.batch_size,
                    config.train.seed,
                    jax.process_index(),
                    jax.process_count(),
                    weights=weights,
                    max_characters=longest,
                ),
            )
            for begin, longest in data.curriculum
        ]
    )


def row_shape(config: Experiment) -> RowShape:
    """The sizes of a batch's arrays, and each tower's view of a picture."""
    data = config.data
    fits: dict[str, Fit] = {VITDET: data.fit, CLIP: data.clip_fit}
    augmentation = Augmentation() if data.augment else NO_AUGMENTATION
    views = {
        name: View(*branch.tower.image_size, fit=fits[name], augmentation=augmentation)
        for name, branch in config.model.branches.items()
    }
    return RowShape(data.seq_len, data.max_images, config.model.image_tokens, views)


def make_evaluations(
    config: Experiment, task: ImageTextTask, tokenizer: TextTokenizer, placement: BatchPlacement
) -> list[Evaluation | Every]:
    """The held-out loss, and the configured evaluators."""
    held_out = ImageTextEvalLoader(
        config.data.shards,
        config.evaluation.split,
        tokenizer,
        row_shape(config),
        config.train.batch_size,
        jax.process_index(),
        jax.process_count(),
        max_records=config.evaluation.max_records,
    )
    made: list[Evaluation | Every] = [held_out_loss(task.loss, held_out, placement)]
    if period := config.evaluators.get(IMAGE_USE, 0):
        sources = [origin.source for origin in held_out.store.origins]
        kinds = list(dict.fromkeys(sources))
        kind_of_origin = np.array([kinds.index(source) for source in sources], np.int32)

        def batches() -> Iterator[tuple[Mapping[str, np.ndarray], np.ndarray]]:
            for rows, origin in held_out.with_origins():
                yield rows, kind_of_origin[origin]

        evaluator = ImageUse(task, batches, kinds, placement)
        evaluation = WhileTraining(
            f"evaluation/{evaluator.name}", evaluator, lambda state: state["params"]
        )
        made.append(Every(period, evaluation))
    return made


def warm_start(config: Experiment, task: ImageTextTask, state: State) -> State:
    """A fresh state with the weights to begin from, streamed into their shards.

    Raises:
      UserError: a folder does not hold what the model has, or the model has no such tower.
    """
    start, model = config.init_from, without_adapters(config.model)
    if start.model:
        return task.load(state, start.model)
    if start.tower:
        if model.vitdet is None:
            raise UserError("config.init_from.tower is set, and config.model.vitdet is None")
        tower = parts.load_vitdet(start.tower, model.vitdet.tower, seed=config.train.seed)
        state = task.replaced(state, ("vitdet", "tower"), tower)
    if start.clip:
        if model.clip is None:
            raise UserError("config.init_from.clip is set, and config.model.clip is None")
        state = task.replaced(
            state, ("clip", "tower"), parts.load_clip(start.clip, model.clip.tower)
        )
    if start.decoder:
        decoder = load_resized(start.decoder, model.decoder, model.image_ids)
        state = task.replaced(state, ("decoder",), decoder)
    return state


RECIPE = Recipe(Experiment, make_task, prepare)
