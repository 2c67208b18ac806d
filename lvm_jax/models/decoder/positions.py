"""How a decoder knows a token's position: rotations of queries and keys, or learned vectors added to embeddings.

All classes have the same three methods, and each does nothing where the others act. So the decoder never asks which
one it has.

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
from lvm_jax.models.decoder.rope import apply_rope, image_rope_table, rope_table
from lvm_jax.parallel.sharding import constrain

# Applied to queries and to keys: (B, T, heads, H) -> the same shape.
Rotate = Callable[[jax.Array], jax.Array]


class Rotary(nnx.Module):
    """Rotary positions (see `rope`): without parameters or a maximum length."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        del rngs  # no parameters
        self.head_dim, self.theta = config.head_dim, config.rope_theta
        self.scaling = config.rope_scaling

    def embed(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """The embeddings as they are: rotations act on queries and keys."""
        del positions_BT
        return x_BTD

    def rotation(self, positions_BT: Int[Array, "#B T"]) -> Rotate:
        """Rotates heads by the angles of their positions; all blocks share one table."""
        table = rope_table(positions_BT, self.head_dim, self.theta, self.scaling)
        return functools.partial(apply_rope, table=table)

    def check_length(self, length: int) -> None:
        """Accepts every length."""


class ImageRotary(Rotary):
    """Rotary positions by image, row and column instead of the place in the row; see `rope.image_rope_table`."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs=rngs)
        self.tokens_per_image = config.tokens_per_image

    def rotation(self, positions_BT: Int[Array, "#B T"]) -> Rotate:
        """Rotates heads by the angles of their image, row and column; all blocks share one table."""
        table = image_rope_table(positions_BT, self.head_dim, self.theta, self.tokens_per_image)
        return functools.partial(apply_rope, table=table)


class Learned(nnx.Module):
    """A vector for each position, added to the embeddings.

    Position p reads row p + `position_offset`. OPT has two unused rows from fairseq, where position ids start after
    the id of padding.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.offset, self.positions = config.position_offset, config.max_position_embeddings
        rows = self.positions + self.offset
        # The rows are not split: OPT's 2050 = 2 * 5^2 * 41 divide over hardly any mesh.
        self.table = matrix(rngs, config, (rows, config.hidden_size), (None, "embed"))

    def embed(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """Adds the vector of each position, rounded to the embeddings' dtype.

        Raises:
          UserError: a position has no vector. Inside jit, where positions are unknown, its result is NaN.
        """
        if not isinstance(positions_BT, Tracer) and positions_BT.size:
            self.check_length(int(positions_BT.max()) + 1)
        # The width is gathered first, like the vocabulary table's in `Decoder.embed`.
        table = constrain(self.table[...], None, None)
        # By default JAX would read the last row for a position beyond the end. NaN cannot be overlooked.
        rows = table.at[positions_BT + self.offset].get(mode="fill", fill_value=jnp.nan)
        return x_BTD + rows.astype(x_BTD.dtype)

    def rotation(self, positions_BT: Int[Array, "#B T"]) -> Rotate:
        """Keeps queries and keys as they are."""
        del positions_BT
        return _same

    def check_length(self, length: int) -> None:
        """Requires a vector for each of the positions 0 .. length - 1.

        Raises:
          UserError: some have none.
        """
        if length > self.positions:
            raise UserError(
                f"position {length - 1} has no learned vector: the decoder has max_position_embeddings="
                f"{self.positions}; shorten the row, or build the decoder with more positions"
            )


class WithPlaces(nnx.Module):
    """Other positions, and a learned vector for each place within an image, added to the embeddings.

    Position p reads row p mod N of N = `tokens_per_image`: the place of the code to be predicted. BOS, at position 0,
    predicts place 0, and the last code of an image predicts place 0 of the next.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.places = matrix(
            rngs, config, (config.tokens_per_image, config.hidden_size), (None, "embed")
        )
        self.positions = POSITIONS[config.positions](config, rngs=rngs)

    def embed(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """Adds the vector of each place, rounded to the embeddings' dtype, and what the other positions add."""
        x_BTD = self.positions.embed(x_BTD, positions_BT)
        # The width is gathered first, like the vocabulary table's in `Decoder.embed`.
        table = constrain(self.places[...], None, None)
        return x_BTD + table[positions_BT % len(table)].astype(x_BTD.dtype)

    def rotation(self, positions_BT: Int[Array, "#B T"]) -> Rotate:
        """That of the other positions."""
        return self.positions.rotation(positions_BT)

    def check_length(self, length: int) -> None:
        """As the other positions do."""
        self.positions.check_length(length)


def _same(x_BTNH: jax.Array) -> jax.Array:
    return x_BTNH


POSITIONS: Mapping[str, type[Rotary] | type[Learned]] = {
    "rotary": Rotary,
    "rotary_2d": ImageRotary,
    "learned": Learned,
}


def make_positions(config: DecoderConfig, rngs: nnx.Rngs) -> Rotary | Learned | WithPlaces:
    """The configured positions."""
    kind = WithPlaces if config.place_embeddings else POSITIONS[config.positions]
    return kind(config, rngs=rngs)
