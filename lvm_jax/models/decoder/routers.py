"""Which experts a token uses, and how much each counts. All of it is fp32: a rounded tie would change the experts.

Shapes: B batch, T tokens, D hidden size, E experts, K experts a token uses, A attribute values, N attribute bits.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.linear import bias, matrix
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.models.decoder.norms import LayerNorm
from lvm_jax.parallel.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Choice:
    """The experts of every token.

    Attributes:
      logits_BTE: of the router, noise included.
      probabilities_BTE: their softmax.
      experts_BTK: the chosen ones, most probable first.
      gates_BTK: how much each counts.
    """

    logits_BTE: Float[Array, "B T E"]
    probabilities_BTE: Float[Array, "B T E"]
    experts_BTK: Int[Array, "B T K"]
    gates_BTK: Float[Array, "B T K"]

    def gates_of_all(self) -> Float[Array, "B T E"]:
        """How much every expert counts: 0 for those not chosen."""
        experts = self.probabilities_BTE.shape[-1]
        return jnp.einsum(
            "btk,btke->bte", self.gates_BTK, jax.nn.one_hot(self.experts_BTK, experts)
        )


class TokenRouter(nnx.Module):
    """Logits from the token's vector, by one matrix without a bias."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.gate = _gate(rngs, config)
        self.noise = config.moe.noise / config.moe.experts

    def logits(
        self,
        x_BTD: Float[Array, "B T D"],
        attributes_BT: Int[Array, "B T"] | None,
        key: jax.Array | None,
    ) -> Float[Array, "B T E"]:
        """The logits, with noise of each token's own if there is a key."""
        del attributes_BT
        x = x_BTD.astype(jnp.float32).reshape(-1, x_BTD.shape[-1])
        logits = _product(x, self.gate).reshape(*x_BTD.shape[:2], -1)
        return _noisy(logits, self.noise, key)


class AttributeRouter(nnx.Module):
    """Logits from a token's attributes alone: LayerNorm(bits W + b), then the matrix that a `TokenRouter` has.

    They are computed for each of the few attribute values, and looked up. So tokens of one value have the same logits
    to the last bit, noise included, whatever they hold.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        D, self.bits = config.hidden_size, config.moe.attribute_bits
        self.embedding = matrix(rngs, config, (self.bits, D), (None, "embed"))
        self.embedding_bias = bias(D, None)
        self.norm = LayerNorm(D, config.rms_norm_eps)
        self.gate = _gate(rngs, config)
        self.noise = config.moe.noise / config.moe.experts

    def logits(
        self,
        x_BTD: Float[Array, "B T D"],
        attributes_BT: Int[Array, "B T"] | None,
        key: jax.Array | None,
    ) -> Float[Array, "B T E"]:
        """The logits, with noise of each attribute value's own if there is a key; NaN for values out of range.

        Raises:
          UserError: there are no attributes.
        """
        if attributes_BT is None:
            raise UserError(
                f"the router of {len(x_BTD)} rows decides by attributes, and none were given: pass attributes_BT, or "
                "build the decoder with moe router='token'"
            )
        bits_AN = (jnp.arange(2**self.bits)[:, None] >> jnp.arange(self.bits)[None]) & 1
        x_AD = (
            _product(bits_AN.astype(jnp.float32), self.embedding) + self.embedding_bias[...][None]
        )
        table_AE = _noisy(_product(self.norm(x_AD), self.gate), self.noise, key)
        return table_AE.at[attributes_BT].get(
            mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
        )


class NoRouter(nnx.Module):
    """No parameters: all experts are equal."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        del rngs
        self.experts = config.moe.experts

    def logits(
        self,
        x_BTD: Float[Array, "B T D"],
        attributes_BT: Int[Array, "B T"] | None,
        key: jax.Array | None,
    ) -> Float[Array, "B T E"]:
        """Zeros."""
        del attributes_BT, key
        return jnp.zeros((*x_BTD.shape[:2], self.experts), jnp.float32)


Router = TokenRouter | AttributeRouter | NoRouter
ROUTERS: Mapping[str, type[Router]] = {
    "token": TokenRouter,
    "attribute": AttributeRouter,
    "none": NoRouter,
}


