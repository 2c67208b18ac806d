r"""What the unified system is compared with, trained on the same pools: MAE-VQGAN or SegGPT.

python experiments/train.py --config=experiments/configs/in_context_peers.py:seggpt --workdir=DIR \
    --config.data.shards=POOLS --config.data.tokenizer=TOKENIZER

The argument is a kind (mae_vqgan, seggpt), then by name: size=published, quickstart or debug, and of the pools'
tokenizer pixels=, patch= and codes=: the side of a picture, that of what one code describes, and how many codes there
are. `seggpt,runlocal` shrinks any size to a laptop. One example and a query a row, in the order in which
experiments/configs/unified.py reads them with the same seed, batch and `rows.shots=(0.0,1.0)` of segmentation alone;
equal steps are equal pairs.
"""

from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError
from lvm_jax.models import presets

# Of the tokenizer, by size: side of a picture, side of a patch, codes, and the preset of its shape.
_TOKENIZERS = {
    "debug": (16, 2, 32, "debug"),
    "quickstart": (32, 4, 512, "quickstart"),
    "published": (256, 16, 1024, "taming-f16-1024"),
}


def get_config(arg: str | None = None) -> ConfigDict:
    """The configuration of one network and size."""
    args = parse_arg(
        arg, kind="mae_vqgan", size="published", pixels=0, patch=0, codes=0, runlocal=False
    )
    size = args["size"]
    if size not in _TOKENIZERS:
        known = ", ".join(_TOKENIZERS)
        raise UserError(f"config argument size={size!r} does not exist; known: {known}")
    *sizes, preset = _TOKENIZERS[size]
    pixels, patch, codes = (
        args[name] or default for name, default in zip(("pixels", "patch", "codes"), sizes)
    )
    config: Any = ConfigDict()
    config.recipe = "in_context_peers"  # what is built from these keys
    config.kind = args["kind"]  # "mae_vqgan" or "seggpt": whose keys are read
    _mae_vqgan(config, size, pixels, patch, codes)
    _seggpt(config, size, pixels, patch)
    _hiding(config, size)
    _data(config, preset)
    _train(config)
    _optimizer(config)
    _evaluation(config)
    _mesh(config)
    if size != "published":
        _quickstart(config)
    if args["runlocal"]:
        _runlocal(config)
    return config


def _mae_vqgan(config: Any, size: str, pixels: int, patch: int, codes: int) -> None:
    """An encoder of what is shown of a canvas, and a decoder of all of it (arXiv 2209.00647)."""
    shape = presets.mae_vqgan(size)
    config.mae_vqgan = ConfigDict()
    config.mae_vqgan.image_size = (2 * pixels, 2 * pixels)  # of a canvas; published: 224
    config.mae_vqgan.patch_size = patch  # of what one code describes
    config.mae_vqgan.num_channels = 3  # colours
    config.mae_vqgan.hidden_size = shape.hidden_size  # width of the encoder
    config.mae_vqgan.intermediate_size = shape.intermediate_size  # width of its MLPs
    config.mae_vqgan.num_hidden_layers = shape.num_hidden_layers  # its blocks
    config.mae_vqgan.num_attention_heads = shape.num_attention_heads  # divides hidden_size
    config.mae_vqgan.decoder_hidden_size = shape.decoder_hidden_size  # width of the decoder
    # Width of the decoder's MLPs.
    config.mae_vqgan.decoder_intermediate_size = shape.decoder_intermediate_size
    # Its blocks.
    config.mae_vqgan.decoder_num_hidden_layers = shape.decoder_num_hidden_layers
    # Divides decoder_hidden_size.
    config.mae_vqgan.decoder_num_attention_heads = shape.decoder_num_attention_heads
    config.mae_vqgan.codes = codes  # of the tokenizer
    config.mae_vqgan.layer_norm_eps = shape.layer_norm_eps  # added to a norm's variance
    config.mae_vqgan.initializer_range = shape.initializer_range  # deviation of a fresh matrix
    config.mae_vqgan.dtype = "bfloat16"  # of activations; parameters and logits are float32
    config.mae_vqgan.scan_layers = True  # compile one block and loop over it
    # What the backward pass recomputes: all but products with weights; "full": all; "none".
    config.mae_vqgan.remat = "dots"
    config.mae_vqgan.attention = "auto"  # what computes it


