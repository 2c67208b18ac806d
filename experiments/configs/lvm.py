r"""Pretraining of the decoder on token shards.

python experiments/train.py --config=experiments/configs/lvm.py:3b --workdir=gs://BUCKET/lvm-3b \
    --config.data.shards=gs://BUCKET/uvd

The argument is a size (debug, 100m, 300m, 600m, 1b, 3b, 7b, 13b, 20b, 30b, quickstart, small); `3b,runlocal` shrinks
any of them to a laptop. The recipe is the published one (LVM, arXiv 2312.00785, and its code's README), with two
differences: sentences are kept apart by segment ids, and norms are not decayed.
"""

from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.models import presets


def get_config(arg: str | None = None) -> ConfigDict:
    """The configuration of one size."""
    args = parse_arg(arg, size="300m", runlocal=False)
    config: Any = ConfigDict()
    config.recipe = "lvm"  # what is built from these keys: lvm_jax/recipes/lvm.py
    _model(config, args["size"])
    _fine_tuning(config)
    _data(config)
    _train(config)
    _optimizer(config)
    _loss(config)
    _evaluation(config)
    _mesh(config)
    if args["size"] in ("quickstart", "small"):
        _quickstart(config)
    if args["size"] == "small":
        _small(config)
    if args["runlocal"]:
        _runlocal(config)
    return config


def _model(config: Any, size: str) -> None:
    """The decoder: its shape, in Hugging Face's names, and how it is computed."""
    shape = presets.llama(size)
    config.model = ConfigDict()
    config.model.vocab_size = shape.vocab_size  # codes, and the 100 reserved ids behind them
    config.model.hidden_size = shape.hidden_size  # width of the residual stream
    config.model.intermediate_size = shape.intermediate_size  # width of the MLP
    config.model.num_hidden_layers = shape.num_hidden_layers  # blocks
    config.model.num_attention_heads = shape.num_attention_heads  # query heads
    config.model.num_key_value_heads = shape.num_key_value_heads  # divides num_attention_heads
    config.model.bos_token_id = shape.bos_token_id  # begins a visual sentence
    config.model.eos_token_id = shape.eos_token_id  # ends it
    config.model.pad_token_id = shape.pad_token_id  # fills a row
    config.model.rms_norm_eps = shape.rms_norm_eps  # added to the mean square
    config.model.rope_theta = shape.rope_theta  # base of the rotary wavelengths
    config.model.initializer_range = shape.initializer_range  # standard deviation of a fresh matrix
    # The context that the model is made for: recorded for other libraries, not enforced.
    config.model.max_position_embeddings = shape.max_position_embeddings
    config.model.tie_word_embeddings = shape.tie_word_embeddings  # the head is the embedding
    config.model.attention_head_dim = 0  # 0: hidden_size / num_attention_heads
    config.model.qkv_bias = False  # queries, keys and values with biases, as in Qwen2
    # Attention's output and the MLPs with biases, as in OPT and GPT-2.
    config.model.dense_bias = shape.dense_bias
    config.model.norm = shape.norm  # "rms", or "layer"
    # "rotary"; "rotary_2d" by image, row and column; or "learned".
    config.model.positions = shape.positions
    config.model.position_offset = shape.position_offset  # rows before position 0's; 2 in OPT
    # Codes of an image, the tokenizer's; for place_embeddings and "rotary_2d" only, else 0.
    config.model.tokens_per_image = shape.tokens_per_image
    # A learned vector for each place in an image, added to the embeddings.
    config.model.place_embeddings = shape.place_embeddings
    # Add to each embedding what stood so many tokens before: the codes of an image, or 0.
    config.model.look_back = shape.look_back
    config.model.qk_norm = shape.qk_norm  # normalise queries and keys, as in Qwen3
    config.model.mlps = shape.mlps  # of consecutive blocks, repeated: "swiglu", "relu", "gelu_tanh"
    config.model.dropout = shape.dropout  # of what blocks add to the residual stream
    config.model.embedding_dropout = shape.embedding_dropout  # of the embeddings
    config.model.attention_dropout = shape.attention_dropout  # needs attention="xla"

    # For rows longer than the decoder was trained on.
    config.model.rope_scaling = ConfigDict()
    config.model.rope_scaling.rope_type = "none"  # or "linear", "llama3"
    config.model.rope_scaling.factor = 1.0  # how far the wavelengths are stretched
    config.model.rope_scaling.low_freq_factor = 1.0  # llama3: long wavelengths, stretched in full
    config.model.rope_scaling.high_freq_factor = 4.0  # llama3: short wavelengths, left alone
    # llama3: the row that the decoder was trained on.
    config.model.rope_scaling.original_max_position_embeddings = 8192

    # Low-rank adapters beside frozen weights, for fine-tuning.
    config.model.lora = ConfigDict()
    config.model.lora.rank = 0  # 0: no adapters, and all weights are trained
    config.model.lora.alpha = 16.0  # an adapter's product counts alpha / rank times
    # Matrices that get one: query, key, value, out, gate, up, down.
    config.model.lora.targets = ("query", "value")

    # The MLP "moe", if mlps names it: a mixture of experts.
    config.model.moe = ConfigDict()
    config.model.moe.experts = 8  # MLPs of full size
    config.model.moe.top_k = 2  # experts that a token uses
    config.model.moe.router = "token"  # what decides: "token", "attribute" or "none"
    config.model.moe.attribute_bits = 8  # bits of an attribute value
    config.model.moe.mix = "outputs"  # of the chosen experts; "weights" merges them first
    # How training computes it: "capacity", "spans" (of equal attributes) or "all_experts".
    config.model.moe.dispatch = "capacity"
    config.model.moe.spans = ()  # lengths of spans, repeated over a row
    config.model.moe.capacity_factor = 1.25  # room of an expert, in even shares of a row; 0: all
    config.model.moe.renormalize = False  # divide gates by the sum of the chosen ones
    config.model.moe.noise = 0.0  # on logits in training, times experts; 1 in V-MoE
    config.model.moe.balance = "switch"  # counts first choices; "mixtral" counts all
    config.model.moe.balance_weight = 0.02  # of the load-balance loss, summed over layers
    config.model.moe.z_weight = 0.0  # of the mean of logsumexp(logits)^2

    config.model.quantization = "none"  # of the products in blocks: or "int8", "fp8"
    config.model.dtype = "bfloat16"  # of activations; parameters, norms, logits are float32
    config.model.scan_layers = True  # compile one block and loop over it
    # What the backward pass recomputes: all but products with weights; "full": all; "none".
    config.model.remat = "dots"
    config.model.attention = "auto"  # or "xla", "chunked", "splash" (TPU), "cudnn" (GPU)


