r"""Vary (arXiv 2312.06109): a vision vocabulary that learns to read, then the same in front of a language model.

python experiments/train.py --config=experiments/configs/vary.py:tiny --workdir=W/tiny \
    --config.data.shards=PAGES --config.data.tokenizer=OPT --config.init_from.tower=SAM \
    --config.init_from.decoder=OPT-125M
python experiments/train.py --config=experiments/configs/vary.py:base --workdir=W/base \
    --config.data.shards=PAIRS --config.data.tokenizer=QWEN --config.init_from.tower=W/tiny/model \
    --config.init_from.clip=CLIP --config.init_from.decoder=QWEN-7B
python experiments/train.py --config=experiments/configs/vary.py:base,stage=sft --workdir=W/sft \
    --config.data.shards=CONVERSATIONS --config.data.tokenizer=QWEN --config.init_from.model=W/base/model

The argument is a size of `presets.vary` (tiny, tiny-plus, tiny-600k, base, base-vicuna, toy, got-ocr2, quickstart,
quickstart-two, quickstart-old, small, small-two, debug, debug-two, debug-old) and, for the second stage,
`stage=pretrain` or `stage=sft`; `small` begins with `stage=lines` and `stage=fonts`. `runlocal` shrinks any of them to
a laptop.

| size, stage | batch | passes | learning rate | trained |
|---|---|---|---|---|
| tiny | 512 | 3 of 3.62M pairs | 5e-5 | all |
| tiny-plus | 512 | 2 of 7M | 5e-5 | all |
| tiny-600k | 64 | 10 of 600k | 1e-4, decay 0.05 | all |
| base, pretrain | 256 | 1 of 5.1M | 5e-5 | all but the towers |
| base, sft | 256 | 1 of 147k | 1e-5 | all but the towers |
| toy, pretrain | 512 | 1 of 6.5M | 5e-5 | all but the towers |
| toy, sft | 512 | 1 of 80k | 2e-5 | all but the towers |

Batches, passes and learning rates are published. GOT-OCR2's, and the numbers of pairs that its table of data leaves
open, are ours.
"""

from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.vision_language.config import ClipBranch, VisionLanguageConfig, VitDetBranch

# Pairs of images and texts, passes, batch, learning rate.
_RECIPES = {
    ("tiny", "pretrain"): (3_620_000, 3, 512, 5e-5),
    ("tiny-plus", "pretrain"): (7_000_000, 2, 512, 5e-5),
    ("tiny-600k", "pretrain"): (600_000, 10, 64, 1e-4),
    ("base", "pretrain"): (5_100_000, 1, 256, 5e-5),
    ("base", "sft"): (147_000, 1, 256, 1e-5),
    ("base-vicuna", "pretrain"): (5_100_000, 1, 256, 5e-5),
    ("base-vicuna", "sft"): (147_000, 1, 256, 1e-5),
    ("toy", "pretrain"): (6_500_000, 1, 512, 5e-5),
    ("toy", "sft"): (80_000, 1, 512, 2e-5),
    ("got-ocr2", "pretrain"): (5_000_000, 1, 256, 5e-5),
}
# Steps, inputs of a row, whether answers begin short: a model that has read before needs no such beginning.
_SMALL = {
    ("quickstart", "pretrain"): (2600, 47, True),
    ("quickstart-two", "pretrain"): (1400, 54, True),
    ("quickstart-old", "pretrain"): (1400, 54, True),
    ("small", "lines"): (2500, 95, True),
    ("small", "fonts"): (5000, 95, False),
    ("small", "pretrain"): (14_000, 95, False),
    ("small-two", "pretrain"): (5000, 102, True),
    ("debug", "pretrain"): (6, 24, True),
    ("debug-two", "pretrain"): (6, 24, True),
    ("debug-old", "pretrain"): (6, 24, True),
}


