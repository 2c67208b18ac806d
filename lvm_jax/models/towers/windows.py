"""Attention on a grid of patches: in windows or over all of it, with decomposed relative positions.

Relative positions add, to the score of a query and a key, the query's product with one vector for the distance of their
rows and with one for that of their columns (Li et al., MViTv2, arXiv 2112.01526, section 4.1).

Shapes: B batch, h w the grid, S side of a window, T tokens in raster order, P Q rows and columns of the grid or window
that attends, N heads, H head dimension, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.attention.grid_bias import GridBias
from lvm_jax.models.towers.block import BlockShape, SelfAttention

Grid = tuple[int, int]  # rows, columns


class RelativePositions(nnx.Module):
    """A vector for each distance of rows, and one for each of columns; they start from zero.

    Distance d, from 1 - P to P - 1, is row d + P - 1 of a table.
    """

    def __init__(self, grid: Grid, head_dim: int) -> None:
        self.rows, self.columns = (
            nnx.Param(jnp.zeros((2 * size - 1, head_dim), jnp.float32), axes=(None, "head_dim"))
            for size in grid
        )
        self.grid = grid

    def __call__(self, q_BTNH: Float[Array, "B T N H"]) -> GridBias:
        """What these queries' scores get added, in fp32; the queries are not scaled."""
        B, T, N, H = q_BTNH.shape
        P, Q = self.grid
        q_BPQNH = q_BTNH.reshape(B, P, Q, N, H)
        by_row = _by_distance(self.rows[...], P).astype(q_BTNH.dtype)
        by_column = _by_distance(self.columns[...], Q).astype(q_BTNH.dtype)
        rows = jnp.einsum("BPQNH,PRH->BPQNR", q_BPQNH, by_row, preferred_element_type=jnp.float32)
        columns = jnp.einsum(
            "BPQNH,QRH->BPQNR", q_BPQNH, by_column, preferred_element_type=jnp.float32
        )
        return GridBias(rows.reshape(B, T, N, P), columns.reshape(B, T, N, Q))


def _by_distance(table: jax.Array, size: int) -> jax.Array:
    """The table's row for each pair of query and key, (size, size, H)."""
    place = jnp.arange(size)
    return table[place[:, None] - place[None] + size - 1]


class GridAttention(nnx.Module):
    """Attention over a whole grid, or within windows of it.

    Args:
      shape: of the block.
      grid: of the patches.
      window: side of a window; 0: one window, the grid.
      rngs: for the parameters.
    """

    def __init__(self, shape: BlockShape, grid: Grid, window: int, *, rngs: nnx.Rngs) -> None:
        self.inner = SelfAttention(shape, rngs=rngs)
        inside = (window, window) if window else grid
        self.positions = RelativePositions(inside, shape.width // shape.heads)
        self.grid, self.window = grid, window

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Attends within each window."""
        if not self.window:
            return self.inner(x_BTD, self.positions)
        windows = into_windows(x_BTD, self.grid, self.window)
        return from_windows(self.inner(windows, self.positions), self.grid, self.window)


def into_windows(x_BTD: jax.Array, grid: Grid, window: int) -> jax.Array:
    """(B, T, D) as (B * windows, S * S, D), the grid padded with zeros at its bottom and right.

    As in SAM the padding is not masked: its keys and values are the projections' biases.
    """
    (h, w), S, D = grid, window, x_BTD.shape[-1]
    rows, columns = -(-h // S), -(-w // S)
    padding = ((0, 0), (0, rows * S - h), (0, columns * S - w), (0, 0))
    x = jnp.pad(x_BTD.reshape(-1, h, w, D), padding)
    x = x.reshape(-1, rows, S, columns, S, D).swapaxes(2, 3)
    return x.reshape(-1, S * S, D)


def from_windows(x: jax.Array, grid: Grid, window: int) -> jax.Array:
    """The inverse of `into_windows`, which drops the padding."""
    (h, w), S, D = grid, window, x.shape[-1]
    rows, columns = -(-h // S), -(-w // S)
    x = x.reshape(-1, rows, columns, S, S, D).swapaxes(2, 3)
    x = x.reshape(-1, rows * S, columns * S, D)[:, :h, :w]
    return x.reshape(-1, h * w, D)