def _fine_tuning(config: Any) -> None:
    # A model folder of this shape to start from, ours or Hugging Face's; "": fresh weights.
    config.init_from = ""
    # Parameters that are not trained, as paths below `params/` of a checkpoint: ("embedding", "layers/*_norm").
    config.frozen = ()


def _data(config: Any) -> None:
    config.data = ConfigDict()
    config.data.shards = ""  # a folder of shards or a glob; several with commas between them
    # Shares of the images, such as "laion=9,coco=1"; "": every sentence once an epoch.
    config.data.weights = ""
    config.data.seq_len = 4096  # 16 images of 256 tokens; a row has one more token, for the labels
    config.data.packing = "packed"  # "concat" is the paper's: concatenate and cut
    # Loss weight of codes that only ask: of images that are not the last of a repeated group such as
    # (image, depth). 1: all codes weigh alike.
    config.data.question_weight = 1.0
    # Share of the codes that a step reads which are replaced by random ones; labels stay. 0: none.
    config.data.code_noise = 0.0


def _train(config: Any) -> None:
    config.train = ConfigDict()
    config.train.steps = 200_000  # x 2M tokens = 420B, the paper's one epoch
    config.train.batch_size = 512  # rows; 2,097,152 tokens
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
    """AdamW, or Muon for the blocks' matrices; the rate rises linearly, then falls."""
    config.optimizer = ConfigDict()
    config.optimizer.kind = "adamw"  # or "muon": for matrices of blocks, and AdamW for the rest
    config.optimizer.learning_rate = 1.5e-4  # at the end of the warm-up
    config.optimizer.end_learning_rate = 3e-5  # from decay_steps on
    config.optimizer.warmup_steps = 8_000  # updates of linear rise from 0
    # Updates until end_learning_rate, warm-up included; the published 288,000 were never reached.
    config.optimizer.decay_steps = 200_000
    config.optimizer.schedule = "cosine"  # from the warm-up to decay_steps; or "wsd"
    config.optimizer.b1 = 0.9  # decay of the mean of gradients
    config.optimizer.b2 = 0.95  # decay of the mean of their squares
    config.optimizer.eps = 1e-8  # added to the root of the second
    config.optimizer.weight_decay = 0.1  # times the learning rate
    config.optimizer.decay = "matrices"  # spares norms and biases; "all" is the published choice
    config.optimizer.clip_norm = 1.0  # longest gradient, over all parameters

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


