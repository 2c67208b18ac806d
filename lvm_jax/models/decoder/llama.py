"""The decoder: LLaMA (Touvron et al., arXiv 2302.13971) over visual tokens, in the sizes of LVM (arXiv 2312.00785).

Pre-norm RMSNorm, SwiGLU, rotary positions, no biases, an untied head; by configuration also what Llama 3 and Qwen2 do
otherwise. Works alone: no mesh, no trainer.

Shapes: B batch, T tokens, D hidden size, F MLP size, N query heads, K key-value heads, H head dimension,
V published vocabulary, P the vocabulary table (V padded), L layers.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.models.attention.attend import attend
from lvm_jax.models.attention.kernels import CUDNN_FORWARD, SAVED
from lvm_jax.models.attention.split import attend_split
from lvm_jax.models.decoder import hf_llama, quantized
from lvm_jax.models.decoder.config import LlamaConfig, LoRAConfig
from lvm_jax.models.decoder.kv_cache import KVCache, Prefix, Stored, check_dtype
from lvm_jax.models.decoder.lora import Adaptable, merge_adapters
from lvm_jax.models.decoder.rope import apply_rope, rope_table
from lvm_jax.parallel.sharding import constrain, partition_spec
from lvm_jax.weights.model_folder import rounded, to_tensors

_save_matrix_products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_save_attention = jax.checkpoint_policies.save_only_these_names(SAVED)


def _save_dots(primitive: Any, *values: Any, **params: Any) -> Any:
    return (
        primitive.name == CUDNN_FORWARD
        or _save_matrix_products(primitive, *values, **params)
        or _save_attention(primitive, *values, **params)
    )


# What the backward pass finds stored; the rest is computed again.
REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,  # everything: no rematerialisation
    "full": jax.checkpoint_policies.nothing_saveable,  # only each block's input
    # results of products with weights, and of attention: what is cheap to compute is computed again
    "dots": _save_dots,
}


def _matrix(
    rngs: nnx.Rngs, config: LlamaConfig, shape: tuple[int, ...], axes: tuple[str, ...]
) -> nnx.Param:
    return nnx.Param(
        config.initializer_range * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes
    )


def _vocabulary_table(rngs: nnx.Rngs, config: LlamaConfig, axes: tuple[str, str]) -> nnx.Param:
    """A matrix whose padding is zero, and stays zero: no id reads it, and its logits are cut off."""
    sizes = {"vocab": config.padded_vocab_size, "embed": config.hidden_size}
    table = _matrix(rngs, config, tuple(sizes[axis] for axis in axes), axes)
    rows = jax.lax.broadcasted_iota(jnp.int32, table.shape, axes.index("vocab"))
    table[...] = jnp.where(rows < config.vocab_size, table[...], 0.0)
    return table


def _linear(
    x_BTD: jax.Array,
    kernel: jax.Array,
    inputs: int = 1,
    result: jnp.dtype | type | None = None,
    quantization: str = "none",
) -> jax.Array:
    """x @ kernel, rounded to `result` or x's dtype; the kernel's first `inputs` dimensions are x's last ones.

    The product is between two matrices: for the gradient of a kernel, XLA's CPU backend contracts (batch, sequence)
    pairs by way of transposed copies at a third of the speed. A sequence split over devices cannot be folded into
    the batch without gathering it, so it stays.
    """
    kernel = kernel.astype(x_BTD.dtype)
    if not _sequence_is_whole(x_BTD.shape[1]):
        if quantization != "none":
            dims = (tuple(range(2, 2 + inputs)), tuple(range(inputs)))
            return quantized.dot_general(x_BTD, kernel, (dims, ((), ())), quantization)
        return jnp.tensordot(x_BTD, kernel, inputs, preferred_element_type=result)
    rows, columns = math.prod(kernel.shape[:inputs]), kernel.shape[inputs:]
    x, kernel = x_BTD.reshape(-1, rows), kernel.reshape(rows, -1)
    if quantization != "none":
        y = quantized.dot_general(x, kernel, (((1,), (0,)), ((), ())), quantization)
    else:
        y = jnp.matmul(x, kernel, preferred_element_type=result)
    return y.reshape(*x_BTD.shape[:2], *columns)


def _project(module: Adaptable, name: str, x_BTD: jax.Array, inputs: int = 1) -> jax.Array:
    """x times the matrix `name` of `module`, and its adapter's product if it has one."""
    y = _linear(x_BTD, getattr(module, name)[...], inputs, quantization=module.quantization)
    if not hasattr(module, f"{name}_a"):
        return y
    a, b = (getattr(module, f"{name}_{side}")[...] for side in "ab")
    return y + module.adapter_scale * _linear(_linear(x_BTD, a, inputs), b)


