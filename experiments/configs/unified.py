r"""Pretraining of the unified in-context decoder on pools of pictures (arXiv 2312.02520).

python experiments/train.py --config=experiments/configs/unified.py:published --workdir=DIR \
    --config.data.shards=POOLS --config.data.text_tokenizer=GPT2

The argument is a size (debug, quickstart, small, published), then by name: experts=attribute, token or dense; mt=False
for mixed batches and plain AdamW; text=, image= and bins= for the sizes of the vocabulary (bins=0: no boxes, 51,290
ids), tokens= for the codes of a picture; `published,runlocal` shrinks any size to a laptop. The rows of the paper's
Table 3:

    single task       experts=dense,mt=False --config.data.questions='("segmentation",)'
    all tasks         experts=dense,mt=False
    + MoE             experts=token,mt=False
    + AG_MoE          experts=attribute,mt=False
    + MT              experts=dense
    + AG_MoE + MT     (no argument: the published system)
"""

from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.vocabulary import Vocabulary

# What an argument does not say, by size: ids of text, codes, bins, codes of a picture.
_SIZES = {
    "debug": (512, 256, 65, 16),
    "quickstart": (512, 512, 65, 64),
    "small": (512, 512, 65, 64),
    "published": (50_257, 1_024, 1_001, 256),
}


def get_config(arg: str | None = None) -> ConfigDict:
    """The configuration of one size."""
    args = parse_arg(
        arg,
        size="published",
        experts="attribute",
        mt=True,
        text=0,
        image=0,
        bins=-1,  # 0 is a size too: no brackets
        tokens=0,
        runlocal=False,
    )
    size = args["size"]
    if size not in _SIZES:
        raise UserError(f"config argument size={size!r} does not exist; known: {', '.join(_SIZES)}")
    text, image, bins, tokens = _SIZES[size]
    text, image, tokens = args["text"] or text, args["image"] or image, args["tokens"] or tokens
    bins = bins if args["bins"] < 0 else args["bins"]
    config: Any = ConfigDict()
    config.recipe = "unified"  # what is built from these keys: lvm_jax/recipes/unified.py
    _vocabulary(config, text, image, bins)
    _format(config, tokens)
    _rows(config, brackets=bins > 0)
    _data(config, args["mt"])
    _model(config, size, args["experts"])
    config.init_from = ""  # a model folder of this shape to start from; "": fresh weights
    _train(config)
    _optimizer(config, args["mt"])
    _loss(config)
    _evaluation(config)
    _mesh(config)
    if size != "published":
        _quickstart(config)
    if size in ("quickstart", "small"):
        # Of both questions together, whatever mt says.
        config.optimizer.update({"kind": "muon", "balance": False})
    if size == "small":
        _small(config)
    if args["runlocal"]:
        _runlocal(config)
    return config


def _vocabulary(config: Any, text: int, image: int, bins: int) -> None:
    """51,290 ids, and 1,005 for boxes and categories. The argument sets the sizes here and in the decoder."""
    config.vocabulary = ConfigDict()
    config.vocabulary.text = text  # ids of the text tokenizer
    config.vocabulary.image = image  # codes of the image tokenizer
    config.vocabulary.bins = bins  # places along an edge for corners of boxes; 0: no brackets


def _format(config: Any, tokens: int) -> None:
    config.format = ConfigDict()
    config.format.tokens_per_image = tokens  # codes of a picture, the tokenizer's; room of words
    config.format.category_room = 0  # tokens for a class before each pair; 0 as published: none
    config.format.output_weight = 1.0  # L_out: loss weight of the answers' tokens
    # L_in: of the pictures' codes; 0.5 for captions alone in the paper, 0 for both questions.
    config.format.input_weight = 0.0


def _rows(config: Any, brackets: bool) -> None:
    config.rows = ConfigDict()
    config.rows.shots = (0.0, 0.0, 0.0, 1.0)  # chance of 0, 1, 2, ... examples
    # How often the class stands before pairs, in format.category_room.
    config.rows.category = ConfigDict()
    config.rows.category.none = 1.0  # before none
    config.rows.category.examples = 0.0  # before examples only
    config.rows.category.all = 0.0  # before examples and the query
    config.rows.say_category = brackets  # words begin with the class in its brackets
    # "text": words say boxes; "image": drawn into the picture; "none".
    config.rows.boxes = "text" if brackets else "none"


