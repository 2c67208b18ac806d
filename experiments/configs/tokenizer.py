r"""Training of the tokenizer, a VQGAN, on a folder of images.

python experiments/train.py --config=experiments/configs/tokenizer.py:lvm-f16-8192 --workdir=DIR \
    --config.data.images=FOLDER

The argument is a preset (lvm-f16-8192, maskgit-f16-8192, taming-f16-1024, debug, quickstart, small, patches);
`NAME,runlocal` shrinks it to seconds on a laptop, `NAME,embedded` is for the embedded corpus, `NAME,in_context` for
the pictures that `sample_images` writes of `in_context.py`. `patches` is the released tokenizer. LVM's own tokenizer
recipe is unpublished: the full-size defaults are those of open-muse's fine-tuning branch, whose f16 tokenizer has the
released one's architecture.

`NAME,recipe=taming | maskgit | lvm` trains it as others did, or as we would (docs/tokenizer.md). `l2_codes` gives the
tokenizer codes of 8 dimensions on the unit sphere, unlike the published architecture.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.tasks.tokenizer import TokenizerLoss


def get_config(arg: str | None = None) -> ConfigDict:
    """The configuration of one preset."""
    args = parse_arg(
        arg,
        preset="lvm-f16-8192",
        recipe="",
        l2_codes=False,
        embedded=False,
        in_context=False,
        runlocal=False,
    )
    config: Any = ConfigDict()
    config.recipe = "tokenizer"  # what is built from these keys: lvm_jax/recipes/tokenizer.py
    _model(config, args["preset"])
    _discriminator(config)
    _loss(config)
    _prior(config)
    _step(config)
    _data(config)
    _train(config)
    _kmeans(config)
    _optimizers(config)
    _mesh(config)
    if args["preset"] == "debug":
        config.discriminator.n_layers = 2  # three leave no patch of its 16 pixels
    if args["preset"] in ("patches", "quickstart"):
        _patches(config)
    if args["preset"] == "quickstart":
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
        config.data.repeats.photos = 30  # without it, 99% of the images would be rendered
    if args["in_context"]:  # lines and areas of one colour are what a small network draws last
        config.data.repeats.update(
            {"train/edges": 5, "train/segmentation": 2, "train/photographs": 2}
        )
    if args["runlocal"]:
        _runlocal(config)
    return config


def _model(config: Any, preset: str) -> None:
    """The VQGAN: open-muse's field names, and below them ours."""
    shape = presets.vqgan(preset)
    config.model = ConfigDict()
    config.model.resolution = shape.resolution  # side of the square images
    config.model.num_channels = shape.num_channels  # image channels
    config.model.hidden_channels = shape.hidden_channels  # width that channel_mult multiplies
    config.model.channel_mult = shape.channel_mult  # of each level, finest first
    config.model.num_res_blocks = shape.num_res_blocks  # a level
    config.model.attn_resolutions = shape.attn_resolutions  # sides at which attention follows
    config.model.no_attn_mid_block = shape.no_attn_mid_block  # no attention in the middle
    config.model.z_channels = shape.z_channels  # channels that leave the encoder
    config.model.num_embeddings = shape.num_embeddings  # codes
    config.model.quantized_embed_dim = shape.quantized_embed_dim  # dimension of a code
    config.model.architecture = shape.architecture  # "taming", "maskgit" (published), "patches"
    config.model.pixel_range = shape.pixel_range  # what the network is fed: "0_1", "-1_1"
    config.model.l2_normalize = shape.l2_normalize  # compare features and codes by angle
    config.model.norm_groups = shape.norm_groups  # groups of each GroupNorm
    config.model.dtype = shape.dtype  # of the convolutions: "float32", "bfloat16"
    # Of the architecture "patches": blocks before the quantizer, and how many cells away they look.
    config.model.encoder_blocks = shape.encoder_blocks
    config.model.encoder_reach = shape.encoder_reach  # 0: a code depends on its own patch alone


def _discriminator(config: Any) -> None:
    config.discriminator = ConfigDict()
    config.discriminator.hidden_channels = 64  # width of the first layer; it doubles, up to 8x
    config.discriminator.n_layers = 3  # patch: strided layers, 70 pixels a patch; style: halvings
    config.discriminator.num_channels = 3  # image channels
    config.discriminator.norm_groups = 32  # groups of each GroupNorm of "patch"; 0: no norms
    config.discriminator.kind = "patch"  # PatchGAN, or "style": the one of StyleGAN2