def get_config(arg: str | None = None) -> ConfigDict:
    """The configuration of one size and stage."""
    args = parse_arg(arg, size="tiny", stage="pretrain", runlocal=False)
    size, stage = args["size"], args["stage"]
    shape = presets.vary(size)
    _check_stage(size, stage)
    if args["runlocal"]:
        size, stage = _debug_size(shape), "pretrain"
        shape = presets.vary(size)
    config: Any = ConfigDict()
    config.recipe = "vary"  # what is built from these keys: lvm_jax/recipes/vary.py
    config.model = ConfigDict()
    config.model.image_patch_id = shape.image_patch_id  # stands where an image token goes
    config.model.image_start_id = shape.image_start_id  # before an image's tokens
    config.model.image_end_id = shape.image_end_id  # behind them
    config.model.vitdet = None  # the new vocabulary; None: the model has none
    if shape.vitdet is not None:
        config.model.vitdet = ConfigDict()
        _vitdet(config, shape.vitdet)
    config.model.clip = None  # the old vocabulary; None: the model has none
    if shape.clip is not None:
        config.model.clip = ConfigDict()
        _clip(config, shape.clip)
    config.model.decoder = ConfigDict()
    _decoder(config, shape.decoder)
    _start(config)
    _data(config)
    _train(config)
    _optimizer(config)
    _loss(config)
    _evaluation(config)
    _mesh(config)
    if (size, stage) in _RECIPES:
        _published(config, size, *_RECIPES[size, stage])
    if shape.clip is not None:
        towers = {"vitdet/tower": shape.vitdet, "clip/tower": shape.clip}
        config.frozen = tuple(path for path, branch in towers.items() if branch is not None)
    if (size, stage) in _SMALL:
        _quickstart(config, *_SMALL[size, stage])
    if size == "small" and stage != "pretrain":
        config.data.fit = "keep"  # the first lines are smaller than the view
    if size.startswith("debug"):
        _debug(config)
    return config


def _check_stage(size: str, stage: str) -> None:
    known = [name for of, name in (*_RECIPES, *_SMALL) if of == size]
    if stage not in known:
        raise UserError(f"{size} has no stage={stage}: choose {' or '.join(known)}")


def _debug_size(shape: VisionLanguageConfig) -> str:
    """The small model with as many towers."""
    if shape.clip is None:
        return "debug"
    return "debug-old" if shape.vitdet is None else "debug-two"


def _vitdet(config: Any, shape: VitDetBranch) -> None:
    """SAM's tower and two convolutions."""
    tower = shape.tower
    config.model.vitdet.mean = shape.mean  # of each colour, taken off pixels in [0, 1]
    config.model.vitdet.deviation = shape.deviation  # then they are divided by it
    config.model.vitdet.tower = ConfigDict()
    config.model.vitdet.tower.image_size = tower.image_size  # height and width in pixels
    config.model.vitdet.tower.patch_size = tower.patch_size  # side of a patch
    config.model.vitdet.tower.num_channels = tower.num_channels  # of an image
    config.model.vitdet.tower.hidden_size = tower.hidden_size  # width of the blocks
    config.model.vitdet.tower.mlp_dim = tower.mlp_dim  # width of the MLPs
    config.model.vitdet.tower.num_hidden_layers = tower.num_hidden_layers  # blocks
    config.model.vitdet.tower.num_attention_heads = tower.num_attention_heads  # heads
    config.model.vitdet.tower.window_size = tower.window_size  # side of a window, in patches
    # Blocks, from 0, that attend over the whole grid.
    config.model.vitdet.tower.global_attn_indexes = tower.global_attn_indexes
    config.model.vitdet.tower.output_channels = tower.output_channels  # of the neck
    config.model.vitdet.tower.merge_channels = tower.merge_channels  # of the convolutions behind it
    config.model.vitdet.tower.merge_strides = tower.merge_strides  # rows, columns of each
    config.model.vitdet.tower.layer_norm_eps = tower.layer_norm_eps  # added to a variance
    # Standard deviation of a fresh matrix.
    config.model.vitdet.tower.initializer_range = tower.initializer_range
    config.model.vitdet.tower.dtype = "bfloat16"  # of activations
    config.model.vitdet.tower.scan_layers = True  # compile one period of blocks and loop over it
    config.model.vitdet.tower.remat = "dots"  # what the backward pass recomputes; "full", "none"
    # Or "xla", "chunked", "splash" (TPU), "cudnn" (GPU).
    config.model.vitdet.tower.attention = "auto"


