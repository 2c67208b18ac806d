"""Looking back: what stood at the same place of the image before, as part of each embedding.

In visual sentences most of what decides a code lies one image before: at the same place of the query, of the last
frame or of the last view. And what an example teaches is a pair of codes one image apart. Attention finds both, but
only after long training, because looking a code up in the examples takes two layers that are worth nothing apart
(induction heads, Olsson et al., arXiv 2209.11895). With the earlier code beside each embedding, one layer is enough;
they show the same for "smeared" keys of text, whose pairs are one token apart.

Shapes: B batch, T tokens, D hidden size; N tokens back.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.linear import linear, matrix


class LookBack(nnx.Module):
    """x_p + A x_(p - N) + B x_(p + 1 - N), for position p of a sentence; what is before position 1 counts as 0.

    N is the distance of a code and its counterpart in the image before. So A reads the counterpart of the token itself,
    and B that of the code to be predicted.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        shape = (config.hidden_size, config.hidden_size)
        self.here = matrix(rngs, config, shape, ("embed", None))
        self.ahead = matrix(rngs, config, shape, ("embed", None))
        self.distance = config.look_back

    def whole_rows(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """The embeddings of rows of whole sentences, each token with what it looks back at.

        Args:
          x_BTD: embeddings without positions.
          positions_BT: in their sentences, from 0; sentences are contiguous.
        """
        N = self.distance
        here_BTD, ahead_BTD = (jnp.roll(x_BTD, back, axis=1) for back in (N, N - 1))
        return self._sum(x_BTD, here_BTD, ahead_BTD, positions_BT)

    def cached(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "#B T"],
        inputs_at: Callable[[Int[Array, "#B T"]], Float[Array, "B T D"]],
    ) -> Float[Array, "B T D"]:
        """The same for tokens that continue a cache.

        Args:
          x_BTD, positions_BT: as in `whole_rows`, of the new tokens alone.
          inputs_at: positions -> embeddings; the new ones included.
        """
        here_BT = positions_BT - self.distance
        return self._sum(x_BTD, inputs_at(here_BT), inputs_at(here_BT + 1), positions_BT)

    def _sum(
        self,
        x_BTD: Float[Array, "B T D"],
        here_BTD: Float[Array, "B T D"],
        ahead_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "#B T"],
    ) -> Float[Array, "B T D"]:
        """Of all three; the two earlier ones may be any numbers where there is nothing to look back at."""
        first = positions_BT[..., None] - self.distance  # position 0 is BOS, and no code
        here_BTD = jnp.where(first > 0, here_BTD, 0)
        ahead_BTD = jnp.where(first + 1 > 0, ahead_BTD, 0)
        return x_BTD + linear(here_BTD, self.here[...]) + linear(ahead_BTD, self.ahead[...])
