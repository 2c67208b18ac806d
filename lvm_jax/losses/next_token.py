"""Next-token cross-entropy on packed rows.

Shapes: B batch, T tokens, C tokens of a chunk, D hidden size, V vocabulary; *G several weightings of the same labels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError


def cross_entropy(
    logits_BTV: Float[Array, "B T V"],
    labels_BT: Int[Array, "B T"],
    weights_GBT: Float[Array, "*G B T"],
    z_loss: float = 0.0,
) -> tuple[Float[Array, "*G"], Float[Array, "*G"]]:
    """Weighted negative log-likelihood in nats, as (sum, weight): divide once, over all devices and batches.

    Args:
      logits_BTV: scores; the softmax is fp32.
      labels_BT: ids in [0, V).
      weights_GBT: weight of each label, from the batch; a label of weight 0 adds exactly 0.
      z_loss: coefficient of log(sum(exp(logits)))^2, which keeps the normaliser near 1
        (Chowdhery et al., arXiv 2204.02311, section 5).

    Returns:
      the sum of weighted losses and the sum of weights.
    """
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_normaliser_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    scores_BT = jnp.take_along_axis(logits_BTV, labels_BT[..., None], axis=-1)[..., 0]
    losses_BT = log_normaliser_BT - scores_BT
    if z_loss:
        losses_BT = losses_BT + z_loss * jnp.square(log_normaliser_BT)
    losses_GBT = losses_BT.reshape((1,) * (weights_GBT.ndim - 2) + losses_BT.shape) * weights_GBT
    return jnp.sum(losses_GBT, axis=(-2, -1)), jnp.sum(weights_GBT, axis=(-2, -1))


def chunked_cross_entropy(
    hidden_BTD: Float[Array, "B T D"],
    head: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    labels_BT: Int[Array, "B T"],
    weights_GBT: Float[Array, "*G B T"],
    *,
    chunk: int,
    z_loss: float = 0.0,
) -> tuple[Float[Array, "*G"], Float[Array, "*G"]]:
    """`cross_entropy(head(hidden_BTD), ...)` with the logits of only `chunk` tokens per row in memory at a time.

    The backward pass recomputes each chunk's logits: one more product with the head saves B * T * V floats.

    Args:
      hidden_BTD: the head's input.
      head: hidden states to logits, token by token.
      labels_BT: as in `cross_entropy`.
      weights_GBT: as in `cross_entropy`.
      chunk: C, tokens of a row at a time; divides T.
      z_loss: as in `cross_entropy`.

    Raises:
      UserError: `chunk` does not divide T.
    """
    B, T, _ = hidden_BTD.shape
    if chunk < 1 or T % chunk:
        raise UserError(
            f"loss chunk of {chunk} does not divide rows of {T} tokens: choose a divisor of {T}"
        )

    # Without the checkpoint the scan would store every chunk's logits for the backward pass.
    @jax.checkpoint
    def loss_of(hidden: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        return cross_entropy(head(hidden), labels, weights, z_loss)[0]

    def chunks_first(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(B, T // chunk, chunk, *x.shape[2:]), 1, 0)

    groups = weights_GBT.shape[:-2]
    weights = jnp.moveaxis(weights_GBT.reshape(*groups, B, T // chunk, chunk), -2, 0)
    total, _ = jax.lax.scan(
        lambda total, c: (total + loss_of(*c), None),
        jnp.zeros(groups, jnp.float32),
        (chunks_first(hidden_BTD), chunks_first(labels_BT), weights),
    )
    return total, jnp.sum(weights_GBT, axis=(-2, -1))