def _clip(config: Any, shape: ClipBranch) -> None:
    """CLIP's vision tower."""
    tower = shape.tower
    config.model.clip.mean = shape.mean  # as for vitdet
    config.model.clip.deviation = shape.deviation  # as for vitdet
    config.model.clip.tower = ConfigDict()
    config.model.clip.tower.image_size = tower.image_size  # height and width in pixels
    config.model.clip.tower.patch_size = tower.patch_size  # side of a patch
    config.model.clip.tower.num_channels = tower.num_channels  # of an image
    config.model.clip.tower.hidden_size = tower.hidden_size  # width of the blocks
    config.model.clip.tower.intermediate_size = tower.intermediate_size  # width of the MLPs
    config.model.clip.tower.num_hidden_layers = tower.num_hidden_layers  # blocks
    config.model.clip.tower.num_attention_heads = tower.num_attention_heads  # heads
    config.model.clip.tower.hidden_act = tower.hidden_act  # "quick_gelu", or "gelu"
    config.model.clip.tower.feature_layer = tower.feature_layer  # -2: the output before the last
    config.model.clip.tower.layer_norm_eps = tower.layer_norm_eps  # added to a variance
    config.model.clip.tower.initializer_range = tower.initializer_range  # of a fresh matrix
    config.model.clip.tower.dtype = "bfloat16"  # of activations
    config.model.clip.tower.scan_layers = True  # compile one block and loop over it
    config.model.clip.tower.remat = "dots"  # what the backward pass recomputes; "full", "none"
    config.model.clip.tower.attention = "auto"  # as for vitdet


def _decoder(config: Any, shape: Any) -> None:
    """The language model; experiments/configs/lvm.py says more of each key."""
    config.model.decoder.vocab_size = shape.vocab_size  # ids, those of pictures included
    config.model.decoder.hidden_size = shape.hidden_size  # width of the residual stream
    config.model.decoder.intermediate_size = shape.intermediate_size  # width of the MLP
    config.model.decoder.num_hidden_layers = shape.num_hidden_layers  # blocks
    config.model.decoder.num_attention_heads = shape.num_attention_heads  # query heads
    config.model.decoder.num_key_value_heads = shape.num_key_value_heads  # key and value heads
    config.model.decoder.bos_token_id = shape.bos_token_id  # begins a row, in some templates
    config.model.decoder.eos_token_id = shape.eos_token_id  # ends an answer; the tokenizer's
    config.model.decoder.pad_token_id = shape.pad_token_id  # fills a row; the tokenizer's
    config.model.decoder.rms_norm_eps = shape.rms_norm_eps  # added to the mean square
    config.model.decoder.rope_theta = shape.rope_theta  # base of the rotary wavelengths
    config.model.decoder.initializer_range = shape.initializer_range  # of a fresh matrix
    # With learned positions, how many there are.
    config.model.decoder.max_position_embeddings = shape.max_position_embeddings
    # The head is the embedding.
    config.model.decoder.tie_word_embeddings = shape.tie_word_embeddings
    config.model.decoder.attention_head_dim = shape.attention_head_dim  # 0: width / heads
    config.model.decoder.qkv_bias = shape.qkv_bias  # queries, keys and values with biases
    config.model.decoder.dense_bias = shape.dense_bias  # so the output and the MLPs
    config.model.decoder.norm = shape.norm  # "rms", or "layer"
    config.model.decoder.positions = shape.positions  # "rotary", or "learned"
    # Rows before position 0's; 2 in OPT.
    config.model.decoder.position_offset = shape.position_offset
    config.model.decoder.tokens_per_image = 0  # of visual sentences only
    config.model.decoder.place_embeddings = False  # of visual sentences only
    config.model.decoder.look_back = 0  # of visual sentences only
    config.model.decoder.qk_norm = shape.qk_norm  # normalise queries and keys
    config.model.decoder.mlps = shape.mlps  # of consecutive blocks, repeated
    config.model.decoder.dropout = shape.dropout  # of what blocks add to the residual stream
    config.model.decoder.embedding_dropout = shape.embedding_dropout  # of the embeddings
    config.model.decoder.attention_dropout = shape.attention_dropout  # needs attention="xla"

    # For rows longer than the decoder was trained on.
    config.model.decoder.rope_scaling = ConfigDict()
    config.model.decoder.rope_scaling.rope_type = "none"  # or "linear", "llama3"
    config.model.decoder.rope_scaling.factor = 1.0  # how far the wavelengths are stretched
    config.model.decoder.rope_scaling.low_freq_factor = 1.0  # llama3: long wavelengths
    config.model.decoder.rope_scaling.high_freq_factor = 4.0  # llama3: short wavelengths
    # llama3: the row that the decoder was trained on.
    config.model.decoder.rope_scaling.original_max_position_embeddings = 8192

    # Low-rank adapters beside the decoder's frozen weights; projectors, and towers unless frozen, train as ever.
    config.model.decoder.lora = ConfigDict()
    config.model.decoder.lora.rank = 0  # 0: no adapters
    config.model.decoder.lora.alpha = 16.0  # an adapter's product counts alpha / rank times
    # Matrices that get one: query, key, value, out, gate, up, down.
    config.model.decoder.lora.targets = ("query", "value")

    # The MLP "moe", if mlps names it; see experiments/configs/lvm.py.
    config.model.decoder.moe = ConfigDict()
    config.model.decoder.moe.experts = 8  # MLPs of full size
    config.model.decoder.moe.top_k = 2  # experts that a token uses
    config.model.decoder.moe.router = "token"  # what decides
    config.model.decoder.moe.attribute_bits = 8  # bits of an attribute value
    config.model.decoder.moe.mix = "outputs"  # of the chosen experts
    config.model.decoder.moe.dispatch = "capacity"  # how training computes it
    config.model.decoder.moe.spans = ()  # lengths of spans, repeated over a row
    config.model.decoder.moe.capacity_factor = 1.25  # room of an expert
    config.model.decoder.moe.renormalize = False  # divide gates by their sum
    config.model.decoder.moe.noise = 0.0  # on logits in training
    config.model.decoder.moe.balance = "switch"  # what the load balance counts
    config.model.decoder.moe.balance_weight = 0.02  # of the load-balance loss
    config.model.decoder.moe.z_weight = 0.0  # of the mean of logsumexp(logits)^2

    config.model.decoder.quantization = "none"  # of the products in blocks: or "int8", "fp8"
    config.model.decoder.dtype = "bfloat16"  # of activations; parameters and logits are float32
    config.model.decoder.scan_layers = True  # compile one block and loop over it
    config.model.decoder.remat = "dots"  # what the backward pass recomputes; "full", "none"
    config.model.decoder.attention = "auto"  # as for vitdet