def _loss(config: Any) -> None:
    """The loss: open-muse's recipe for fine-tuning its f16 tokenizer."""
    config.loss = ConfigDict()
    config.loss.reconstruction = "l1"  # or "l2": absolute or squared error of pixels
    config.loss.reconstruction_weight = 1.0  # of that error
    config.loss.perceptual = "lpips-vgg"  # or "lpips-alex", "gradient" (edges), "none"
    config.loss.perceptual_weight = 1.0  # of the perceptual distance
    # Gradient to the encoder: unchanged, or "all_codes": through the softmax over codes (IBQ).
    config.loss.straight_through = "nearest"
    config.loss.quantization_weight = 1.0  # of codebook and commitment terms together
    config.loss.commitment_cost = 0.25  # beta
    config.loss.legacy_commitment = False  # beta weighs the codebook term, as in the published code
    config.loss.entropy_weight = 0.0  # rewards sure choices and even use of the codes; 0: off
    config.loss.entropy_temperature = 0.01  # of the softmax there, and in "all_codes"
    config.loss.adversarial = "hinge"  # or "non_saturating"
    config.loss.adversarial_weight = 0.8  # of the generator's loss; 0: no discriminator
    # Scale it so that its gradient at the last kernel is as long as that of the reconstruction loss.
    config.loss.adaptive_weight = True
    config.loss.discriminator_start = 50_000  # step at which it starts to train and to count
    config.loss.r1_weight = 0.0  # of the penalty on its gradient at real images; 0: none
    config.loss.lecam_weight = 0.0  # of LeCam regularisation; 0: none
    config.loss.lecam_decay = 0.999  # of the moving averages of its logits
    # Of the share of the codes' variance that a small decoder cannot foretell; 0: no such decoder.
    config.loss.causal_weight = 0.0


def _prior(config: Any) -> None:
    """The decoder of `loss.causal_weight`, which trains beside the tokenizer and is thrown away."""
    config.prior = ConfigDict()
    config.prior.hidden_size = 128  # its width
    config.prior.num_layers = 2  # its blocks
    config.prior.num_heads = 2  # of its attention


def _step(config: Any) -> None:
    config.step = ConfigDict()
    config.step.accumulation = 1  # microbatches per batch, computed one after the other
    config.step.ema_decay = 0.0  # of averaged weights, which are then exported; 0: none
    config.step.revive_after = 0  # steps without use after which a code moves; 0: never


def _data(config: Any) -> None:
    config.data = ConfigDict()
    config.data.images = ""  # a folder, sub-folders included; tars, TFRecords, tfds://NAME:SPLIT
    config.data.feature = ""  # which images, where an item of tars, TFRecords or TFDS has several
    # A list of paths below it, one a line; without one, held_out_fraction of the files.
    config.data.held_out = ""
    config.data.held_out_fraction = 0.01  # chosen by a hash of the name
    # Sub-folder -> how often each of its files appears in a pass.
    config.data.repeats = ConfigDict()
    config.data.crop = "random"  # how an image becomes a square: "resized", "center", "squash"
    config.data.flip = True  # mirror every other image
    config.data.max_bad = 100  # undecodable images after which the run stops


def _train(config: Any) -> None:
    config.train = ConfigDict()
    config.train.steps = 600_000  # 77 M images
    config.train.batch_size = 128  # images
    config.train.seed = 0  # of initialisation, data order and step keys
    config.train.log_every = 50  # steps that become one line of metrics.jsonl
    config.train.eval_every = 5_000  # steps; 0: only after the last one
    config.train.checkpoint_every = 5_000  # steps; 0: only after the last one
    config.train.keep_checkpoints = 2  # the newest ones
    config.train.keep_every_steps = 0  # keep for ever those at multiples of this step; 0: none
    # A bad step is not finite or, with a spike_factor, has a loss that many times its running mean.
    config.train.on_bad_step = "stop"  # or "skip": leave its update out
    config.train.spike_factor = 0.0  # 0: a loss may spike
    config.train.max_skips = 10  # bad steps in a row after which the run stops anyway
    config.train.watchdog_seconds = 1800.0  # a step that hangs longer ends the process; 0: never
    config.train.profile_steps = (0, 0)  # (first, last) step to trace into WORKDIR/profile
    config.train.wandb_project = ""  # Weights & Biases project that gets the metrics too
    config.train.print_config = True  # print all of it at the start, not only its path


def _kmeans(config: Any) -> None:
    """A fresh codebook may start from k-means over the features of training images."""
    config.kmeans = ConfigDict()
    config.kmeans.images = 0  # to take features from; 0: the codebook starts at random
    config.kmeans.iterations = 20  # of Lloyd's algorithm


