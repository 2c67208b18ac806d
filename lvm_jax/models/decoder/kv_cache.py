"""Keys and values of the tokens that a decoder has already read.

A cache is a shared, read-only prefix, and slots of each row's own. The prefix stores each of R prompts once, however
many rows continue it: row b belongs to prompt b // (B/R). Keys and values are stored in the compute dtype, or in 8 bits
with a scale for each token and head.

Shapes: L layers, B batch, R prompts, S slots, T new tokens, K key-value heads, N query heads, H head dimension,
D hidden size.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.models.attention.cached import KeyBlock, attend_key_blocks
from lvm_jax.parallel.sharding import constrain

# Stored dtype -> the largest magnitude of a quantised entry; None: not quantised.
CACHE_DTYPES: dict[str, float | None] = {
    "float32": None,
    "bfloat16": None,
    "int8": 127.0,
    "float8_e4m3fn": 448.0,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stored:
    """Keys or values of one layer: `x_BKSH`, or if quantised `x_BKSH * scale_BKS[..., None]`.

    Heads come before slots, so that a head's slots are contiguous: decoding reads whole heads.
    """

    x_BKSH: Array
    scale_BKS: Float[Array, "B K S"] | None

    @classmethod
    def of(cls, x_BTKH: Float[Array, "B T K H"], dtype: str) -> "Stored":
        """T tokens as they are stored: in `dtype`, 8 bits relative to the largest entry of each token and head."""
        x_BKTH = constrain(x_BTKH.swapaxes(1, 2), "batch", "act_heads", None, None)
        largest = CACHE_DTYPES[dtype]
        if largest is None:
            return cls(x_BKTH.astype(dtype), None)
        x_BKTH = x_BKTH.astype(jnp.float32)
        scale_BKT = jnp.max(jnp.abs(x_BKTH), axis=-1) / largest
        # An all-zero head has scale 0: divided by `tiny` it stays 0 and not NaN.
        scaled_BKTH = x_BKTH / jnp.maximum(scale_BKT, jnp.finfo(jnp.float32).tiny)[..., None]
        if dtype == "int8":  # a cast to integers cuts off, a cast to fp8 rounds
            scaled_BKTH = jnp.round(scaled_BKTH)
        return cls(scaled_BKTH.astype(dtype), scale_BKT)

    @classmethod
    def empty(cls, batch: int, kv_heads: int, slots: int, head_dim: int, dtype: str) -> "Stored":
        """Free slots."""
        scale = None
        if CACHE_DTYPES[dtype] is not None:
            scale = jnp.zeros((batch, kv_heads, slots), jnp.float32)
        x_BKSH = jnp.zeros((batch, kv_heads, slots, head_dim), dtype)
        return cls(constrain(x_BKSH, "batch", "act_heads", None, None), scale)

    def write(self, new: "Stored", start: Int[Array, ""]) -> "Stored":
        """The slots with `new` written from `start` on."""
        return jax.tree.map(
            # Scales have no last dimension.
            lambda slots, x: jax.lax.dynamic_update_slice(slots, x, (0, 0, start, 0)[: slots.ndim]),
            self,
            new,
        )

    def grown(self, slots: int) -> "Stored":
        """The same with `slots` free slots more."""
        return jax.tree.map(
            lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, slots), (0, 0)][: x.ndim]), self
        )

    def reordered(self, rows_B: Int[Array, " B"]) -> "Stored":
        """Row b is what row `rows_B[b]` was."""
        return jax.tree.map(lambda x: x[rows_B], self)


Layer = tuple[Stored, Stored]  # keys (already rotated by their positions), values


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """The prompts: each layer's keys and values, right-padded to the longest prompt.

    Attributes:
      layers: L pairs of keys and values, R rows.
      lengths_R: tokens of each prompt; slots after them are never seen.
      inputs_RTD: the embeddings of the prompts, for a decoder that looks back at them; else None.
    """

    layers: tuple[Layer, ...]
    lengths_R: Int[Array, "R"]
    inputs_RTD: Float[Array, "R T D"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """A pytree of fixed shapes: it can be the carry of `lax.scan`, and can be donated to a jitted step.

    Layers are separate arrays; out of a stack, XLA would copy each layer for every token.

    Attributes:
      layers: L pairs of keys (rotated) and values, B rows; slots from `length` on are free.
      length: how many tokens every row holds after its prefix.
      prefix: the prompts before them, or None.
      inputs_BSD: the embeddings that the rows were given, for a decoder that looks back at them; else None.
    """

    layers: tuple[Layer, ...]
    length: Int[Array, ""]
    prefix: Prefix | None = None
    inputs_BSD: Float[Array, "B S D"] | None = None

    @classmethod
    def empty(
        cls,
        *,
        layers: int,
        batch: int,
        max_len: int,
        kv_heads: int,
        head_dim: int,
        dtype: str,
        prefix: Prefix | None = None,
        inputs_BSD: Float[Array, "B S D"] | None = None,
    ) -> "KVCache":
        """A cache with `max_len` free slots for each of `batch` rows, after `prefix`.

        Raises:
          UserError: the dtype is not one of `CACHE_DTYPES`, or the rows do not divide over the prompts.
        """
        check_dtype(dtype)
        if prefix is not None and batch % len(prefix.lengths_R):
            raise UserError(
                f"{batch} rows over {len(prefix.lengths_R)} prompts: give every prompt as many rows"
            )

        def slots() -> Stored:
            return Stored.empty(batch, kv_heads, max_len, head_dim, dtype)

        return cls(
            tuple((slots(), slots()) for _ in range(layers)),
            jnp.zeros((), jnp.int32),
            prefix,
            inputs_BSD,
        )

    @property
    def max_len(self) -> int:
        """S, how many slots of its own each row has."""
        return self.layers[0][0].x_BKSH.shape[2]

    def check_room(self, tokens: int) -> None:
        """Requires `tokens` free slots. Inside jit the length is unknown, and this checks only against S.

        Raises:
          UserError: the tokens do not fit.
        """
        used = 0 if isinstance(self.length, Tracer) else int(self.length)
        if used + tokens > self.max_len:
            raise UserError(
                f"{tokens} more tokens after {used} exceed the KV cache of {self.max_len}: "
                f"call init_cache with max_len of at least {used + tokens}"
            )

    def positions(self, tokens: int) -> Int[Array, "#B T"]:
        """Positions of each row's next tokens, counted from the start of its prefix."""
        own_1T = (self.length + jnp.arange(tokens))[None]
        if self.prefix is None:
            return own_1T
        batch = len(self.layers[0][0].x_BKSH)
        lengths_R = self.prefix.lengths_R
        return jnp.repeat(lengths_R, batch // len(lengths_R))[:, None] + own_1T

    def with_inputs(self, x_BTD: Float[Array, "B T D"]) -> "KVCache":
        """The cache with the embeddings of T new tokens; it must keep inputs."""
        assert self.inputs_BSD is not None
        slots = jax.lax.dynamic_update_slice(self.inputs_BSD, x_BTD, (0, self.length, 0))
        return dataclasses.replace(self, inputs_BSD=slots)

    def inputs_at(self, positions_BT: Int[Array, "#B T"]) -> Float[Array, "B T D"]:
        """The kept embeddings at some positions of each row; any numbers at positions that it does not hold."""
        assert self.inputs_BSD is not None
        batch = len(self.inputs_BSD)
        positions_BT = jnp.broadcast_to(positions_BT, (batch, positions_BT.shape[1]))
        rows_B1 = jnp.arange(batch)[:, None]
        if self.prefix is None:
            return self.inputs_BSD.at[rows_B1, positions_BT].get(mode="clip")
        assert self.prefix.inputs_RTD is not None
        prompts = len(self.prefix.lengths_R)
        prompts_B1 = rows_B1 // (batch // prompts)
        own_BT = positions_BT - self.prefix.lengths_R[prompts_B1]
        return jnp.where(
            own_BT[..., None] < 0,
            self.prefix.inputs_RTD.at[prompts_B1, positions_BT].get(mode="clip"),
            self.inputs_BSD.at[rows_B1, own_BT].get(mode="clip"),
        )

    def attend(
        self,
        layer: int,
        q_BTNH: Float[Array, "B T N H"],
        k_BTKH: Float[Array, "B T K H"],
        v_BTKH: Float[Array, "B T K H"],
    ) -> tuple[Float[Array, "B T N H"], Layer]:
        """Attention of T new tokens over the prefix, the row's own tokens and themselves; also the updated layer."""
        dtype = self.layers[layer][0].x_BKSH.dtype.name
        keys, values = (
            slots.write(Stored.of(new, dtype), self.length)
            for slots, new in zip(self.layers[layer], (k_BTKH, v_BTKH))
        )
        # New tokens are written first and read back, so their own keys are rounded like all others. Query t sees the
        # slots up to its own, not the later ones of the same call.
        ends_T = self.length + 1 + jnp.arange(q_BTNH.shape[1])
        blocks = [
            KeyBlock(keys.x_BKSH, keys.scale_BKS, values.x_BKSH, values.scale_BKS, ends_T[None])
        ]
        if self.prefix is not None:
            k, v = self.prefix.layers[layer]
            # Every new token sees its whole prompt, but not the padding after it.
            ends_R1 = self.prefix.lengths_R[:, None]
            blocks.append(KeyBlock(k.x_BKSH, k.scale_BKS, v.x_BKSH, v.scale_BKS, ends_R1))
        return attend_key_blocks(q_BTNH, blocks), (keys, values)

    def grown(self, slots: int) -> "KVCache":
        """The cache with `slots` more for each row."""
        layers = tuple((keys.grown(slots), values.grown(slots)) for keys, values in self.layers)
        inputs = self.inputs_BSD
        if inputs is not None:
            inputs = jnp.pad(inputs, [(0, 0), (0, slots), (0, 0)])
        return dataclasses.replace(self, layers=layers, inputs_BSD=inputs)

    def reordered(self, rows_B: Int[Array, " B"]) -> "KVCache":
        """Row b continues what row `rows_B[b]` of the same prompt was."""
        layers = tuple((k.reordered(rows_B), v.reordered(rows_B)) for k, v in self.layers)
        inputs = None if self.inputs_BSD is None else self.inputs_BSD[rows_B]
        return dataclasses.replace(self, layers=layers, inputs_BSD=inputs)

    def advance(self, tokens: int, layers: Sequence[Layer]) -> "KVCache":
        """The cache after every layer has stored `tokens` new tokens."""
        return dataclasses.replace(self, layers=tuple(layers), length=self.length + tokens)


def check_dtype(dtype: str) -> None:
    """Requires a key of `CACHE_DTYPES`.

    Raises:
      UserError: it is not.
    """
    if dtype not in CACHE_DTYPES:
        raise UserError(f"cache dtype {dtype!r} does not exist; known: {', '.join(CACHE_DTYPES)}")