def _start(config: Any) -> None:
    """Weights to begin from; "": fresh ones."""
    config.init_from = ConfigDict()
    # A whole model of this project, such as WORKDIR/model of a stage before.
    config.init_from.model = ""
    # The ViTDet tower alone: SAM's, a tower's folder, or a whole model such as Vary-tiny's.
    config.init_from.tower = ""
    config.init_from.clip = ""  # the CLIP tower
    # The decoder; new ids begin as the mean of the others, more positions are interpolated.
    config.init_from.decoder = ""
    # Parameters that are not trained, as paths below `params/` of a checkpoint; in Vary-base both towers.
    config.frozen = ()


def _data(config: Any) -> None:
    config.data = ConfigDict()
    config.data.shards = ""  # a folder of shards or a glob; several with commas between them
    config.data.tokenizer = ""  # folder of the text tokenizer, which names the template too
    # Shares of data sets and sources, such as "pages=2,charts=1"; "": every record once a pass.
    config.data.weights = ""
    config.data.seq_len = 4096  # inputs of a row
    config.data.max_images = 1  # pictures of a row
    # (step, longest answer in characters) of a curriculum; 0: answers of any length.
    config.data.stages = ((0, 0),)
    config.data.fit = "squash"  # how a picture fits the ViTDet tower; "pad", "keep", "crop"
    config.data.clip_fit = "crop"  # how it fits the CLIP tower
    config.data.augment = False  # pages as if printed, scanned and photographed, in training


def _train(config: Any) -> None:
    config.train = ConfigDict()
    config.train.steps = 20_000  # updates
    config.train.batch_size = 256  # rows
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
    """AdamW; 3% of the updates warm up, then a cosine to 0."""
    config.optimizer = ConfigDict()
    config.optimizer.kind = "adamw"  # or "muon": for matrices of blocks, and AdamW for the rest
    config.optimizer.learning_rate = 5e-5  # at the end of the warm-up
    config.optimizer.end_learning_rate = 0.0  # from decay_steps on
    config.optimizer.warmup_steps = 600  # updates of linear rise from 0
    config.optimizer.decay_steps = 20_000  # updates until end_learning_rate, warm-up included
    config.optimizer.schedule = "cosine"  # from the warm-up to decay_steps; or "wsd"
    config.optimizer.b1 = 0.9  # decay of the mean of gradients
    config.optimizer.b2 = 0.999  # decay of the mean of their squares
    config.optimizer.eps = 1e-8  # added to the root of the second
    config.optimizer.weight_decay = 0.0  # times the learning rate
    config.optimizer.decay = "matrices"  # spares norms and biases
    config.optimizer.clip_norm = 1.0  # longest gradient, over all parameters

    # Read with kind="muon".
    config.optimizer.muon = ConfigDict()
    config.optimizer.muon.momentum = 0.95  # decay of the mean of gradients
    config.optimizer.muon.iterations = 5  # of Newton-Schulz
    config.optimizer.muon.update_rms = 0.2  # root mean square of an update at learning rate 1

    # Read with schedule="wsd".
    config.optimizer.wsd = ConfigDict()
    config.optimizer.wsd.decay_fraction = 0.1  # of decay_steps: how long the decay is
    config.optimizer.wsd.shape = "linear"  # or "sqrt"

    # Path of parameters -> their learning rate over the one above: {"vitdet/tower": 0.1}. As published, one for all.
    config.learning_rates = ConfigDict()


