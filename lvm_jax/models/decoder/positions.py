"""How a decoder knows where a token stands: rotations of queries and keys, or learned vectors added to embeddings.

Both have the same three methods, and each does nothing in the place where the other works, so that the decoder never
asks which one it has.

Shapes: B batch, T tokens, D hidden size, H head dimension.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.linear import matrix
from lvm_jax.models.decoder.rope import apply_rope, rope_table
from lvm_jax.parallel.sharding import constrain

# What is done to queries and to keys, (B, T, heads, H) -> the same.
Rotate = Callable[[jax.Array], jax.Array]


class Rotary(nnx.Module):
    """Rotary positions (see `rope`): nothing is learned, and no row is too long."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        del rngs  # no parameters
        self.head_dim, self.theta = config.head_dim, config.rope_theta
        self.scaling = config.rope_scaling

    def embed(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """Embeddings as they are: they carry no positions."""
        del positions_BT
        return x_BTD

    def rotation(self, positions_BT: Int[Array, "#B T"]) -> Rotate:
        """Turns each head by the angles of its positions; all blocks share one table."""
        table = rope_table(positions_BT, self.head_dim, self.theta, self.scaling)
        return functools.partial(apply_rope, table=table)

    def check_length(self, length: int) -> None:
        """Every length has its angles."""


class Learned(nnx.Module):
    """A vector for each position, added to the embeddings.

    Position p reads row p + `position_offset`: OPT inherited two rows that nothing reads from fairseq, where position
    ids start behind the id of padding.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.offset, self.positions = config.position_offset, config.max_position_embeddings
        rows = self.positions + self.offset
        # Rows stay whole on every device: 2050 of them divide over nothing.
        self.table = matrix(rngs, config, (rows, config.hidden_size), (None, "embed"))

    def embed(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """Adds the vector of each position, rounded to the embeddings' dtype.

        Raises:
          UserError: a position that has no vector. Inside jit, where positions are unknown, it gives NaN.
        """
        if not isinstance(positions_BT, Tracer) and positions_BT.size:
            self.check_length(int(positions_BT.max()) + 1)
        # Gathered over the devices that split the width, as the vocabulary table is.
        table = constrain(self.table[...], None, None)
        # JAX would read the last row in place of one beyond the end; NaN cannot be overlooked.
        rows = table.at[positions_BT + self.offset].get(mode="fill", fill_value=jnp.nan)
        return x_BTD + rows.astype(x_BTD.dtype)

    def rotation(self, positions_BT: Int[Array, "#B T"]) -> Rotate:
        """Leaves queries and keys as they are."""
        del positions_BT
        return _same

    def check_length(self, length: int) -> None:
        """Requires positions 0 .. length - 1.

        Raises:
          UserError: some of them have no vector.
        """
        if length > self.positions:
            raise UserError(
                f"position {length - 1} has no learned vector: the decoder has max_position_embeddings="
                f"{self.positions}; shorten the row, or build the decoder with more positions"
            )


def _same(x_BTNH: jax.Array) -> jax.Array:
    return x_BTNH


POSITIONS: Mapping[str, type[Rotary] | type[Learned]] = {"rotary": Rotary, "learned": Learned}
