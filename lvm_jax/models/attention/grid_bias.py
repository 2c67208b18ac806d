"""What is added to attention's scores if the keys lie on a grid: one number for a key's row, one for its column.

Decomposed relative positions are such a bias (Li et al., MViTv2, arXiv 2112.01526, section 4.1). Kept in two parts it
is S / (P + Q) times smaller than the scores, and nothing of (T, S) has to be stored for it.

Shapes: B batch, T queries, S = P * Q keys in P rows of Q columns, N heads, K key-value heads, G = N/K query heads a
key-value head, H head dimension.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class GridBias(NamedTuple):
    """Query t and key s have rows[t, s // Q] + columns[t, s % Q] added to their score.

    Attributes:
      rows_BTNP: for each row of keys.
      columns_BTNQ: for each column of keys.
    """

    rows_BTNP: Float[Array, "B T N P"]
    columns_BTNQ: Float[Array, "B T N Q"]

    @property
    def features(self) -> int:
        """By how much `fold` widens queries and keys: P + Q."""
        return self.rows_BTNP.shape[-1] + self.columns_BTNQ.shape[-1]

    @property
    def keys(self) -> int:
        """S, keys of the grid."""
        return self.rows_BTNP.shape[-1] * self.columns_BTNQ.shape[-1]

    def by_key_head(self, K: int) -> tuple[jax.Array, jax.Array]:
        """Rows and columns as (B, K, G, T, P) and (B, K, G, T, Q), as scores are laid out; in fp32."""

        def one(x_BTNX: jax.Array) -> jax.Array:
            B, T, N, X = x_BTNX.shape
            x_BTKGX = x_BTNX.astype(jnp.float32).reshape(B, T, K, N // K, X)
            return x_BTKGX.transpose(0, 2, 3, 1, 4)

        return one(self.rows_BTNP), one(self.columns_BTNQ)

    def fold(
        self, q_BTNH: Float[Array, "B T N H"], k_BSKH: Float[Array, "B S K H"]
    ) -> tuple[Float[Array, "B T N H2"], Float[Array, "B S K H2"]]:
        """Queries and keys with P + Q more features, whose scores contain the bias.

        A query's new features are its bias, a key's are ones at its row and its column, and the product of the two adds
        the numbers up. So a kernel that takes no bias computes it exactly, for wider products. Attention divides scores
        by the root of the new width, for which the queries make up.
        """
        H, (B, S, K) = q_BTNH.shape[-1], k_BSKH.shape[:3]
        P, Q = self.rows_BTNP.shape[-1], self.columns_BTNQ.shape[-1]
        root = math.sqrt(H + P + Q)
        q = [q_BTNH * (root / math.sqrt(H)), self.rows_BTNP * root, self.columns_BTNQ * root]
        place = jnp.arange(S)
        ones_SX = jnp.concatenate([jax.nn.one_hot(place // Q, P), jax.nn.one_hot(place % Q, Q)], -1)
        ones_BSKX = jnp.broadcast_to(ones_SX[None, :, None], (B, S, K, P + Q))
        k = [k_BSKH, ones_BSKX.astype(k_BSKH.dtype)]
        return jnp.concatenate([x.astype(q_BTNH.dtype) for x in q], -1), jnp.concatenate(k, -1)


def spread(
    rows: jax.Array, columns: jax.Array, axis: int, start: int = 0, stop: int | None = None
) -> jax.Array:
    """The bias of keys `start` to `stop`, as an array whose dimension `axis` is the keys.

    Args:
      rows: dimension `axis` is the grid's rows.
      columns: the same of the grid's columns.
      axis: not negative.
      start: the first key.
      stop: behind the last one; None: all keys.
    """
    Q = columns.shape[axis]
    stop = rows.shape[axis] * Q if stop is None else stop
    first, last = start // Q, -(-stop // Q)
    rows = jax.lax.slice_in_dim(rows, first, last, axis=axis)
    grid = jnp.expand_dims(rows, axis + 1) + jnp.expand_dims(columns, axis)
    keys = grid.reshape(*grid.shape[:axis], -1, *grid.shape[axis + 2 :])
    return jax.lax.slice_in_dim(keys, start - first * Q, stop - first * Q, axis=axis)
