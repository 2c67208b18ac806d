"""Attention of new tokens over the keys and values in a KV cache.

Shapes: B batch, T queries, S slots of keys, N query heads, K key-value heads, G = N/K query heads a key-value head,
H head dimension, R rows of keys, M queries that share a row of keys.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lvm_jax.models.attention.attend import MASKED


class KeyBlock(NamedTuple):
    """Keys and values stored together: a shared prefix, or each row's own slots.

    Attributes:
      k_RKSH: keys. R divides B, and row b of the queries reads row b // (B/R).
      k_scale_RKS: the factor of keys stored in 8 bits; None for others.
      v_RKSH: values.
      v_scale_RKS: the factor of values stored in 8 bits; None for others.
      ends_RT: query t sees slots 0 .. ends - 1; (R or 1, T or 1).
    """

    k_RKSH: Array
    k_scale_RKS: Array | None
    v_RKSH: Array
    v_scale_RKS: Array | None
    ends_RT: Array


def attend_key_blocks(
    q_BTNH: Float[Array, "B T N H"], blocks: Sequence[KeyBlock]
) -> Float[Array, "B T N H"]:
    """Attention over several blocks of keys, each read once; their results are joined by the softmax's sums.

    All queries that share a row of keys go through one matrix product.

    Args:
      q_BTNH: queries.
      blocks: the keys. In all blocks together, every query sees at least one slot.
    """
    B, T, N, H = q_BTNH.shape
    K = blocks[0].k_RKSH.shape[1]
    q_BKTGH = (q_BTNH / math.sqrt(H)).reshape(B, T, K, N // K, H).swapaxes(1, 2)
    tops, totals, sums = zip(*(_attend_block(q_BKTGH, *block) for block in blocks))
    # Each block's sums are relative to its own largest score. Rescaled to the largest of all, they add up.
    top = functools.reduce(jnp.maximum, tops)
    factors = [jnp.exp(block_top - top) for block_top in tops]
    total = jnp.stack([factor * one for factor, one in zip(factors, totals)]).sum(0)
    y_BKTGH = jnp.stack([factor[..., None] * one for factor, one in zip(factors, sums)]).sum(0)
    y_BKTGH = y_BKTGH / total[..., None]
    return y_BKTGH.astype(q_BTNH.dtype).swapaxes(1, 2).reshape(B, T, N, H)


def _attend_block(q_BKTGH, k_RKSH, k_scale_RKS, v_RKSH, v_scale_RKS, ends_RT):
    """Each query's largest score, the sum of its weights relative to that, and the weighted sum of values."""
    B, K, T, G, H = q_BKTGH.shape
    R, S = len(k_RKSH), k_RKSH.shape[2]
    # A prompt's rows become one matrix, so that its keys are read once for all of them.
    q_RKMH = q_BKTGH.reshape(R, B // R, K, T * G, H).swapaxes(1, 2).reshape(R, K, -1, H)
    scores_RKMS = _product("RKMH,RKSH->RKMS", q_RKMH, k_RKSH)
    if k_scale_RKS is not None:
        scores_RKMS *= k_scale_RKS[:, :, None]
    scores = scores_RKMS.reshape(R, K, B // R, T, G, S)
    visible_RTS = jnp.arange(S)[None, None] < ends_RT[..., None]
    scores = jnp.where(visible_RTS[:, None, None, :, None], scores, MASKED)
    # A query may see nothing of this block. Its top is then MASKED, and the rescaling multiplies its sums by 0.
    top = jnp.max(scores, axis=-1)
    weights = jnp.exp(scores - top[..., None])
    total = jnp.sum(weights, axis=-1)
    weights_RKMS = weights.reshape(scores_RKMS.shape)
    if v_scale_RKS is not None:
        weights_RKMS *= v_scale_RKS[:, :, None]
    y_RKMH = _product("RKMS,RKSH->RKMH", weights_RKMS.astype(q_RKMH.dtype), v_RKSH)

    def by_row(x):
        return x.swapaxes(1, 2).reshape(B, K, T, G, *x.shape[5:])

    return by_row(top), by_row(total), by_row(y_RKMH.reshape(*top.shape, H))


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A product in the dtype of `a`, summed in fp32."""
    return jnp.einsum(equation, a, b.astype(a.dtype), preferred_element_type=jnp.float32)
