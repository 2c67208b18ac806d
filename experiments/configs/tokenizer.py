r"""Training of the tokenizer, a VQGAN, on a folder of images.

python experiments/train_tokenizer.py --config=experiments/configs/tokenizer.py:lvm-f16-8192 --workdir=DIR \
    --config.data.images=FOLDER

The argument is a preset (lvm-f16-8192, maskgit-f16-8192, taming-f16-1024, debug, quickstart, small); `NAME,runlocal`
shrinks it to seconds on a laptop, `NAME,embedded` is for the embedded corpus. LVM's own tokenizer recipe is
unpublished: the full-size defaults are those of open-muse's fine-tuning branch, whose f16 tokenizer has the released
one's architecture.

`NAME,recipe=taming | maskgit | lvm` trains it as others did, or as we would (docs/tokenizer.md); `l2_codes` gives the
tokenizer codes of 8 dimensions on the unit sphere, which is another architecture than the published one.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.parallel.mesh import MeshConfig
from lvm_jax.tasks.tokenizer import TokenizerLoss, TokenizerStep
from lvm_jax.training.loop import TrainConfig
from lvm_jax.training.optimizer import OptimizerConfig


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe of one preset."""
    args = parse_arg(
        arg, preset="lvm-f16-8192", recipe="", l2_codes=False, embedded=False, runlocal=False
    )
    config = ConfigDict()
    config.model = dataclasses.asdict(presets.vqgan(args["preset"]))
    config.discriminator = dataclasses.asdict(DiscriminatorConfig())
    config.loss = dataclasses.asdict(TokenizerLoss())
    config.step = dataclasses.asdict(TokenizerStep())

    config.data = ConfigDict()
    config.data.images = ""  # a folder, sub-folders included; tars, TFRecords, tfds://NAME:SPLIT
    config.data.feature = ""  # which images, where an item of tars, TFRecords or TFDS has several
    config.data.held_out = (
        ""  # a list of paths below it, one a line; without one, held_out_fraction of the files
    )
    config.data.held_out_fraction = 0.01
    config.data.repeats = (
        ConfigDict()
    )  # sub-folder -> how often each of its files comes in an epoch
    config.data.crop = "random"
    config.data.flip = True
    config.data.max_bad = 100

    config.train = dataclasses.asdict(
        TrainConfig(
            steps=600_000,
            batch_size=128,
            log_every=50,
            eval_every=5_000,
            checkpoint_every=5_000,
        )
    )

    config.generator = _adamw(1e-4, warmup=2_000, steps=600_000)
    config.critic = _adamw(1e-6, warmup=2_000, steps=600_000)
    config.mesh = dataclasses.asdict(MeshConfig())

    if args["preset"] in ("quickstart", "small"):
        _quickstart(config)
    if args["preset"] == "small":
        _small(config)
    if args["recipe"]:
        if args["recipe"] not in _RECIPES:
            known = ", ".join(_RECIPES)
            raise UserError(f"recipe {args['recipe']!r} does not exist; known: {known}")
        _RECIPES[args["recipe"]](config)
    if args["l2_codes"]:
        _l2_codes(config)
    if args["embedded"]:
        config.data.repeats.photos = 30  # or rendered pictures would be 99% of what it sees
    if args["runlocal"]:
        _runlocal(config)
    return config


def _adamw(learning_rate: float, warmup: int, steps: int) -> dict[str, Any]:
    return dataclasses.asdict(
        OptimizerConfig(
            learning_rate=learning_rate,
            end_learning_rate=learning_rate / 10,
            warmup_steps=warmup,
            decay_steps=steps,
            b1=0.5,
            b2=0.9,
            weight_decay=0.01,
        )
    )


def _quickstart(config: Any) -> None:
    """About three minutes on two CPU cores: 32 x 32 images, 64 codes each, a codebook of 512."""
    config.loss.update({"reconstruction": "l2", "reconstruction_weight": 4.0})
    config.loss.update({"perceptual": "lpips-alex", "perceptual_weight": 0.1})
    config.loss.update({"entropy_weight": 0.001, "entropy_temperature": 0.05})
    config.loss.update({"adversarial_weight": 0.05, "discriminator_start": 0})
    config.discriminator.update({"hidden_channels": 16, "n_layers": 2, "norm_groups": 8})
    config.data.flip = False  # left and right of a rendered scene are told apart by its light
    config.train.update({"steps": 1500, "batch_size": 8, "log_every": 20})
    config.train.update({"eval_every": 500, "checkpoint_every": 100, "print_config": False})
    config.generator = _adamw(1e-3, warmup=20, steps=1500)
    config.critic = _adamw(2.5e-4, warmup=20, steps=1500)
    config.generator.update({"b1": 0.9, "b2": 0.99, "weight_decay": 0.0, "end_learning_rate": 2e-5})


