"""Continues prompts token by token: the core under every face that generates (images, text).

It knows ids and embeddings, and nothing of what they mean. A prompt is read in one pass, and its cache is shared by all
of its candidates, each of which has slots for the ids that it draws itself (`lvm_jax/models/decoder/kv_cache.py`). Any
number of ids is then drawn in one compiled call.

R: prompts, B: rows, B/R candidates of each prompt, T: tokens of a prompt, S: ids drawn in a call, V: vocabulary,
D: hidden size.
"""

import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lvm_jax.errors import UserError
from lvm_jax.inference.sampling import Filters, draw
from lvm_jax.models.decoder.kv_cache import KVCache, Prefix
from lvm_jax.parallel.sharding import constrain


class CachedDecoder(Protocol):
    """An NNX module that reads prompts into a cache and continues them; `lvm_jax.models.Decoder` is one."""

    def prefill(
        self,
        inputs: Int[Array, "R T"] | Float[Array, "R T D"],
        lengths_R: Int[Array, "R"],
        *,
        dtype: str | None = None,
    ) -> Prefix:
        """Reads prompts, right-padded to one length, as ids or as embeddings."""
        ...

    def init_cache(
        self, batch: int, max_len: int, *, dtype: str | None = None, prefix: Prefix | None = None
    ) -> KVCache:
        """Free slots for `batch` rows of at most `max_len` tokens."""
        ...

    def extend(
        self, tokens_BT: Int[Array, "B T"], cache: KVCache
    ) -> tuple[Float[Array, "B T V"], KVCache]:
        """Reads T more ids of every row; the logits of each, and the longer cache."""
        ...


@dataclasses.dataclass(frozen=True)
class Stop:
    """What ends a row.

    Attributes:
      ids: the row draws one of them, and nothing after it.
      pad: what the row gives instead of further draws.
    """

    ids: tuple[int, ...]
    pad: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """What changes from one draw to the next.

    Attributes:
      cache: each row's own tokens; the prompts' cache is beside it, because this one is donated to every call.
      next_B: the next input of each row, the only id that is drawn and not yet in the cache.
      stopped_B: the rows that have drawn a stop id.
      made: how many ids each row has drawn; it numbers the keys of the draws.
    """

    cache: KVCache
    next_B: Int[Array, "b"]
    stopped_B: Bool[Array, "b"]
    made: Int[Array, ""]


class Generator:
    """A decoder ready to continue prompts; on the mesh set by `jax.set_mesh`, if any.

    Args:
      model: the decoder. Give `model.unstacked()` where it has one: of a stack, a loop over tokens would copy every
        layer out for every token.
      cache_dtype: what the KV cache is stored in, a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default
        the model's compute dtype.
    """

    def __init__(self, model: CachedDecoder, *, cache_dtype: str | None = None) -> None:
        self.cache_dtype = cache_dtype
        self._graphdef, self._state = nnx.split(model)

    def start(
        self,
        inputs: Int[np.ndarray, "R T"] | Float[Array, "R T D"],
        lengths_R: Int[np.ndarray, "R"],
        next_R: Int[np.ndarray, "R"],
        *,
        rows: int,
        slots: int,
        made: int = 0,
    ) -> "Continuation":
        """Reads the prompts.

        Args:
          inputs: every prompt but its last token, as ids or as embeddings, right-padded with anything; T may be 0.
          lengths_R: how many of the inputs each prompt has.
          next_R: the last token of each prompt. It is an id, because the first draw is made from its logits.
          rows: continuations in all, equally many of each prompt; those of one prompt are neighbours.
          slots: how many ids each row may draw.
          made: how many ids the rows have drawn before, so that the keys of the draws go on from there.

        Raises:
          UserError: rows that do not divide over the prompts, or an unknown cache dtype.
        """
        if rows % len(next_R):
            raise UserError(f"{rows} rows over {len(next_R)} prompts: give every prompt as many")
        prefix, started = _start(
            self._graphdef, self._state, inputs, lengths_R, next_R, made, rows, slots, self.cache_dtype
        )  # fmt: skip
        return Continuation(self._graphdef, self._state, prefix, started)