def _sequence_is_whole(length: int) -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or len(partition_spec(("seq",), (length,), mesh, strict=False)) == 0


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32), axes=(None,))
        self.eps = eps

    def __call__(self, x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
        """Computes in fp32, returns the input's dtype."""
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        scale = jnp.expand_dims(self.scale[...], tuple(range(x.ndim - 1)))
        return (x32 * inverse * scale).astype(x.dtype)


class Attention(Adaptable):
    """Projections around causal attention; rotary positions on queries and keys."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs) -> None:
        D, N, K, H = (
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.query = _matrix(rngs, config, (D, N, H), ("embed", "heads", "head_dim"))
        self.key = _matrix(rngs, config, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.value = _matrix(rngs, config, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.out = _matrix(rngs, config, (N, H, D), ("heads", "head_dim", "embed"))
        if config.qkv_bias:  # flat, as a vector: no weight decay
            self.query_bias = nnx.Param(jnp.zeros((N * H,), jnp.float32), axes=("heads",))
            self.key_bias = nnx.Param(jnp.zeros((K * H,), jnp.float32), axes=("kv_heads",))
            self.value_bias = nnx.Param(jnp.zeros((K * H,), jnp.float32), axes=("kv_heads",))
        self.quantization = config.quantization
        self.add_adapters({"query": 1, "key": 1, "value": 1, "out": 2}, config.lora, rngs)

    def project(
        self, x_BTD: Float[Array, "B T D"], rope: tuple[jax.Array, jax.Array]
    ) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
        """Rotated queries, rotated keys, values."""
        q, k, v = (_project(self, name, x_BTD) for name in ("query", "key", "value"))
        if hasattr(self, "query_bias"):
            biases = (self.query_bias, self.key_bias, self.value_bias)
            q, k, v = (
                y + bias[...].astype(y.dtype).reshape(1, 1, *y.shape[2:])
                for y, bias in zip((q, k, v), biases)
            )
        q, k, v = (constrain(y, "batch", "seq", "act_heads", None) for y in (q, k, v))
        return apply_rope(q, rope), apply_rope(k, rope), v

    def merge(self, y_BTNH: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        """The output projection."""
        return _project(self, "out", y_BTNH, inputs=2)


class SwiGLU(Adaptable):
    """down(silu(gate x) * up x) (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs) -> None:
        D, F = config.hidden_size, config.intermediate_size
        self.gate = _matrix(rngs, config, (D, F), ("embed", "mlp"))
        self.up = _matrix(rngs, config, (D, F), ("embed", "mlp"))
        self.down = _matrix(rngs, config, (F, D), ("mlp", "embed"))
        self.quantization = config.quantization
        self.add_adapters({"gate": 1, "up": 1, "down": 1}, config.lora, rngs)

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the MLP to each token."""
        gate_BTF, up_BTF = (
            constrain(_project(self, name, x_BTD), "batch", "seq", "act_mlp")
            for name in ("gate", "up")
        )
        return _project(self, "down", jax.nn.silu(gate_BTF) * up_BTF)


class Block(nnx.Module):
    """One pre-norm layer: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config, rngs=rngs)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        rope: tuple[jax.Array, jax.Array],
        attention: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    ) -> Float[Array, "B T D"]:
        """Applies the block; `attention` maps (q_BTNH, k_BTKH, v_BTKH) to y_BTNH."""
        y_BTNH = attention(*self.attention.project(self.attention_norm(x_BTD), rope))
        x_BTD = constrain(x_BTD + self.attention.merge(y_BTNH), "batch", "seq", "act_embed")
        return constrain(x_BTD + self.mlp(self.mlp_norm(x_BTD)), "batch", "seq", "act_embed")


