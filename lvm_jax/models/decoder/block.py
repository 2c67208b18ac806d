"""A block: attention, then an MLP, each after a norm and added to the residual stream.

Shapes: B batch, T tokens, D hidden size, N query heads, K key-value heads, H head dimension.
"""

from collections.abc import Callable, Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.mlp import Losses, MLPClass, Tokens
from lvm_jax.models.decoder.norms import make_norm
from lvm_jax.models.decoder.positions import Rotate
from lvm_jax.models.decoder.projections import Attention
from lvm_jax.models.dropout import dropout
from lvm_jax.parallel.sharding import constrain

# (q_BTNH, k_BTKH, v_BTKH, dropout key or None) -> y_BTNH; over whole rows, or through a cache.
Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]


class Block(nnx.Module):
    """One pre-norm layer.

    Args:
      config: the decoder.
      mlp: the class of its MLP.
      rngs: for its parameters.
    """

    def __init__(self, config: DecoderConfig, mlp: MLPClass, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = make_norm(config)
        self.mlp = mlp(config, rngs=rngs)
        self.dropout = config.dropout

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        rotate: Rotate,
        attend: Attend,
        dropout_key: jax.Array | None = None,
        tokens: Tokens | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """The updated residual stream, and the MLP's auxiliary losses.

        Args:
          x_BTD: the residual stream.
          rotate: gives queries and keys their positions.
          attend: attention over the projected heads.
          dropout_key: None in evaluation.
          tokens: what the MLP may know of them.
        """
        keys = [None] * 4 if dropout_key is None else jax.random.split(dropout_key, 4)
        q, k, v = self.attention.project(self.attention_norm(x_BTD), rotate)
        y_BTD = self.attention.merge(attend(q, k, v, keys[0]))
        x_BTD = x_BTD + dropout(y_BTD, self.dropout, keys[1])
        x_BTD = constrain(x_BTD, "batch", "seq", "act_embed")
        y_BTD, losses = self.mlp(self.mlp_norm(x_BTD), keys[2], tokens)
        x_BTD = x_BTD + dropout(y_BTD, self.dropout, keys[3])
        return constrain(x_BTD, "batch", "seq", "act_embed"), losses


class Period(nnx.Module):
    """Consecutive blocks with different MLPs: what a stack repeats if `config.mlps` names several kinds.

    It is called like a block, so a stack need not know which of the two it repeats.
    """

    def __init__(self, config: DecoderConfig, mlps: Sequence[MLPClass], *, rngs: nnx.Rngs) -> None:
        self.places = nnx.List([Block(config, mlp, rngs=rngs) for mlp in mlps])

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        rotate: Rotate,
        attend: Attend,
        dropout_key: jax.Array | None = None,
        tokens: Tokens | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """Applies the blocks in order; see `Block`."""
        total: Losses = {}
        for place, block in enumerate(self.places):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, place)
            x_BTD, losses = block(x_BTD, rotate, attend, key, tokens)
            total = add_losses(total, losses)
        return x_BTD, total


def add_losses(one: Losses, other: Losses) -> Losses:
    """Adds losses of the same name; a name that only one has is kept."""
    return {
        name: one[name] + other[name] if name in one and name in other else (one | other)[name]
        for name in one | other
    }
