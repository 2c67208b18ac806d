"""Keys and values of the tokens that a decoder has already read.

Shapes: L layers, B batch, S slots (the longest sequence the cache holds), T new tokens, K key-value heads,
H head dimension.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """A pytree of fixed shapes, so it can be the carry of `lax.scan` and be donated to a jitted step.

    Attributes:
      k_LBSKH: rotated keys; slots from `length` on are not yet written and no query sees them.
      v_LBSKH: values.
      length: how many tokens every row holds.
    """

    k_LBSKH: Float[Array, "L B S K H"]
    v_LBSKH: Float[Array, "L B S K H"]
    length: Int[Array, ""]

    @classmethod
    def empty(
        cls,
        *,
        layers: int,
        batch: int,
        max_len: int,
        kv_heads: int,
        head_dim: int,
        dtype: jnp.dtype,
    ) -> "KVCache":
        """A cache of `max_len` free slots for each of `batch` rows."""
        shape = (layers, batch, max_len, kv_heads, head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))

    @property
    def max_len(self) -> int:
        """S, the number of slots a row."""
        return self.k_LBSKH.shape[2]

    def check_room(self, tokens: int) -> None:
        """Requires `tokens` free slots, as far as the length is known: inside jit only S itself is checked.

        Raises:
          UserError: the tokens do not fit.
        """
        used = 0 if isinstance(self.length, Tracer) else int(self.length)
        if used + tokens > self.max_len:
            raise UserError(
                f"{tokens} more tokens after {used} exceed the KV cache of {self.max_len}: "
                f"call init_cache with max_len of at least {used + tokens}"
            )

    def write(
        self,
        layer: Int[Array, ""],
        k_BTKH: Float[Array, "B T K H"],
        v_BTKH: Float[Array, "B T K H"],
    ) -> "KVCache":
        """The cache with T tokens written behind `length` in one layer; `length` itself does not move yet."""
        start = (layer, 0, self.length, 0, 0)
        return dataclasses.replace(
            self,
            k_LBSKH=jax.lax.dynamic_update_slice(
                self.k_LBSKH, k_BTKH[None].astype(self.k_LBSKH.dtype), start
            ),
            v_LBSKH=jax.lax.dynamic_update_slice(
                self.v_LBSKH, v_BTKH[None].astype(self.v_LBSKH.dtype), start
            ),
        )

    def layer(
        self, layer: Int[Array, ""]
    ) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        """All slots of one layer, keys and values."""
        return self.k_LBSKH[layer], self.v_LBSKH[layer]

    def advance(self, tokens: int) -> "KVCache":
        """The cache once every layer has written `tokens` tokens."""
        return dataclasses.replace(self, length=self.length + tokens)
