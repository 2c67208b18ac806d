"""Attention of new tokens over what a KV cache holds.

Shapes: B batch, T queries, S slots of keys, N query heads, K key-value heads, G = N/K query heads a key-value head,
H head dimension, R rows of keys, M queries that share a row of keys.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lvm_jax.models.attention.attend import MASKED

# Keys, their scales, values, their scales, and how many of the slots each query sees. Scales may be None.
Part = tuple[Array, Array | None, Array, Array | None, Array]


def attend_parts(q_BTNH: Float[Array, "B T N H"], parts: Sequence[Part]) -> Float[Array, "B T N H"]:
    """Attention over keys that lie in several places, joined by their log-normalisers; each place is read once.

    Args:
      q_BTNH: queries.
      parts: (k_RKSH, k_scale_RKS, v_RKSH, v_scale_RKS, ends_R'T'). R divides B, and row b reads row b // (B/R) of the
        part: queries that share keys meet them in one matrix product. Scales multiply keys and values that are stored
        in 8 bits. Query t sees slots 0 .. ends - 1 (R' is R or 1, T' is T or 1), and at least one slot in all.
    """
    B, T, N, H = q_BTNH.shape
    K = parts[0][0].shape[1]
    q_BKTGH = (q_BTNH / math.sqrt(H)).reshape(B, T, K, N // K, H).swapaxes(1, 2)
    tops, totals, sums = zip(*(_attend_part(q_BKTGH, *part) for part in parts))
    top = functools.reduce(jnp.maximum, tops)
    factors = [jnp.exp(part_top - top) for part_top in tops]
    total = jnp.stack([factor * part for factor, part in zip(factors, totals)]).sum(0)
    y_BKTGH = jnp.stack([factor[..., None] * part for factor, part in zip(factors, sums)]).sum(0)
    y_BKTGH = y_BKTGH / total[..., None]
    return y_BKTGH.astype(q_BTNH.dtype).swapaxes(1, 2).reshape(B, T, N, H)


def _attend_part(q_BKTGH, k_RKSH, k_scale_RKS, v_RKSH, v_scale_RKS, ends_RT):
    """The largest score of each query, the sum of its weights relative to it, and the weighted sum of the values."""
    B, K, T, G, H = q_BKTGH.shape
    R, S = len(k_RKSH), k_RKSH.shape[2]
    # The rows of a prompt become one matrix: its keys are read once for all of them.
    q_RKMH = q_BKTGH.reshape(R, B // R, K, T * G, H).swapaxes(1, 2).reshape(R, K, -1, H)
    scores_RKMS = _product("RKMH,RKSH->RKMS", q_RKMH, k_RKSH)
    if k_scale_RKS is not None:
        scores_RKMS *= k_scale_RKS[:, :, None]
    scores = scores_RKMS.reshape(R, K, B // R, T, G, S)
    visible_RTS = jnp.arange(S)[None, None] < ends_RT[..., None]
    scores = jnp.where(visible_RTS[:, None, None, :, None], scores, MASKED)
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