def _loss(config: Any) -> None:
    config.loss = ConfigDict()
    config.loss.z_loss = 0.0  # weight of log(Z)^2, which keeps logits from drifting; 0 as published
    config.loss.chunk = 0  # tokens of a row whose logits are in memory together; 0: all
    config.loss.accumulation = 1  # microbatches per batch, computed one after the other


def _evaluation(config: Any) -> None:
    """What to measure while it trains, besides the held-out loss; see docs/evaluation.md."""
    # Periods in steps; 0: never. An evaluator that is on also follows the last step.
    config.evaluators = ConfigDict()
    config.evaluators.next_token = 0  # loss by source, category and annotation, beside baselines
    config.evaluators.controls = 0  # what query, pairs and frames before are worth, for each task
    config.evaluators.in_context = 0  # perplexity of the last frame against the images before it
    config.evaluators.annotations = 0  # perplexity of each annotation type after some pairs
    # Answers in context; needs evaluation.benchmarks and evaluation.tokenizer.
    config.evaluators.benchmarks = 0

    config.evaluation = ConfigDict()
    config.evaluation.split = "validation"  # of the shards
    config.evaluation.max_sentences = 256  # of the split, evenly spread; 0: all
    config.evaluation.control_sentences = 64  # of each task of controls; each is scored 7 times
    config.evaluation.context_sentences = 48  # a curve of in_context, a type of annotations; 0: all
    config.evaluation.shots = 5  # pairs before an annotation or a question
    config.evaluation.batch_size = 4  # sentences of full length, or questions, at once
    config.evaluation.benchmarks = ""  # "NAME=ROOT,...": which benchmarks, and where their data is
    config.evaluation.tokenizer = ""  # folder of the VQGAN; benchmarks need it
    config.evaluation.episodes = 64  # questions of each benchmark


def _mesh(config: Any) -> None:
    """Devices along each axis. Their product is the number of devices; one may be -1, for all that remain."""
    config.mesh = ConfigDict()
    config.mesh.data = 1  # replicates the parameters: across slices or slow links
    config.mesh.fsdp = -1  # splits parameters and batch
    config.mesh.context = 1  # splits the sequence
    config.mesh.tensor = 1  # splits heads, MLP and vocabulary
    config.mesh.expert = 1  # splits the experts of a mixture; else as data


def _quickstart(config: Any) -> None:
    """About four minutes on two CPU cores: 8 images of 64 tokens a row."""
    config.model.dtype = "float32"
    config.data.seq_len = 512
    config.data.question_weight = 0.1
    config.train.update({"steps": 1500, "batch_size": 4, "log_every": 10})
    config.train.update({"eval_every": 500, "checkpoint_every": 100, "print_config": False})
    config.optimizer.update({"kind": "muon", "learning_rate": 4e-3, "end_learning_rate": 1e-4})
    config.optimizer.update({"warmup_steps": 40, "decay_steps": 1500})


def _small(config: Any) -> None:
    """The released model, in hours of two CPU cores: 16 images of 64 tokens a row."""
    config.data.seq_len = 1024
    config.train.update({"steps": 6000, "eval_every": 1000})
    config.optimizer.update({"warmup_steps": 60, "decay_steps": 6000, "schedule": "wsd"})
    config.optimizer.wsd.decay_fraction = 0.3


def _runlocal(config: Any) -> None:
    """Any size on a laptop in seconds: two thin layers, a few steps."""
    config.model.update({"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2})
    config.model.update({"num_attention_heads": 4, "num_key_value_heads": 4})
    config.model.update({"dtype": "float32", "remat": "none"})
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2})
    config.train.update({"eval_every": 3, "checkpoint_every": 3})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 2, "decay_steps": 6})