def _seggpt(config: Any, size: str, pixels: int, patch: int) -> None:
    """A transformer of two streams that become one (arXiv 2304.03284)."""
    shape = presets.seggpt(size)
    config.seggpt = ConfigDict()
    config.seggpt.image_size = (2 * pixels, pixels)  # of a column; published: 896 x 448
    config.seggpt.patch_size = patch  # side of a patch
    config.seggpt.num_channels = 3  # colours
    config.seggpt.hidden_size = shape.hidden_size  # width of the blocks
    config.seggpt.mlp_dim = shape.mlp_dim  # width of their MLPs
    config.seggpt.num_hidden_layers = shape.num_hidden_layers  # blocks
    config.seggpt.num_attention_heads = shape.num_attention_heads  # divides hidden_size
    # Side of the square whose positions are learned.
    config.seggpt.pretrain_image_size = shape.pretrain_image_size
    config.seggpt.merge_index = shape.merge_index  # block after which the streams become one
    # Blocks whose outputs the head reads.
    config.seggpt.intermediate_hidden_state_indices = shape.intermediate_hidden_state_indices
    config.seggpt.decoder_hidden_size = shape.decoder_hidden_size  # channels of the head
    config.seggpt.beta = shape.beta  # of smooth L1: smaller errors count by their square
    config.seggpt.layer_norm_eps = shape.layer_norm_eps  # added to a norm's variance
    config.seggpt.initializer_range = shape.initializer_range  # deviation of a fresh matrix
    config.seggpt.dtype = "bfloat16"  # of activations; parameters are float32
    config.seggpt.scan_layers = True  # compile one block and loop over it
    # What the backward pass recomputes: all but products with weights; "full": all; "none".
    config.seggpt.remat = "dots"
    config.seggpt.attention = "auto"  # what computes it


def _hiding(config: Any, size: str) -> None:
    config.hiding = ConfigDict()
    # Of a canvas or a column of masks: patches at "random", as both were published; or the "answer".
    config.hiding.what = "random" if size == "published" else "answer"
    config.hiding.share = 0.75  # of the patches, with what="random"


def _data(config: Any, preset: str) -> None:
    config.data = ConfigDict()
    config.data.shards = ""  # a folder of pools or a glob; several with commas between them
    config.data.tokenizer = ""  # folder of the tokenizer that wrote them
    config.data.tokenizer_preset = preset  # its shape, for compile_only.py, which has no folder
    config.data.classes = "seen"  # "unseen" or "all" of those that the pools keep from training
    config.data.fewest = 0  # pictures that a class must have; smaller classes are left out


def _train(config: Any) -> None:
    config.train = ConfigDict()
    config.train.steps = 63_000  # as the unified system
    config.train.batch_size = 512  # rows: an example and a query each
    config.train.seed = 0  # of initialisation, data order and step keys
    config.train.log_every = 20  # steps that become one line of metrics.jsonl
    config.train.eval_every = 2_000  # steps; 0: only after the last one
    config.train.checkpoint_every = 1_000  # steps; 0: only after the last one
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


