"""The matrices around attention, with biases if the family has them.

Shapes: B batch, T tokens, D hidden size, N query heads, K key-value heads, H head dimension.
"""

from collections.abc import Mapping
from typing import ClassVar

from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.linear import bias, matrix
from lvm_jax.models.decoder.lora import Adaptable
from lvm_jax.models.decoder.norms import RMSNorm
from lvm_jax.models.decoder.positions import Rotate
from lvm_jax.parallel.sharding import constrain


class Attention(Adaptable):
    """Projects the residual stream to queries, keys and values, and the heads' results back."""

    MATRICES: ClassVar[Mapping[str, int]] = {"query": 1, "key": 1, "value": 1, "out": 2}

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        D, N, K, H = (
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.query = matrix(rngs, config, (D, N, H), ("embed", "heads", "head_dim"))
        self.key = matrix(rngs, config, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.value = matrix(rngs, config, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.out = matrix(rngs, config, (N, H, D), ("heads", "head_dim", "embed"))
        if config.qkv_bias:
            self.query_bias = bias(N * H, "heads")
            self.key_bias = bias(K * H, "kv_heads")
            self.value_bias = bias(K * H, "kv_heads")
        if config.dense_bias:
            self.out_bias = bias(D, None)
        self.has_norms = config.qk_norm
        if config.qk_norm:
            self.query_norm = RMSNorm(H, config.rms_norm_eps)
            self.key_norm = RMSNorm(H, config.rms_norm_eps)
        self.quantization = config.quantization
        self.add_adapters(config.lora, rngs)

    def project(
        self, x_BTD: Float[Array, "B T D"], rotate: Rotate
    ) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
        """Queries and keys, normalised if configured, then rotated; and values."""
        q, k, v = (
            constrain(self.product(name, x_BTD), "batch", "seq", "act_heads", None)
            for name in ("query", "key", "value")
        )
        if self.has_norms:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q), rotate(k), v

    def merge(self, y_BTNH: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        """Projects the heads' results back."""
        return self.product("out", y_BTNH)