def _small(config: Any) -> None:
    """About half an hour on two CPU cores: 64 x 64 images, 64 codes each, a codebook of 1024."""
    config.step.update({"ema_decay": 0.995, "revive_after": 200})
    config.loss.discriminator_start = 500
    config.train.update({"steps": 2000, "eval_every": 1000})
    for network in ("generator", "critic"):
        config[network].update({"warmup_steps": 50, "decay_steps": 2000})


def _taming(config: Any) -> None:
    """taming-transformers' f16 (arXiv 2012.09841): PatchGAN late, adaptive weight, Adam at 4.5e-6 times the batch."""
    loss = TokenizerLoss(legacy_commitment=True, discriminator_start=250_000)
    config.loss.update(dataclasses.asdict(loss))
    config.step.update({"ema_decay": 0.0, "revive_after": 0})
    config.train.batch_size = 48
    for network in ("generator", "critic"):
        config[network].update({"learning_rate": 2.16e-4, "end_learning_rate": 2.16e-4})
        config[network].update({"warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 1e9})
        config[network].update({"b1": 0.5, "b2": 0.9})


def _maskgit(config: Any) -> None:
    """MaskGIT's (arXiv 2202.04200, its vqgan_config.py), with LPIPS for ResNet50 logits, which no package brings."""
    halvings = max(1, int(config.model.resolution).bit_length() - 3)  # down to 4 x 4
    config.discriminator.update({"kind": "style", "hidden_channels": 64, "n_layers": halvings})
    loss = TokenizerLoss(
        reconstruction="l2",
        perceptual_weight=0.1,
        entropy_weight=0.1,
        entropy_temperature=0.01,
        adversarial="non_saturating",
        adversarial_weight=0.1,
        adaptive_weight=False,
        discriminator_start=0,
        r1_weight=10.0,
    )
    config.loss.update(dataclasses.asdict(loss))
    config.step.update({"ema_decay": 0.999, "revive_after": 0})
    config.train.update({"batch_size": 256, "steps": 1_000_000})
    for network in ("generator", "critic"):
        config[network].update({"learning_rate": 1e-4, "end_learning_rate": 1e-4, "b1": 0.0})
        config[network].update({"b2": 0.99, "warmup_steps": 0, "weight_decay": 0.0})
        config[network].update({"decay_steps": 1_000_000, "clip_norm": 1e9})


def _lvm(config: Any) -> None:
    """Ours: squared error beside LPIPS, all codes in use, a steady discriminator, averaged weights, a falling rate."""
    loss = TokenizerLoss(
        reconstruction="l2",
        reconstruction_weight=4.0,
        perceptual_weight=0.1,
        entropy_weight=0.001,
        entropy_temperature=0.05,
        adversarial_weight=0.05,
        discriminator_start=20_000,
        lecam_weight=0.05,
    )
    config.loss.update(dataclasses.asdict(loss))
    config.step.update({"ema_decay": 0.999, "revive_after": 200})
    config.generator.update({"b1": 0.9, "b2": 0.99})
    config.critic.update({"learning_rate": 1e-4, "end_learning_rate": 1e-5, "b1": 0.5, "b2": 0.99})


_RECIPES = {"taming": _taming, "maskgit": _maskgit, "lvm": _lvm}


def _l2_codes(config: Any) -> None:
    """Codes of 8 dimensions, compared by angle (ViT-VQGAN, LlamaGen): they are all used, which 64 free ones are not."""
    config.model.update({"l2_normalize": True, "quantized_embed_dim": 8})
    if config.model.architecture == "maskgit":  # it has no convolution between latent and code
        config.model.z_channels = 8


def _runlocal(config: Any) -> None:
    """Any preset on a laptop in seconds: few channels, a few steps."""
    config.model.update({"hidden_channels": 8, "num_res_blocks": 1, "norm_groups": 4})
    config.model.update({"num_embeddings": 512})
    if config.discriminator.kind == "style":
        config.discriminator.hidden_channels = 8
    if config.step.revive_after:
        config.step.revive_after = 2
    config.loss.update({"perceptual": "gradient", "discriminator_start": 3})
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2})
    config.train.update({"eval_every": 3, "checkpoint_every": 3})
    config.generator = _adamw(1e-3, warmup=2, steps=6)
    config.critic = _adamw(2e-4, warmup=2, steps=6)