def _optimizer(config: Any) -> None:
    """AdamW as MAE-VQGAN was published with; SegGPT's differs in its rate, 1e-4, and 2 epochs of warm-up."""
    config.optimizer = ConfigDict()
    config.optimizer.kind = "adamw"  # or "muon" for the matrices of blocks
    config.optimizer.learning_rate = 2e-4  # at the end of the warm-up: 1e-4 for each 256 rows
    config.optimizer.end_learning_rate = 0.0  # from decay_steps on
    config.optimizer.warmup_steps = 1_000  # updates of linear rise from 0: 1.5% of them
    config.optimizer.decay_steps = 63_000  # updates until end_learning_rate, warm-up included
    config.optimizer.schedule = "cosine"  # from the warm-up to decay_steps; or "wsd"
    config.optimizer.b1 = 0.9  # decay of the mean of gradients
    config.optimizer.b2 = 0.95  # decay of the mean of their squares
    config.optimizer.eps = 1e-8  # added to the root of the second
    config.optimizer.weight_decay = 0.05  # times the learning rate
    config.optimizer.decay = "matrices"  # spares norms and biases; or "all"
    config.optimizer.clip_norm = 3.0  # longest gradient, SegGPT's; MAE-VQGAN clips none

    # Read with kind="muon"; learning_rate and weight_decay serve both optimizers.
    config.optimizer.muon = ConfigDict()
    config.optimizer.muon.momentum = 0.95  # decay of the mean of gradients
    config.optimizer.muon.iterations = 5  # of Newton-Schulz
    # Root mean square of an update at learning rate 1; AdamW's is about 0.2.
    config.optimizer.muon.update_rms = 0.2

    # Read with schedule="wsd": warm up, stay at learning_rate, decay at the end.
    config.optimizer.wsd = ConfigDict()
    config.optimizer.wsd.decay_fraction = 0.1  # of decay_steps: how long the decay is
    config.optimizer.wsd.shape = "linear"  # or "sqrt": fast at first, 1 - sqrt(share of the decay)


def _evaluation(config: Any) -> None:
    config.evaluation = ConfigDict()
    config.evaluation.split = "validation"  # of the pools
    config.evaluation.rows = 256  # for the held-out loss; 0: all
    config.evaluation.episodes = 64  # whose answers are drawn
    # Steps between drawn answers beside baselines and controls; 0: never.
    config.evaluation.answers = 0


def _mesh(config: Any) -> None:
    """Devices along each axis. Their product is the number of devices; one may be -1, for all that remain."""
    config.mesh = ConfigDict()
    config.mesh.data = 1  # replicates the parameters: across slices or slow links
    config.mesh.fsdp = -1  # splits parameters and batch
    config.mesh.context = 1  # splits sequences, of which there are none
    config.mesh.tensor = 1  # splits heads and MLPs
    config.mesh.expert = 1  # as data: there are no experts


def _quickstart(config: Any) -> None:
    """Drawn things and tiles of 32 pixels on two CPU cores."""
    for network in (config.mae_vqgan, config.seggpt):
        network.update({"dtype": "float32", "remat": "none"})
    config.train.update({"steps": 2000, "batch_size": 16, "log_every": 10})
    config.train.update({"eval_every": 500, "checkpoint_every": 500, "print_config": False})
    config.optimizer.kind = "muon"
    config.optimizer.update({"learning_rate": 4e-3, "end_learning_rate": 1e-4})
    config.optimizer.update({"warmup_steps": 50, "decay_steps": 2000, "schedule": "wsd"})
    config.optimizer.wsd.decay_fraction = 0.3
    config.optimizer.clip_norm = 1.0


def _runlocal(config: Any) -> None:
    """Any size on a laptop in seconds: two thin blocks, a few steps."""
    for network in (config.mae_vqgan, config.seggpt):
        network.update({"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2})
        network.update({"dtype": "float32", "remat": "none"})
    config.mae_vqgan.update({"intermediate_size": 64, "decoder_intermediate_size": 64})
    config.mae_vqgan.update({"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1})
    config.mae_vqgan.decoder_num_attention_heads = 2
    config.seggpt.update({"mlp_dim": 64, "decoder_hidden_size": 8, "merge_index": 0})
    config.seggpt.intermediate_hidden_state_indices = (0, 1)
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2})
    config.train.update({"eval_every": 3, "checkpoint_every": 3})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 2, "decay_steps": 6})
