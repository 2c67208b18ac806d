"""What a decoder is, before any array exists: its configuration, its size, its cost."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.moe_config import MoEConfig

# Vocabulary tables are padded to a multiple of this, because LVM's 8292 = 4 * 3 * 691 rows do not divide over eight
# tensor-parallel devices.
VOCAB_MULTIPLE = 128


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How a decoder trained on short rows stretches its rotary wavelengths for longer ones.

    Attributes:
      rope_type: "none"; "linear" divides every position by `factor`; "llama3" stretches long wavelengths by `factor`,
        keeps short ones, and blends in between (as transformers does for Llama 3.1).
      factor: of the stretch.
      low_freq_factor: llama3: wavelengths above original_max_position_embeddings / this are stretched in full.
      high_freq_factor: llama3: those below original_max_position_embeddings / this are left alone.
      original_max_position_embeddings: llama3: length of the rows that the decoder was trained on.
    """

    rope_type: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        known = ("none", "linear", "llama3")
        if self.rope_type not in known:
            raise UserError(
                f"rope_type={self.rope_type!r} does not exist; known: {', '.join(known)}"
            )
        if self.factor < 1:
            raise UserError(f"rope_scaling factor={self.factor}: it must be at least 1")
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise UserError(
                f"rope_scaling low_freq_factor={self.low_freq_factor} must be above 0 and below "
                f"high_freq_factor={self.high_freq_factor}"
            )
        if self.original_max_position_embeddings < 1:
            raise UserError(
                f"rope_scaling original_max_position_embeddings={self.original_max_position_embeddings}: it must be at "
                "least 1"
            )


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters beside frozen matrices (Hu et al., arXiv 2106.09685, section 4.1).

    Attributes:
      rank: of an adapter; 0: no adapters, and every weight is trained.
      alpha: an adapter's product is multiplied by alpha / rank.
      targets: which matrices of every block get an adapter.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        known = ("query", "key", "value", "out", "gate", "up", "down")
        wrong = [name for name in self.targets if name not in known]
        if wrong or not self.targets:
            raise UserError(
                f"lora targets={self.targets}: choose at least one of {', '.join(known)}"
            )
        if self.rank < 0 or self.alpha <= 0:
            raise UserError(
                f"lora rank={self.rank}, alpha={self.alpha}: rank is at least 0 and alpha above 0"
            )


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder, in Hugging Face's names, and how to compute it. The defaults are LLaMA's.

    Attributes:
      vocab_size: size of the published vocabulary: all ids, reserved ones included.
      hidden_size: width D of the residual stream.
      intermediate_size: width F of the MLPs.
      num_hidden_layers: blocks.
      num_attention_heads: query heads.
      num_key_value_heads: divides num_attention_heads; equal to it in every published LVM.
      bos_token_id: begins a sentence.
      eos_token_id: ends it.
      pad_token_id: fills a row.
      rms_norm_eps: added to the mean square of an RMSNorm, and to the variance of a LayerNorm.
      rope_theta: base of the rotary wavelengths.
      initializer_range: standard deviation of every matrix at initialisation.
      max_position_embeddings: context length. With rotary positions it is only recorded for other libraries; learned
        positions have that many vectors and refuse longer rows.
      tie_word_embeddings: the head is the transposed embedding.
      attention_head_dim: dimensions of a head, even for rotary positions; 0: hidden_size / num_attention_heads.
      qkv_bias: queries, keys and values have biases, as in Qwen2, OPT and GPT-2.
      rope_scaling: for rows longer than those of training.
      lora: adapters, for fine-tuning.
      quantization: of products with the blocks' matrices, always and not only in training: int8, or fp8 (e4m3 forward,
        e5m2 gradients); needs qwix. Attention, norms and the head are not quantised.
      dtype: of activations and products; parameters, norms, softmax and logits are fp32.
      scan_layers: compile one period and loop over it, instead of compiling all blocks; the parameters are the same.
      remat: what the backward pass recomputes: nothing, all of a period, or all but its products with weights.
      attention: "auto", or a key of `lvm_jax.models.attention.attend.IMPLEMENTATIONS`.
      norm: RMSNorm, or LayerNorm with a bias.
      positions: rotations of queries and keys by the place in the row ("rotary") or by image, row and column
        ("rotary_2d", see `rope.image_rope_table`), or learned vectors added to the embeddings.
      position_offset: rows of the table of learned positions before position 0; 2 in OPT.
      tokens_per_image: codes of an image, for rotary_2d (which needs a square), and place_embeddings; 0 without both.
        They assume sentences of BOS and whole images: position p > 0 is code (p - 1) mod tokens_per_image of its image.
        In rows of pairs, whose places come again after a whole pair, the tokens of a pair.
      place_embeddings: a learned vector for each place within an image, added to the embeddings: input p gets that of
        the code that it predicts, p mod tokens_per_image.
      look_back: how many tokens before each one its counterpart in the image before stands, the codes of an image in
        visual sentences; from a mask to its picture in rows of pairs. Each embedding then has a part of that token's;
        see `look_back.LookBack`. 0: none has.
      qk_norm: an RMSNorm of each head's queries and keys before they are rotated, as in Qwen3 (arXiv 2505.09388,
        section 2) and ViT-22B (arXiv 2302.05442, section 2).
      mlps: kinds of MLP of consecutive blocks, a period that repeats up to the last block: ("swiglu",) in all blocks,
        ("gelu_tanh", "moe") in turns. Keys of the table that the decoder is built with.
      dense_bias: attention's output and the MLPs have biases, as in OPT and GPT-2.
      dropout: rate for what attention and MLPs add to the residual stream, in [0, 1). All three rates take effect only
        if the caller passes a dropout key.
      embedding_dropout: rate for the embeddings.
      attention_dropout: rate for attention's weights; only the plain implementation ("xla") supports it.
      moe: what the MLP "moe" is, if `mlps` names it.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    initializer_range: float = 0.02
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = False
    attention_head_dim: int = 0
    qkv_bias: bool = False
    rope_scaling: RopeScaling = RopeScaling()
    lora: LoRAConfig = LoRAConfig()
    quantization: Literal["none", "int8", "fp8"] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: Literal["none", "full", "dots"] = "dots"
    attention: Literal["auto", "xla", "chunked", "splash", "cudnn"] = "auto"
    norm: Literal["rms", "layer"] = "rms"
    positions: Literal["rotary", "rotary_2d", "learned"] = "rotary"
    position_offset: int = 0
    tokens_per_image: int = 0
    place_embeddings: bool = False
    look_back: int = 0
    qk_norm: bool = False
    mlps: tuple[str, ...] = ("swiglu",)
    dense_bias: bool = False
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    moe: MoEConfig = MoEConfig()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_heads()
        self._check_experts()
        self._check_ids()
        self._check_choices()
        self._check_images()

    def _check_sizes(self) -> None:
        for name, size in (
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ):
            if size < 1:
                raise UserError(f"{name}={size}: it must be at least 1")
        for name, number in (
            ("position_offset", self.position_offset),
            ("rms_norm_eps", self.rms_norm_eps),
        ):
            if number < 0:
                raise UserError(f"{name}={number}: it must be at least 0")
        if self.rope_theta <= 0:
            raise UserError(f"rope_theta={self.rope_theta}: it must be above 0")
        if not self.mlps or self.num_hidden_layers % len(self.mlps):
            raise UserError(
                f"mlps={self.mlps} has {len(self.mlps)} places and num_hidden_layers={self.num_hidden_layers}: "
                "the period must have at least one place and divide the layers"
            )

    def _check_heads(self) -> None:
        # Rotary positions turn dimensions in pairs.
        pairs = 1 if self.positions == "learned" else 2
        if self.attention_head_dim % pairs or self.attention_head_dim < 0:
            raise UserError(
                f"attention_head_dim={self.attention_head_dim}: it must be even, or 0 for "
                "hidden_size / num_attention_heads"
            )
        if not self.attention_head_dim and self.hidden_size % (pairs * self.num_attention_heads):
            raise UserError(
                f"hidden_size={self.hidden_size} over num_attention_heads={self.num_attention_heads} heads: "
                f"it must split into an{' even' if pairs == 2 else ' equal'} number of dimensions a head"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_key_value_heads={self.num_key_value_heads} must divide "
                f"num_attention_heads={self.num_attention_heads}"
            )

    def _check_experts(self) -> None:
        for name, on in (
            (f"quantization={self.quantization!r}", self.quantization != "none"),
            (f"lora rank={self.lora.rank}", self.lora.rank > 0),
        ):
            if on and "moe" in self.mlps:
                raise UserError(
                    f"{name} with mlps={self.mlps}: experts are neither quantised nor adapted; leave one of the two out"
                )

    def _check_ids(self) -> None:
        for name, id in (
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", self.pad_token_id),
        ):
            if not 0 <= id < self.vocab_size:
                raise UserError(f"{name}={id} is not an id below vocab_size={self.vocab_size}")

    def _check_choices(self) -> None:
        for name, value, known in (
            ("quantization", self.quantization, ("none", "int8", "fp8")),
            ("dtype", self.dtype, ("float32", "bfloat16")),
            ("remat", self.remat, ("none", "full", "dots")),
            ("attention", self.attention, ("auto", "xla", "chunked", "splash", "cudnn")),
            ("norm", self.norm, ("rms", "layer")),
            ("positions", self.positions, ("rotary", "rotary_2d", "learned")),
        ):
            if value not in known:
                raise UserError(f"{name}={value!r} does not exist; known: {', '.join(known)}")
        for name, rate in (
            ("dropout", self.dropout),
            ("embedding_dropout", self.embedding_dropout),
            ("attention_dropout", self.attention_dropout),
        ):
            if not 0 <= rate < 1:
                raise UserError(f"{name}={rate}: it must be at least 0 and below 1")

    def _check_images(self) -> None:
        if self.look_back < 0:
            raise UserError(f"look_back={self.look_back}: it must be at least 0 tokens")
        two_dimensional = self.positions == "rotary_2d"
        reads_images = self.place_embeddings or two_dimensional
        if reads_images != (self.tokens_per_image > 0) or self.tokens_per_image < 0:
            raise UserError(
                f"tokens_per_image={self.tokens_per_image}, place_embeddings={self.place_embeddings}, positions="
                f"{self.positions!r}: set tokens_per_image to the tokenizer's codes of an image if and only if "
                "place_embeddings or rotary_2d need it, else to 0"
            )
        if not two_dimensional:
            return
        if math.isqrt(self.tokens_per_image) ** 2 != self.tokens_per_image:
            raise UserError(
                f"tokens_per_image={self.tokens_per_image} is no square: positions='rotary_2d' needs as many rows as "
                "columns; use 'rotary'"
            )
        if self.head_dim < 6:
            raise UserError(
                f"positions='rotary_2d' turns at least one pair of dimensions for each of image, row and column, and a "
                f"head has {self.head_dim} dimensions: it needs at least 6"
            )
        if self.rope_scaling != RopeScaling():
            raise UserError(
                f"rope_scaling {self.rope_scaling.rope_type!r} stretches places in a row, which positions='rotary_2d' "
                "does not use: set rope_type='none'"
            )

    @property
    def head_dim(self) -> int:
        """H, dimensions of one head."""
        return self.attention_head_dim or self.hidden_size // self.num_attention_heads

    @property
    def padded_vocab_size(self) -> int:
        """P, rows of the vocabulary table: vocab_size rounded up to a multiple of 128."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


# The defaults are LLaMA's, so this is only a name.
LlamaConfig = DecoderConfig


@dataclasses.dataclass(frozen=True)
class _MLPSize:
    """What one MLP has and does.

    Attributes:
      weights: of its matrices.
      products: weights of matrices that one token is multiplied with.
      vectors: parameters that are no matrix, but for biases.
      biases: if the decoder has `dense_bias`.
    """

    weights: int
    products: int
    vectors: int
    biases: int


def _dense_size(config: DecoderConfig, matrices: int) -> _MLPSize:
    """An MLP of so many D x F matrices, all but one of them with F outputs."""
    D, F = config.hidden_size, config.intermediate_size
    return _MLPSize(matrices * D * F, matrices * D * F, 0, (matrices - 1) * F + D)


def _experts_size(config: DecoderConfig) -> _MLPSize:
    D, moe, expert = config.hidden_size, config.moe, _dense_size(config, 2)
    gate = 0 if moe.router == "none" else D * moe.experts
    # An attribute router decides for a handful of values, not for each token.
    decides, by_attributes = (moe.router == "token"), (moe.router == "attribute")
    used = 1 if moe.mix == "weights" else moe.top_k
    return _MLPSize(
        weights=moe.experts * expert.weights + gate + by_attributes * moe.attribute_bits * D,
        products=used * expert.products + decides * gate,
        vectors=by_attributes * 3 * D,
        biases=moe.experts * expert.biases,
    )


_MLP_SIZES: Mapping[str, Callable[[DecoderConfig], _MLPSize]] = {
    "swiglu": functools.partial(_dense_size, matrices=3),
    "relu": functools.partial(_dense_size, matrices=2),
    "gelu_tanh": functools.partial(_dense_size, matrices=2),
    "moe": _experts_size,
}


def count_parameters(config: DecoderConfig, *, embeddings: bool = True) -> int:
    """Number of parameters of the published model: vocabulary tables count `vocab_size` rows, without padding.

    Args:
      config: the decoder.
      embeddings: count the input table, the head, learned positions and places too; otherwise only blocks and norms.

    Raises:
      UserError: the size of an MLP is not known here.
    """
    D = config.hidden_size
    norms = (2 * config.num_hidden_layers + 1) * D * (2 if config.norm == "layer" else 1)
    if config.qk_norm:
        norms += 2 * config.num_hidden_layers * config.head_dim
    mlps = sum(size.weights for size in _mlp_sizes(config))
    inner = _attention_weights(config) + mlps + _vectors(config) + norms + _looking_back(config)
    if not embeddings:
        return inner
    tables = (1 if config.tie_word_embeddings else 2) * config.vocab_size
    if config.positions == "learned":
        tables += config.max_position_embeddings + config.position_offset
    if config.place_embeddings:
        tables += config.tokens_per_image
    return inner + tables * D


def train_flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """Floating-point operations of a forward and backward pass for one token of a row of `seq_len`.

    Six for each weight of a matrix product (the head's published rows included, input tables not; of a mixture's
    experts those that a token uses, whatever the dispatch computes besides), and for causal
    attention 6 * layers * heads * head_dim * seq_len, half of what all pairs of query and key would take. With adapters
    the other weights have no gradient and count four; the adapters themselves are not counted.

    Raises:
      UserError: the size of an MLP is not known here.
    """
    mlps = sum(size.products for size in _mlp_sizes(config))
    weights = _attention_weights(config) + mlps + _looking_back(config)
    weights += config.vocab_size * config.hidden_size
    width = config.num_attention_heads * config.head_dim
    per_weight = 4.0 if config.lora.rank else 6.0
    return per_weight * weights + 6.0 * config.num_hidden_layers * width * seq_len


def _attention_weights(config: DecoderConfig) -> int:
    """Weights of all blocks' projections."""
    heads = 2 * (config.num_attention_heads + config.num_key_value_heads)
    return config.num_hidden_layers * config.hidden_size * config.head_dim * heads


def _looking_back(config: DecoderConfig) -> int:
    """Weights of `LookBack`."""
    return 2 * config.hidden_size**2 if config.look_back else 0


def _vectors(config: DecoderConfig) -> int:
    """Parameters of all blocks that are neither matrices nor norms of the residual stream: mostly biases."""
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    total = sum(size.vectors for size in _mlp_sizes(config))
    if config.qkv_bias:
        total += config.num_hidden_layers * heads * config.head_dim
    if config.dense_bias:
        total += config.num_hidden_layers * config.hidden_size  # of attention's outputs
        total += sum(size.biases for size in _mlp_sizes(config))
    return total


def _mlp_sizes(config: DecoderConfig) -> list[_MLPSize]:
    """The MLP size of every block."""
    unknown = [kind for kind in config.mlps if kind not in _MLP_SIZES]
    if unknown:
        raise UserError(
            f"the size of the MLP {unknown[0]!r} is not known; known: {', '.join(_MLP_SIZES)}"
        )
    sizes = [_MLP_SIZES[kind](config) for kind in config.mlps]
    return sizes * (config.num_hidden_layers // len(config.mlps))