def _model(config: Any, size: str, experts: str) -> None:
    """The decoder: its shape, in Hugging Face's names, and how it is computed."""
    vocabulary = Vocabulary.unified(
        config.vocabulary.text, config.vocabulary.image, config.vocabulary.bins
    )
    shape = presets.unified(size, vocabulary)
    config.model = ConfigDict()
    config.model.vocab_size = shape.vocab_size  # of config.vocabulary
    config.model.hidden_size = shape.hidden_size  # width of the residual stream
    config.model.intermediate_size = shape.intermediate_size  # width of the MLP
    config.model.num_hidden_layers = shape.num_hidden_layers  # blocks
    config.model.num_attention_heads = shape.num_attention_heads  # query heads
    config.model.num_key_value_heads = shape.num_key_value_heads  # divides num_attention_heads
    config.model.bos_token_id = shape.bos_token_id  # begins a picture
    config.model.eos_token_id = shape.eos_token_id  # ends a pair
    config.model.pad_token_id = shape.pad_token_id  # fills words and rows
    config.model.rms_norm_eps = shape.rms_norm_eps  # added to the mean square
    config.model.rope_theta = shape.rope_theta  # base of the rotary wavelengths
    config.model.initializer_range = shape.initializer_range  # standard deviation of a fresh matrix
    # Learned positions; the published 2,060 are three examples and a query of 515 tokens.
    config.model.max_position_embeddings = shape.max_position_embeddings
    config.model.tie_word_embeddings = shape.tie_word_embeddings  # the head is the embedding
    config.model.attention_head_dim = 0  # 0: hidden_size / num_attention_heads
    config.model.qkv_bias = shape.qkv_bias  # queries, keys and values with biases
    # Attention's output and the MLPs with biases, as in OPT and GPT-2.
    config.model.dense_bias = shape.dense_bias
    config.model.norm = shape.norm  # "rms", or "layer"
    # "rotary"; "rotary_2d" by image, row and column; or "learned".
    config.model.positions = shape.positions
    config.model.position_offset = shape.position_offset  # rows before position 0's; 2 in OPT
    # For place_embeddings: after how many tokens places come again, those of a pair; else 0.
    config.model.tokens_per_image = shape.tokens_per_image
    # A learned vector for each place in a pair, added to the embeddings.
    config.model.place_embeddings = shape.place_embeddings
    # Add to each embedding what stood so many tokens before: codes of a picture and 1, or 0.
    config.model.look_back = shape.look_back
    config.model.qk_norm = shape.qk_norm  # normalise queries and keys, as in Qwen3
    # Of consecutive blocks, repeated: "gelu_tanh" is GPT-2's, "moe" has experts.
    config.model.mlps = ("gelu_tanh",) if experts == "dense" else ("gelu_tanh", "moe")
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

    # The MLP "moe". What the paper leaves open is as in Uni-Perceiver-MoE (arXiv 2206.04674).
    _moe(config, experts)
    config.model.quantization = "none"  # of the products in blocks: or "int8", "fp8"
    config.model.dtype = "bfloat16"  # of activations; parameters, norms, logits are float32
    config.model.scan_layers = True  # compile one block and loop over it
    # What the backward pass recomputes: all but products with weights; "full": all; "none".
    config.model.remat = "dots"
    # The one that drops attention's weights; "splash" and others need attention_dropout=0.
    config.model.attention = "xla"