class Continuation:
    """Rows under way; see `Generator.start`.

    It changes with every call, because a call reuses the memory of the caches that it was given.

    Attributes:
      prefix: the prompts' cache; None where all prompts have only their last token.
      rows: where the rows are.
    """

    def __init__(self, graphdef: Any, state: Any, prefix: Prefix | None, rows: Rows) -> None:
        self._graphdef, self._state = graphdef, state
        self.prefix, self.rows = prefix, rows
        # The length is on the device: asking for it would wait for the draws that are still running.
        self._free = rows.cache.max_len

    def draw(
        self,
        count: int,
        keys_B: Key[Array, "b"],
        filters: Filters,
        allowed: Bool[np.ndarray, "v"] | Bool[np.ndarray, "s v"],
        stop: Stop | None = None,
    ) -> Int[Array, "b s"]:
        """Draws `count` more ids of every row in one dispatch; returns before they are there.

        Draw i of a row uses `fold_in(key, i)`, so the ids do not depend on how many calls they are drawn in.

        Args:
          count: S.
          keys_B: a key of each row.
          filters: from `Sampling.filters`.
          allowed: which ids may be drawn: always, or at each of the S steps.
          stop: what ends a row. The call ends early when all rows have stopped.

        Returns:
          the ids; `stop.pad` after a row's stop id.

        Raises:
          UserError: more ids than there are free slots, or a mask that allows nothing or has another number of steps.
        """
        if not 1 <= count <= self._free:
            raise UserError(
                f"asked for {count} ids with {self._free} free slots: ask for at least 1, and start with more slots"
            )
        if allowed.ndim == 2 and len(allowed) != count:
            raise UserError(
                f"the mask has {len(allowed)} steps for {count} ids: give one mask, or one for every id"
            )
        if not allowed.any(axis=-1).all():
            raise UserError("a mask allows 0 ids: allow at least 1 at every step")
        self._free -= count
        ids_BS, self.rows = _decode(
            self._graphdef, self._state, self.prefix, self.rows, keys_B, filters, allowed, count, stop
        )  # fmt: skip
        return ids_BS


def candidate_keys(seed: int, prompts: int, candidates: int) -> Key[Array, "b"]:
    """A key for each row: candidate b of every prompt has the same, whatever the number of candidates and prompts."""
    root = jax.random.key(seed)
    keys_C = jax.vmap(lambda b: jax.random.fold_in(root, b))(jnp.arange(candidates))
    return jnp.tile(keys_C, prompts)


@functools.partial(jax.jit, static_argnames=("graphdef", "rows", "slots", "dtype"))
def _start(
    graphdef: Any,
    state: Any,
    inputs: Int[Array, "R T"] | Float[Array, "R T D"],
    lengths_R: Int[Array, "R"],
    next_R: Int[Array, "R"],
    made: Int[Array, ""] | int,
    rows: int,
    slots: int,
    dtype: str | None,
) -> tuple[Prefix | None, Rows]:
    model = nnx.merge(graphdef, state)
    prefix = None
    if inputs.shape[1]:  # prompts of one token have nothing to read before the first draw
        prefix = model.prefill(inputs, lengths_R, dtype=dtype)
    next_B = jnp.repeat(next_R.astype(jnp.int32), rows // len(next_R))
    cache = model.init_cache(rows, slots, dtype=dtype)
    return prefix, Rows(cache, next_B, jnp.zeros(rows, bool), jnp.asarray(made, jnp.int32))


# Of the loop over draws: how many this call has made, the rows, and its ids.
_Carry = tuple[Int[Array, ""], Rows, Int[Array, "s b"]]


@functools.partial(
    jax.jit, static_argnames=("graphdef", "count", "stop"), donate_argnames=("rows",)
)
def _decode(
    graphdef: Any,
    state: Any,
    prefix: Prefix | None,
    rows: Rows,
    keys_B: Key[Array, "b"],
    filters: Filters,
    allowed: Bool[Array, "v"] | Bool[Array, "s v"],
    count: int,
    stop: Stop | None,
) -> tuple[Int[Array, "b s"], Rows]:
    model = nnx.merge(graphdef, state)

    def goes_on(carry: _Carry) -> Bool[Array, ""]:
        n, rows, _ = carry
        # Without a stop id the number of turns is known when the loop is compiled, and no turn waits for the answer.
        return (n < count) if stop is None else (n < count) & ~rows.stopped_B.all()

    def step(carry: _Carry) -> _Carry:
        n, rows, ids_SB = carry
        cache = dataclasses.replace(rows.cache, prefix=prefix)
        logits_B1V, cache = model.extend(rows.next_B[:, None], cache)
        step_keys_B = jax.vmap(lambda key: jax.random.fold_in(key, rows.made))(keys_B)
        allowed_V = allowed[n] if allowed.ndim == 2 else allowed
        ids_B, stopped_B = draw(step_keys_B, logits_B1V[:, -1], filters, allowed_V), rows.stopped_B
        if stop is not None:
            ids_B = jnp.where(stopped_B, stop.pad, ids_B)
            stopped_B = stopped_B | jnp.isin(ids_B, jnp.array(stop.ids, jnp.int32))
        rows = Rows(dataclasses.replace(cache, prefix=None), ids_B, stopped_B, rows.made + 1)
        return n + 1, rows, jax.lax.dynamic_update_index_in_dim(ids_SB, ids_B, n, axis=0)

    blank_SB = jnp.full((count, len(keys_B)), 0 if stop is None else stop.pad, jnp.int32)
    _, rows, ids_SB = jax.lax.while_loop(goes_on, step, (jnp.int32(0), rows, blank_SB))
    return constrain(ids_SB.T, None, None), rows  # all hosts get all ids
