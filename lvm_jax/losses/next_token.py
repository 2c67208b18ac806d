"""Next-token cross-entropy on packed rows.

Shapes: B batch, T tokens, C tokens of a chunk, D hidden size, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError


def cross_entropy(
    logits_BTV: Float[Array, "B T V"],
    labels_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    z_loss: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Weighted negative log-likelihood in nats, as (sum, weight): divide once, over all devices and batches.

    Args:
      logits_BTV: scores; the softmax is fp32.
      labels_BT: ids in [0, V).
      weights_BT: weight of each label, from the batch; a label of weight 0 adds exactly 0.
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
    return jnp.sum(losses_BT * weights_BT), jnp.sum(weights_BT)


def chunked_cross_entropy(
    hidden_BTD: Float[Array, "B T D"],
    head: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    labels_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    *,
    chunk: int,
    z_loss: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`cross_entropy(head(hidden_BTD), ...)` with the logits of only `chunk` tokens per row in memory at a time.

    The backward pass recomputes each chunk's logits: one more product with the head saves B * T * V floats.

    Args:
      hidden_BTD: the head's input.
      head: hidden states to logits, token by token.
      labels_BT: as in `cross_entropy`.
      weights_BT: as in `cross_entropy`.
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

    chunks = tuple(chunks_first(x) for x in (hidden_BTD, labels_BT, weights_BT))
    total, _ = jax.lax.scan(
        lambda total, c: (total + loss_of(*c), None), jnp.zeros((), jnp.float32), chunks
    )
    return total, jnp.sum(weights_BT)