def _moe(config: Any, experts: str) -> None:
    if experts not in ("attribute", "token", "dense"):
        raise UserError(
            f"config argument experts={experts!r} does not exist; known: attribute, token, dense"
        )
    by_attribute, shape = experts == "attribute", MoEConfig()
    by_span = by_attribute and config.data.one_question
    N, room = config.format.tokens_per_image, config.format.category_room
    config.model.moe = ConfigDict()
    config.model.moe.experts = shape.experts  # MLPs of full size
    config.model.moe.top_k = shape.top_k  # experts that a token uses
    # What decides: "token", "attribute" (question, modality, role, example or query) or "none".
    config.model.moe.router = "attribute" if by_attribute else "token"
    config.model.moe.attribute_bits = shape.attribute_bits  # bits of an attribute value
    config.model.moe.mix = "outputs"  # of the chosen experts; "weights" merges them first
    # How training computes it: "capacity" drops what finds no room; "spans" of equal attributes are
    # decided once for all rows of a batch, which must ask the same; or "all_experts".
    config.model.moe.dispatch = (
        "spans" if by_span else "all_experts" if by_attribute else "capacity"
    )
    # Lengths of spans, repeated over a row: of a pair's class, picture and answer.
    config.model.moe.spans = tuple(n for n in (room, N + 1, N + 2) if n) if by_span else ()
    config.model.moe.capacity_factor = 1.25  # room of an expert, in even shares of a row; 0: all
    config.model.moe.renormalize = False  # divide gates by the sum of the chosen ones
    config.model.moe.noise = 0.0  # on logits in training, times experts; 1 in V-MoE
    config.model.moe.balance = "switch"  # counts first choices; "mixtral" counts all
    config.model.moe.balance_weight = 0.02  # of the load-balance loss, summed over layers
    config.model.moe.z_weight = 0.0  # of the mean of logsumexp(logits)^2


def _data(config: Any, mt: bool) -> None:
    config.data = ConfigDict()
    config.data.shards = ""  # a folder of pools or a glob; several with commas between them
    config.data.text_tokenizer = ""  # folder of the text tokenizer
    config.data.questions = ("segmentation", "captioning")  # what is asked
    # One question a batch, on all hosts; False mixes them within a batch.
    config.data.one_question = mt
    # Of the batches, such as "segmentation=1,captioning=2"; "": by the root of the number of records.
    config.data.shares = ""
    config.data.classes = "seen"  # "unseen" or "all" of those that the pools keep from training
    config.data.fewest = 0  # pictures that a class must have; smaller classes are left out


def _train(config: Any) -> None:
    config.train = ConfigDict()
    config.train.steps = 63_000  # 40 epochs of about 810,000 records
    config.train.batch_size = 512  # rows; 1,054,208 tokens
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


def _optimizer(config: Any, mt: bool) -> None:
    """AdamW; with one question a batch, on task-balanced gradients (arXiv 2211.09808)."""
    config.optimizer = ConfigDict()
    config.optimizer.kind = "adamw"  # or "muon" for the matrices of blocks
    # Gradients of each question have norm 1 and enter both alike, however often it is asked.
    config.optimizer.balance = mt
    config.optimizer.weights = ()  # norms of the questions' gradients, in their order; (): 1 each
    config.optimizer.learning_rate = 1e-4  # at the end of the warm-up
    config.optimizer.end_learning_rate = 1e-6  # from decay_steps on
    config.optimizer.warmup_steps = 1_000  # updates of linear rise from 0; not published
    config.optimizer.decay_steps = 63_000  # updates until end_learning_rate, warm-up included
    config.optimizer.schedule = "cosine"  # from the warm-up to decay_steps; or "wsd"
    config.optimizer.b1 = 0.9  # decay of the mean of gradients; not published
    config.optimizer.b2 = 0.999  # decay of the mean of their squares; not published
    config.optimizer.eps = 1e-8  # added to the root of the second
    config.optimizer.weight_decay = 0.05  # times the learning rate
    config.optimizer.decay = "matrices"  # spares norms and biases; or "all"
    # Longest gradient; 0.5 is published. Balanced gradients have norm 1: clipping would halve all.
    config.optimizer.clip_norm = 1.0 if mt else 0.5

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
    config.loss.z_loss = 0.0  # weight of log(Z)^2, which keeps logits from drifting
    config.loss.chunk = 0  # tokens of a row whose logits are in memory together; 0: all
    config.loss.accumulation = 1  # microbatches per batch, computed one after the other