def _loss(config: Any) -> None:
    config.loss = ConfigDict()
    config.loss.z_loss = 0.0  # weight of log(Z)^2, which keeps logits from drifting
    config.loss.chunk = 512  # tokens of a row whose logits are in memory together; 0: all
    config.loss.accumulation = 1  # microbatches per batch, computed one after the other


def _evaluation(config: Any) -> None:
    """What to measure while it trains, besides the held-out loss."""
    # Periods in steps; 0: never. An evaluator that is on also follows the last step.
    config.evaluators = ConfigDict()
    config.evaluators.image_use = 0  # loss with the right picture, another, a blank one, by kind

    config.evaluation = ConfigDict()
    config.evaluation.split = "validation"  # of the shards
    config.evaluation.max_records = 512  # of the split; 0: all


def _mesh(config: Any) -> None:
    """Devices along each axis. Their product is the number of devices; one may be -1, for all that remain."""
    config.mesh = ConfigDict()
    config.mesh.data = 1  # replicates the parameters: across slices or slow links
    config.mesh.fsdp = -1  # splits parameters and batch
    config.mesh.context = 1  # splits the sequence
    config.mesh.tensor = 1  # splits heads, MLP and vocabulary
    config.mesh.expert = 1  # splits the experts of a mixture; else as data


def _published(
    config: Any, size: str, pairs: int, passes: int, batch: int, learning_rate: float
) -> None:
    """A row of the table above."""
    steps = pairs * passes // batch
    config.train.update({"steps": steps, "batch_size": batch})
    config.optimizer.update({"learning_rate": learning_rate, "decay_steps": steps})
    config.optimizer.warmup_steps = steps * 3 // 100
    config.evaluators.image_use = 1_000
    config.data.augment = size in ("tiny", "base", "base-vicuna")
    if size == "tiny-600k":
        config.data.seq_len = 2048
        config.optimizer.update({"warmup_steps": 200, "end_learning_rate": 1e-8})
        config.optimizer.weight_decay = 0.05
    if size.startswith("tiny"):
        config.model.decoder.dropout = 0.1  # OPT's own


def _quickstart(config: Any, steps: int, seq_len: int, short_first: bool) -> None:
    """Lines, small charts and shapes on two CPU cores: first single characters, then longer and longer answers."""
    config.model.decoder.dtype = "float32"
    for branch in (config.model.vitdet, config.model.clip):
        if branch is not None:
            branch.tower.update({"dtype": "float32", "remat": "none"})
    config.model.decoder.update({"remat": "none", "dropout": 0.0})
    config.data.update({"seq_len": seq_len, "augment": False})
    # A small model first learns which token to look at.
    shares = ((0.0, 1), (0.1, 2), (0.16, 4), (0.22, 8), (0.3, 0)) if short_first else ((0.0, 0),)
    config.data.stages = tuple((int(share * steps), longest) for share, longest in shares)
    config.train.update({"steps": steps, "batch_size": 16, "log_every": 20})
    config.train.update({"eval_every": 400, "checkpoint_every": 400, "print_config": False})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 20, "decay_steps": steps})
    config.loss.chunk = 0
    config.evaluators.image_use = 400
    # There is no published old vocabulary of this size: it learns in the second stage.
    config.frozen = tuple(path for path in config.frozen if path != "clip/tower")
    # At the decoder's rate a fresh tower ends as a constant before anything is read: the same token for every picture.
    if config.model.clip is None:
        config.learning_rates["vitdet/tower"] = 0.4
        config.optimizer.warmup_steps = steps // 6
    else:
        config.learning_rates["clip/tower"] = 0.15


def _debug(config: Any) -> None:
    """Any size on a laptop in seconds."""
    config.data.update({"seq_len": 24, "weights": "", "stages": ((0, 0),)})
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2})
    config.train.update({"eval_every": 3, "checkpoint_every": 3})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 2, "decay_steps": 6})
    config.evaluators.image_use = 3
    config.evaluation.max_records = 16
