"""Wrong codes among a decoder's inputs while it trains: it then learns to answer from codes that are not quite right.

In generation a decoder reads its own codes, which are not always right; in training it reads true ones only. Labels
stay true. The idea is that of scheduled sampling (arXiv 1506.03099), with uniform codes in place of the model's own;
share and distribution are our choice.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CodeNoise:
    """Replaces some codes by random ones.

    Attributes:
      share: of the codes, in [0, 1); each is replaced or not by itself, whatever its image. 0: none.
      codes: K; ids below it are codes, and only those are replaced.
    """

    share: float = 0.0
    codes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UserError(f"code_noise is {self.share}: it must be at least 0 and below 1")
        if self.share and self.codes < 2:
            raise UserError(
                f"code_noise is {self.share} with {self.codes} codes: nothing can take a code's place; set it to 0"
            )

    def __call__(self, tokens_BT: Int[Array, "B T"], key: jax.Array) -> Int[Array, "B T"]:
        """The tokens with noise. A drawn code may be the true one, 1 in K."""
        which, what = jax.random.split(key)
        replaced = jax.random.bernoulli(which, self.share, tokens_BT.shape)
        drawn_BT = jax.random.randint(what, tokens_BT.shape, 0, self.codes, tokens_BT.dtype)
        return jnp.where(replaced & (tokens_BT < self.codes), drawn_BT, tokens_BT)