def _evaluation(config: Any) -> None:
    """What to measure while it trains, besides the held-out loss of each question; see docs/unified.md."""
    # Periods in steps; 0: never. An evaluator that is on also follows the last step.
    config.evaluators = ConfigDict()
    config.evaluators.controls = 0  # what examples and query are worth to the true answer
    config.evaluators.gradients = 0  # norms of the questions' gradients, and their cosine, by block
    config.evaluators.answers = 0  # drawn answers beside baselines; needs evaluation.tokenizer

    config.evaluation = ConfigDict()
    config.evaluation.split = "validation"  # of the pools
    config.evaluation.rows = 256  # of each question for the held-out loss; 0: all
    config.evaluation.episodes = 64  # of each question for controls and answers
    config.evaluation.tokenizer = ""  # folder of the VQGAN; answers need it
    # By which captions are compared: "colour=red blue,side=left right".
    config.evaluation.word_sets = ""


def _mesh(config: Any) -> None:
    """Devices along each axis. Their product is the number of devices; one may be -1, for all that remain."""
    config.mesh = ConfigDict()
    config.mesh.data = 1  # replicates the parameters: across slices or slow links
    config.mesh.fsdp = -1  # splits parameters and batch
    config.mesh.context = 1  # splits the sequence, which experts do not allow
    config.mesh.tensor = 1  # splits heads, MLP and vocabulary
    config.mesh.expert = 1  # splits the experts of a mixture; else as data


def _quickstart(config: Any) -> None:
    """Things and tiles on two CPU cores: none to three examples, classes in words or not, no dropout."""
    config.rows.shots = (0.1, 0.1, 0.2, 0.6)
    if config.vocabulary.bins:  # and with them brackets
        # They and four tokens: a name of a colour that no caption of training has is spelt.
        config.format.category_room = 6
        config.rows.category = ConfigDict({"none": 0.5, "examples": 0.25, "all": 0.25})
        if config.model.moe.dispatch == "spans":
            config.model.moe.spans = (config.format.category_room, *config.model.moe.spans)
    _pairwise(config)
    config.model.moe.experts = 4
    config.model.update({"dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0})
    config.model.update({"dtype": "float32", "remat": "none"})
    config.data.shares = "segmentation=2,captioning=1"
    config.train.update({"steps": 450, "batch_size": 8, "log_every": 10})
    config.train.update({"eval_every": 150, "checkpoint_every": 50, "print_config": False})
    config.optimizer.update({"learning_rate": 4e-3, "end_learning_rate": 1e-4})
    config.optimizer.update({"warmup_steps": 40, "decay_steps": 450, "schedule": "wsd"})
    config.optimizer.wsd.decay_fraction = 0.3
    config.optimizer.b2 = 0.95
    config.evaluation.update({"rows": 64, "episodes": 24})


def _pairwise(config: Any) -> None:
    """Each code of a mask sees its picture's code at the same place; one place of all pairs has one vector."""
    pair = config.format.category_room + 2 * config.format.tokens_per_image + 3
    config.model.update({"look_back": config.format.tokens_per_image + 1, "qk_norm": True})
    config.model.update({"place_embeddings": True, "tokens_per_image": pair})
    config.model.update({"positions": "rotary", "rope_theta": 1000.0})
    # About 1/sqrt(128): so narrow a model attends from the first steps on.
    config.model.initializer_range = 0.08


def _small(config: Any) -> None:
    """About five million parameters, for hours on two CPU cores."""
    config.train.update({"steps": 10_000, "batch_size": 16})
    config.train.update({"eval_every": 1000, "checkpoint_every": 500})
    config.model.initializer_range = 0.07
    config.optimizer.update({"learning_rate": 2e-3, "warmup_steps": 100, "decay_steps": 10_000})


def _runlocal(config: Any) -> None:
    """Any size on a laptop in seconds: two thin layers, a few steps."""
    config.model.update({"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2})
    config.model.update({"num_attention_heads": 2, "num_key_value_heads": 2})
    config.model.update({"dtype": "float32", "remat": "none"})
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2})
    config.train.update({"eval_every": 3, "checkpoint_every": 3})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 2, "decay_steps": 6})