def _optimizers(config: Any) -> None:
    """AdamW for both networks; rates rise linearly, then fall as a cosine."""
    config.generator = ConfigDict()
    config.generator.learning_rate = 1e-4  # at the end of the warm-up
    config.generator.end_learning_rate = 1e-5  # from decay_steps on
    config.generator.warmup_steps = 2_000  # updates of linear rise from 0
    config.generator.decay_steps = 600_000  # warm-up included
    config.generator.b1 = 0.5  # decay of the mean of gradients
    config.generator.b2 = 0.9  # decay of the mean of their squares
    config.generator.eps = 1e-8  # added to the root of the second
    config.generator.weight_decay = 0.01  # times the learning rate
    config.generator.decay = "matrices"  # spares norms and biases; or "all"
    config.generator.clip_norm = 1.0  # longest gradient, over all parameters

    config.critic = ConfigDict()
    config.critic.learning_rate = 1e-6  # of the discriminator, which must not run ahead
    config.critic.end_learning_rate = 1e-7  # from decay_steps on
    config.critic.warmup_steps = 2_000  # counted from its first update
    config.critic.decay_steps = 600_000  # warm-up included
    config.critic.b1 = 0.5  # as the generator's
    config.critic.b2 = 0.9  # as the generator's
    config.critic.eps = 1e-8  # as the generator's
    config.critic.weight_decay = 0.01  # as the generator's
    config.critic.decay = "matrices"  # as the generator's
    config.critic.clip_norm = 1.0  # as the generator's


def _mesh(config: Any) -> None:
    """Devices along each axis. Their product is the number of devices; one may be -1, for all that remain."""
    config.mesh = ConfigDict()
    config.mesh.data = 1  # replicates the parameters: across slices or slow links
    config.mesh.fsdp = -1  # splits parameters and batch
    config.mesh.context = 1  # splits the sequence
    config.mesh.tensor = 1  # splits heads, MLP and vocabulary
    config.mesh.expert = 1  # splits the experts of a mixture; else as data


def _adamw(optimizer: Any, learning_rate: float, warmup: int, steps: int) -> None:
    """The published AdamW with another learning rate, which falls to a tenth."""
    optimizer.update({"learning_rate": learning_rate, "end_learning_rate": learning_rate / 10})
    optimizer.update({"warmup_steps": warmup, "decay_steps": steps})
    optimizer.update({"b1": 0.5, "b2": 0.9, "weight_decay": 0.01, "clip_norm": 1.0})


def _patches(config: Any) -> None:
    """Codes from k-means over patches, and a decoder that hides their edges: 40 minutes of two CPU cores."""
    config.kmeans.images = 5000
    config.loss.update({"reconstruction": "l2", "reconstruction_weight": 4.0})
    config.loss.update({"perceptual": "none", "adversarial_weight": 0.0})
    # The codes stay where k-means put them: only the decoder learns.
    config.loss.quantization_weight = 0.0
    config.step.update({"ema_decay": 0.998, "revive_after": 0})
    config.train.update({"steps": 5000, "batch_size": 32, "log_every": 20})
    config.train.update({"eval_every": 1000, "checkpoint_every": 500, "print_config": False})
    _adamw(config.generator, 2e-3, warmup=100, steps=5000)
    config.generator.update({"b1": 0.9, "b2": 0.99, "end_learning_rate": 2e-5, "weight_decay": 0.0})


def _quickstart(config: Any) -> None:
    """About a minute on two CPU cores: 32 x 32 images, 64 codes each, a codebook of 512."""
    config.kmeans.images = 2048
    config.loss.quantization_weight = 1.0
    config.data.flip = False  # the light tells left from right in a rendered scene
    config.step.update({"ema_decay": 0.99, "revive_after": 200})
    config.train.update({"steps": 500, "eval_every": 250, "checkpoint_every": 100})
    config.generator.update({"warmup_steps": 20, "decay_steps": 500})


def _small(config: Any) -> None:
    """About half an hour on two CPU cores: 64 x 64 images, 64 codes each, a codebook of 1024."""
    config.loss.update({"reconstruction": "l2", "reconstruction_weight": 4.0})
    config.loss.update({"perceptual": "lpips-alex", "perceptual_weight": 0.1})
    config.loss.update({"entropy_weight": 0.001, "entropy_temperature": 0.05})
    config.loss.update({"adversarial_weight": 0.05, "discriminator_start": 500})
    config.discriminator.update({"hidden_channels": 16, "n_layers": 2, "norm_groups": 8})
    config.data.flip = False
    config.step.update({"ema_decay": 0.995, "revive_after": 200})
    config.train.update({"steps": 2000, "batch_size": 8, "log_every": 20})
    config.train.update({"eval_every": 1000, "checkpoint_every": 100, "print_config": False})
    _adamw(config.generator, 1e-3, warmup=50, steps=2000)
    _adamw(config.critic, 2.5e-4, warmup=50, steps=2000)
    config.generator.update({"b1": 0.9, "b2": 0.99, "weight_decay": 0.0, "end_learning_rate": 2e-5})


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
    """MaskGIT's (arXiv 2202.04200, vqgan_config.py), with LPIPS in place of ResNet50 logits, which no package has."""
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
    """Codes of 8 dimensions, compared by angle (ViT-VQGAN, LlamaGen): all of them get used, unlike 64 free ones."""
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
    if config.kmeans.images:
        config.kmeans.update({"images": 16, "iterations": 2})
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2})
    config.train.update({"eval_every": 3, "checkpoint_every": 3})
    _adamw(config.generator, 1e-3, warmup=2, steps=6)
    _adamw(config.critic, 2e-4, warmup=2, steps=6)