def choose(logits_BTE: Float[Array, "B T E"], config: MoEConfig) -> Choice:
    """The `top_k` most probable experts of each token; of equal ones those of lower number.

    First the softmax over all experts, then the choice (V-MoE, arXiv 2106.05974, section 2.1).
    """
    probabilities_BTE = jax.nn.softmax(logits_BTE, axis=-1)
    left_BTE, chosen = jax.lax.stop_gradient(probabilities_BTE), []
    # Not lax.top_k: it is not partitioned, and would gather the probabilities of the whole batch on every device.
    for _ in range(config.top_k):
        chosen.append(jnp.argmax(left_BTE, axis=-1))
        left_BTE = jnp.where(jax.nn.one_hot(chosen[-1], config.experts, dtype=bool), -1.0, left_BTE)
    experts_BTK = jnp.stack(chosen, axis=-1)
    one_hot_BTKE = jax.nn.one_hot(experts_BTK, config.experts)
    gates_BTK = jnp.einsum("bte,btke->btk", probabilities_BTE, one_hot_BTKE)
    if config.renormalize:
        gates_BTK = gates_BTK / jnp.sum(gates_BTK, axis=-1, keepdims=True)
    return Choice(logits_BTE, probabilities_BTE, experts_BTK, gates_BTK)


def balance_loss(
    choice: Choice, real_BT: Bool[Array, "B T"] | None, convention: str
) -> Float[Array, ""]:
    """E * sum_e c_e m_e, with m_e the mean probability of expert e, over all real tokens of the batch.

    Args:
      choice: of all tokens.
      real_BT: False for padding; None: all count.
      convention: "switch" (Fedus et al., arXiv 2101.03961, equation 4): c_e is the share of tokens whose first choice
        is e; 1 if all experts are used alike, E if one is used alone. "mixtral": c_e counts all K choices (as
        transformers does for Mixtral); K if used alike. The formula that GShard prints (arXiv 2006.16668, algorithm 1)
        is "switch" / E^2.
    """
    experts = choice.probabilities_BTE.shape[-1]
    counted_BTK = choice.experts_BTK[..., :1] if convention == "switch" else choice.experts_BTK
    used_BTE = jnp.sum(jax.nn.one_hot(counted_BTK, experts), axis=2)
    return experts * jnp.sum(_mean(used_BTE, real_BT) * _mean(choice.probabilities_BTE, real_BT))


def z_loss(choice: Choice, real_BT: Bool[Array, "B T"] | None) -> Float[Array, ""]:
    """The mean of logsumexp(logits)^2 over all real tokens (arXiv 2202.08906, equation 5)."""
    squared_BT1 = jnp.square(jax.nn.logsumexp(choice.logits_BTE, axis=-1, keepdims=True))
    return _mean(squared_BT1, real_BT)[0]


def measured(choice: Choice, real_BT: Bool[Array, "B T"] | None) -> dict[str, Float[Array, ""]]:
    """What a run should watch.

    Returns:
      expert_load_max, expert_load_min: choices of the most and the least used expert, relative to an equal share;
      router_entropy: mean entropy of a token's probabilities in nats, ln E at most.
    """
    experts, top_k = choice.probabilities_BTE.shape[-1], choice.experts_BTK.shape[-1]
    used_BTE = jnp.sum(jax.nn.one_hot(choice.experts_BTK, experts), axis=2)
    load_E = _mean(used_BTE, real_BT) * experts / top_k
    p_BTE = choice.probabilities_BTE
    # Where p is 0 its term is 0, and xlogy knows it.
    entropy_BT1 = -jnp.sum(jax.scipy.special.xlogy(p_BTE, p_BTE), axis=-1, keepdims=True)
    found = {
        "expert_load_max": jnp.max(load_E),
        "expert_load_min": jnp.min(load_E),
        "router_entropy": _mean(entropy_BT1, real_BT)[0],
    }
    return jax.lax.stop_gradient(found)


def _mean(x_BTE: jax.Array, real_BT: jax.Array | None) -> jax.Array:
    """Over all tokens but padding."""
    if real_BT is None:
        return jnp.mean(x_BTE, axis=(0, 1))
    real_BT1 = real_BT[..., None]
    return jnp.sum(jnp.where(real_BT1, x_BTE, 0), axis=(0, 1)) / jnp.maximum(jnp.sum(real_BT), 1)


def _gate(rngs: nnx.Rngs, config: DecoderConfig) -> nnx.Param:
    return matrix(rngs, config, (config.hidden_size, config.moe.experts), ("embed", None))


def _product(x: jax.Array, kernel: nnx.Param) -> jax.Array:
    # The width is gathered: the devices that split it also split the batch. By default a TPU rounds fp32 products.
    return jnp.matmul(x, constrain(kernel[...], None, None), precision=jax.lax.Precision.HIGHEST)


def _noisy(logits: jax.Array, deviation: float, key: jax.Array | None) -> jax.Array:
    if key is None or not deviation:
        return logits
    return logits + deviation * jax.random.normal(key, logits.shape, logits.dtype)