class Llama(nnx.Module):
    """The decoder. `model(tokens_BT)` gives fp32 logits over the published vocabulary.

    Attributes:
      tokenizer_fingerprint: `VQGAN.fingerprint()` of the tokenizer whose codes it was trained on; "": unknown.
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.tokenizer_fingerprint = ""
        self.embedding = _vocabulary_table(rngs, config, ("vocab", "embed"))
        self.layers = _stack(config, rngs)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.head = _vocabulary_table(rngs, config, ("embed", "vocab"))

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits of the token that follows each token.

        Args:
          tokens_BT: ids in [0, vocab_size).
          segment_ids_BT: 0 is padding, 1, 2, ... the sentences of a row, which do not see each other;
            None: the row is one sentence.
          positions_BT: position of each token in its sentence; None counts from the start of the row.
        """
        return self.logits(self.hidden(tokens_BT, segment_ids_BT, positions_BT))

    def hidden(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The normalised last hidden state, what `logits` takes; arguments as in `__call__`."""
        return self.transform(self.embed(tokens_BT), segment_ids_BT, positions_BT)

    def embed(self, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Rows of the vocabulary table, in the compute dtype."""
        # Gathered over the devices that split its width: they split the batch too, and rows cannot be cut both ways.
        table_PD = constrain(self.embedding[...], "vocab", None)
        x_BTD = table_PD[tokens_BT].astype(self.config.dtype)
        return constrain(x_BTD, "batch", "seq", "act_embed")

    def transform(
        self,
        x_BTD: Float[Array, "B T D"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """All blocks and the final norm, from embeddings: for inputs that are not token ids."""
        if positions_BT is None:
            positions_BT = jnp.arange(x_BTD.shape[1])[None]
        rope = self._rope(positions_BT)
        attention = functools.partial(
            attend, segment_ids_BT=segment_ids_BT, implementation=self.config.attention
        )
        if not _sequence_is_whole(x_BTD.shape[1]):
            attention = functools.partial(attend_split, segment_ids_BT=segment_ids_BT)
        graphdef, stacked = nnx.split(self.layers)

        def block(x_BTD: jax.Array, layer: nnx.State) -> jax.Array:
            return nnx.merge(graphdef, layer)(x_BTD, rope, attention)

        policy = REMAT_POLICIES[self.config.remat]
        if policy is not None:
            # Inside a loop the compiler cannot merge the two computations: a barrier would only be in the way.
            block = jax.checkpoint(block, policy=policy, prevent_cse=not self.config.scan_layers)
        if self.config.scan_layers:
            x_BTD, _ = jax.lax.scan(lambda x, layer: (block(x, layer), None), x_BTD, stacked)
        else:
            for index in range(self.config.num_hidden_layers):
                x_BTD = block(x_BTD, jax.tree.map(lambda stack, index=index: stack[index], stacked))
        return self.norm(x_BTD)

    def logits(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The head: fp32 scores of the published vocabulary for normalised hidden states."""
        kernel_DP = self.embedding[...].T if self.config.tie_word_embeddings else self.head[...]
        logits_BTP = _linear(x_BTD, kernel_DP, result=jnp.float32)
        return constrain(logits_BTP, "batch", "seq", "act_vocab")[..., : self.config.vocab_size]

    def init_cache(
        self, batch: int, max_len: int, *, dtype: str | None = None, prefix: Prefix | None = None
    ) -> KVCache:
        """An empty KV cache for `batch` rows of at most `max_len` tokens.

        Args:
          batch: rows.
          max_len: tokens a row, those of the prefix not counted.
          dtype: a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default the compute dtype.
          prefix: from `prefill`, of as many prompts as divide `batch`; the rows of a prompt share its cache.

        Raises:
          UserError: see `KVCache.empty`.
        """
        config = self.config
        return KVCache.empty(
            layers=config.num_hidden_layers,
            batch=batch,
            max_len=max_len,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            dtype=dtype or config.dtype,
            prefix=prefix,
        )

    def prefill(
        self,
        inputs: Int[Array, "R T"] | Float[Array, "R T D"],
        lengths_R: Int[Array, "R"],
        *,
        dtype: str | None = None,
    ) -> Prefix:
        """Reads whole prompts in one pass.

        Args:
          inputs: the prompts from their first token on, as ids or as embeddings; right-padded with anything.
          lengths_R: how many tokens each has.
          dtype: of the cache, as in `init_cache`.

        Raises:
          UserError: an unknown dtype.
        """
        dtype = dtype or self.config.dtype
        check_dtype(dtype)
        rope = self._rope(jnp.arange(inputs.shape[1])[None])
        layers: list[tuple[Stored, Stored]] = []

        def attention(q_RTNH, k_RTKH, v_RTKH):
            layers.append((Stored.of(k_RTKH, dtype), Stored.of(v_RTKH, dtype)))
            return attend(q_RTNH, k_RTKH, v_RTKH, implementation=self.config.attention)

        if inputs.ndim == 2:
            x_RTD = self.embed(inputs)
        else:
            x_RTD = constrain(inputs.astype(self.config.dtype), "batch", "seq", "act_embed")
        for block in self.blocks():
            x_RTD = block(x_RTD, rope, attention)
        return Prefix(tuple(layers), lengths_R)

    def extend(
        self, tokens_BT: Int[Array, "B T"], cache: KVCache
    ) -> tuple[Float[Array, "B T V"], KVCache]:
        """Reads T more tokens of every row.

        Args:
          tokens_BT: the ids that follow what the cache holds; positions continue from there.
          cache: from `init_cache` or an earlier call.

        Returns:
          logits_BTV of the T tokens, equal to the full forward pass's, and the longer cache.

        Raises:
          UserError: the tokens do not fit. Inside jit, where the length is unknown, the caller must see to it.
        """
        T = tokens_BT.shape[1]
        cache.check_room(T)
        rope = self._rope(cache.positions(T))
        layers: list[tuple[Stored, Stored]] = []

        def attention(q_BTNH, k_BTKH, v_BTKH):
            y_BTNH, layer = cache.attend(len(layers), q_BTNH, k_BTKH, v_BTKH)
            layers.append(layer)
            return y_BTNH

        x_BTD = self.embed(tokens_BT)
        for block in self.blocks():
            x_BTD = block(x_BTD, rope, attention)
        return self.logits(self.norm(x_BTD)), cache.advance(T, layers)

    def _rope(self, positions_BT: Int[Array, "B T"]) -> tuple[jax.Array, jax.Array]:
        config = self.config
        return rope_table(positions_BT, config.head_dim, config.rope_theta, config.rope_scaling)

    def blocks(self) -> list[Block]:
        """The blocks one by one, cut out of their stack unless `unstacked` has done so."""
        if isinstance(self.layers, nnx.List):
            return list(self.layers)
        graphdef, stacked = nnx.split(self.layers)
        return [
            nnx.merge(graphdef, jax.tree.map(lambda stack, index=index: stack[index], stacked))
            for index in range(self.config.num_hidden_layers)
        ]

    def unstacked(self) -> "Llama":
        """This decoder for `prefill` and `extend` only: blocks in a list, matrices in the compute dtype.

        A loop over tokens then copies no layer out of the stack, and rounds no matrix again.
        """

        def rounded(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
            if path[-1] == "scale":  # norms multiply in fp32
                return variable
            return variable.replace(variable[...].astype(self.config.dtype))

        graphdef, state = nnx.split(self)
        copy = nnx.merge(graphdef, nnx.map_state(rounded, state))
        copy.layers = nnx.List(copy.blocks())
        return copy

    def save_pretrained(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes config.json and model.safetensors, which transformers' LlamaForCausalLM reads too.

        Adapters are merged into the matrices beside them.

        Args:
          directory: made if missing.
          dtype: the weights are rounded to, one of `pretrained.STORED_DTYPES`.
        """
        model = self.merged()
        tensors = rounded(to_tensors(model), dtype)
        hf_llama.save(directory, model.config, tensors, dtype, self.tokenizer_fingerprint)

    def merged(self) -> "Llama":
        """This decoder with its adapters, if any, merged into the matrices beside them."""
        if not self.config.lora.rank:
            return self
        config = dataclasses.replace(self.config, lora=LoRAConfig())
        graphdef = nnx.graphdef(Llama.abstract(config))
        model = nnx.merge(graphdef, merge_adapters(nnx.state(self), self.config.lora))
        model.tokenizer_fingerprint = self.tokenizer_fingerprint
        return model

    @classmethod
    def from_pretrained(cls, directory: epath.PathLike, **overrides: Any) -> "Llama":
        """Reads a folder of the Llama family: this project's, or Llama-2, Llama-3, OpenLLaMA or Qwen2 weights.

        Weights are read parameter by parameter, and under a mesh (`jax.set_mesh`) every host reads only the slices that
        its devices hold, straight into their sharding: no host ever holds the model.

        Args:
          directory: holds config.json, and safetensors or PyTorch's .bin files, one or several; local or gs://.
          **overrides: fields of `LlamaConfig` about how to compute (dtype, remat, scan_layers, attention).

        Raises:
          UserError: no such folder, a model or setting that the decoder does not have, or tensors that do not fit the
            configuration.
        """
        config = hf_llama.load_config(directory, **overrides)
        graphdef, state = nnx.split(cls.abstract(config))
        model = nnx.merge(graphdef, hf_llama.load(directory, config, state))
        model.tokenizer_fingerprint = hf_llama.load_tokenizer_fingerprint(directory)
        return model

    @classmethod
    def abstract(cls, config: LlamaConfig) -> "Llama":
        """The decoder with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))


def _stack(config: LlamaConfig, rngs: nnx.Rngs) -> Block:
    """All blocks as one module, whose parameters have a leading axis of layers."""

    @nnx.split_rngs(splits=config.num_hidden_layers)
    @nnx.vmap
    def stacked(rngs: nnx.Rngs) -> Block:
        return Block(config, rngs=rngs)

    blocks = stacked(rngs)
    for _, variable in nnx.to_flat_state(nnx.state(blocks, nnx.Param)):
        variable.set_metadata(axes=("layers", *variable.get_metadata()["axes"]))
    return blocks
