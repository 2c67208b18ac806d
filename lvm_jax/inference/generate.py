"""Continues prompts token by token; image and text generation both build on it.

It handles ids and embeddings and does not know what they mean. A prompt is read in one pass. All its candidates share
that cache, and each has slots of its own for the ids it draws (`lvm_jax/models/decoder/kv_cache.py`). One compiled call
then draws any number of ids.

R: prompts, B: rows, B/R candidates per prompt, T: tokens of a prompt, S: ids drawn in a call, P: ids drawn before it,
V: vocabulary, D: hidden size.
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
from lvm_jax.inference.sampling import Filters, draw, keep_new_ngrams, log_likelihood
from lvm_jax.models.decoder.kv_cache import KVCache, Prefix
from lvm_jax.parallel.sharding import constrain


class CachedDecoder(Protocol):
    """An NNX module that reads prompts into a cache and continues them, such as `lvm_jax.models.Decoder`."""

    def prefill(
        self,
        inputs: Int[Array, "R T"] | Float[Array, "R T D"],
        lengths_R: Int[Array, " R"],
        *,
        dtype: str | None = None,
    ) -> Prefix:
        """Reads prompts as ids or embeddings, right-padded to one length."""
        ...

    def init_cache(
        self, batch: int, max_len: int, *, dtype: str | None = None, prefix: Prefix | None = None
    ) -> KVCache:
        """An empty cache for `batch` rows of at most `max_len` tokens."""
        ...

    def extend(
        self, tokens_BT: Int[Array, "B T"], cache: KVCache
    ) -> tuple[Float[Array, "B T V"], KVCache]:
        """Reads T more ids of every row; returns their logits and the extended cache."""
        ...


@dataclasses.dataclass(frozen=True)
class Stop:
    """What ends a row.

    Attributes:
      ids: drawing one of them ends the row.
      pad: fills the row after its end.
    """

    ids: tuple[int, ...]
    pad: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attributes:
    """What tokens are, for decoders whose `prefill` and `extend` take it; see `Decoder.__call__`.

    Attributes:
      inputs_RT: of the inputs of each prompt; anything behind them.
      drawn_R: of each prompt's last token, and of all that its rows draw.
    """

    inputs_RT: Int[Array | np.ndarray, "R T"]
    drawn_R: Int[Array | np.ndarray, " R"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """The state that changes from draw to draw.

    Attributes:
      cache: each row's own tokens. The prompts' cache is kept apart, because every call donates this one.
      next_B: the next input of each row: the one id that is drawn but not yet in the cache.
      stopped_B: which rows have drawn a stop id.
      made: ids that each row has drawn; the key of a draw depends on it.
      log_likelihood_B: of the ids that each row has drawn, in nats, among the ids that were allowed and whatever the
        filters; the padding after a stop id does not count.
      attribute_B: what the next inputs are; None: the decoder does not ask.
    """

    cache: KVCache
    next_B: Int[Array, " B"]
    stopped_B: Bool[Array, " B"]
    made: Int[Array, ""]
    log_likelihood_B: Float[Array, " B"]
    attribute_B: Int[Array, " B"] | None = None


class Generator:
    """A decoder ready to continue prompts, on the mesh set by `jax.set_mesh` if there is one.

    Args:
      model: the decoder. Pass `model.unstacked()` where it exists: with stacked layers, the loop over tokens would
        copy every layer out of the stack for every token.
      cache_dtype: how the KV cache is stored, a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default
        the model's compute dtype.
    """

    def __init__(self, model: CachedDecoder, *, cache_dtype: str | None = None) -> None:
        self.cache_dtype = cache_dtype
        self._graphdef, self._state = nnx.split(model)

    def start(
        self,
        inputs: Int[np.ndarray, "R T"] | Float[Array, "R T D"],
        lengths_R: Int[np.ndarray, " R"],
        next_R: Int[np.ndarray, " R"],
        *,
        rows: int,
        slots: int,
        made: int = 0,
        attributes: Attributes | None = None,
    ) -> "Continuation":
        """Reads the prompts.

        Args:
          inputs: every prompt without its last token, as ids or embeddings, right-padded with anything; T may be 0.
          lengths_R: how many inputs of each prompt are real.
          next_R: the last token of each prompt, always an id: the first draw comes from its logits.
          rows: continuations of all prompts together, the same number for each; those of one prompt are adjacent.
          slots: how many ids each row may draw.
          made: ids that the rows drew before this call; the keys of the draws continue from there.
          attributes: what tokens are, if the decoder asks for it.

        Raises:
          UserError: `rows` is no multiple of the number of prompts, or the cache dtype is unknown.
        """
        if rows % len(next_R):
            raise UserError(f"{rows} rows over {len(next_R)} prompts: give every prompt as many")
        prefix, started = _start(
            self._graphdef, self._state, inputs, lengths_R, next_R, made, rows, slots, self.cache_dtype,
            attributes,
        )  # fmt: skip
        return Continuation(self._graphdef, self._state, prefix, started)


class Continuation:
    """Rows that are being continued; see `Generator.start`.

    Every call changes it in place, because the call reuses the memory of the caches.

    Attributes:
      graphdef, state: the decoder.
      prefix: the prompts' cache; None if every prompt is a single token.
      rows: the state of the rows.
    """

    def __init__(self, graphdef: Any, state: Any, prefix: Prefix | None, rows: Rows) -> None:
        self.graphdef, self.state = graphdef, state
        self.prefix, self.rows = prefix, rows
        # Counted on the host: reading the cache's length from the device would wait for draws still running.
        self._free = rows.cache.max_len
        self._drawn: list[Int[Array, "B _"]] = []  # the result of each call

    def read(
        self, ids_BT: Int[np.ndarray, "B T"], attributes_BT: Int[np.ndarray, "B T"] | None = None
    ) -> None:
        """Reads ids that are given and not drawn, of every row; the first draw then comes from the last one's logits.

        Args:
          ids_BT: what follows the prompt, at least one id. They take T slots.
          attributes_BT: of these, as in `Attributes`; the last is also that of what is drawn.

        Raises:
          UserError: not enough free slots.
        """
        count = ids_BT.shape[1]
        if not 1 <= count <= self._free:
            raise UserError(
                f"{count} ids to read with {self._free} free slots: give at least 1, and start with more slots"
            )
        self._free -= count
        self.rows = _read(self.graphdef, self.state, self.prefix, self.rows, ids_BT, attributes_BT)

    def draw(
        self,
        count: int,
        keys_B: Key[Array, " B"],
        filters: Filters,
        allowed: Bool[np.ndarray, " V"] | Bool[np.ndarray, "S V"],
        stop: Stop | None = None,
        *,
        no_repeat: int = 0,
    ) -> Int[Array, "B S"]:
        """Draws `count` more ids of every row in one dispatch, and returns before the device is done.

        Draw i of a row uses `fold_in(key, i)`, so the ids are the same however many calls draw them.

        Args:
          count: S.
          keys_B: one key per row.
          filters: from `Sampling.filters`.
          allowed: which ids may be drawn, one mask for all S steps or one per step.
          stop: what ends a row. The call ends early once all rows have stopped.
          no_repeat: no row draws the same n ids in a row twice, n of this many; 0 lets it. Needs `stop`, or a row could
            run out of ids.

        Returns:
          the ids; `stop.pad` after a row's stop id.

        Raises:
          UserError: not enough free slots, a mask that allows nothing or has the wrong number of steps, or `no_repeat`
            without a stop id that may be drawn.
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
        before_BP = None
        if no_repeat:
            if stop is None or not allowed[..., list(stop.ids)].any(axis=-1).all():
                raise UserError(
                    f"no_repeat={no_repeat} may forbid every other id: allow a stop id at every step"
                )
            before_BP = jnp.concatenate([jnp.zeros((len(keys_B), 0), jnp.int32), *self._drawn], 1)
        self._free -= count
        ids_BS, self.rows = _decode(
            self.graphdef, self.state, self.prefix, self.rows, keys_B, filters, allowed, count, stop,
            no_repeat, before_BP,
        )  # fmt: skip
        self._drawn.append(ids_BS)
        return ids_BS

    def grow(self, slots: int) -> None:
        """Gives every row `slots` more free slots.

        Each draw reads all slots, free ones too. Who cannot tell how long a text gets starts with few and grows.
        """
        self.rows = dataclasses.replace(self.rows, cache=_grown(self.rows.cache, slots))
        self._free += slots


def candidate_keys(seed: int, prompts: int, candidates: int) -> Key[Array, " B"]:
    """One key per row. Candidate b of every prompt has the same key, however many candidates and prompts there are."""
    root = jax.random.key(seed)
    keys_C = jax.vmap(lambda b: jax.random.fold_in(root, b))(jnp.arange(candidates))
    return jnp.tile(keys_C, prompts)


@functools.partial(jax.jit, static_argnames=("graphdef", "rows", "slots", "dtype"))
def _start(
    graphdef: Any,
    state: Any,
    inputs: Int[Array, "R T"] | Float[Array, "R T D"],
    lengths_R: Int[Array, " R"],
    next_R: Int[Array, " R"],
    made: Int[Array, ""] | int,
    rows: int,
    slots: int,
    dtype: str | None,
    attributes: Attributes | None,
) -> tuple[Prefix | None, Rows]:
    model = nnx.merge(graphdef, state)
    prefix, attribute_B, asked = None, None, {}
    if attributes is not None:
        asked = {"attributes_RT": attributes.inputs_RT}
        attribute_B = jnp.repeat(attributes.drawn_R, rows // len(next_R))
    if inputs.shape[1]:  # prompts of one token have nothing to prefill
        prefix = model.prefill(inputs, lengths_R, dtype=dtype, **asked)
    next_B = jnp.repeat(next_R.astype(jnp.int32), rows // len(next_R))
    cache = model.init_cache(rows, slots, dtype=dtype)
    made, likelihood_B = jnp.asarray(made, jnp.int32), jnp.zeros(rows)
    stopped_B = jnp.zeros(rows, bool)
    return prefix, Rows(cache, next_B, stopped_B, made, likelihood_B, attribute_B)


@functools.partial(jax.jit, static_argnames="graphdef", donate_argnames=("rows",))
def _read(
    graphdef: Any,
    state: Any,
    prefix: Prefix | None,
    rows: Rows,
    ids_BT: Int[Array, "B T"],
    attributes_BT: Int[Array, "B T"] | None,
) -> Rows:
    def inputs(next_B: jax.Array, given_BT: jax.Array) -> jax.Array:
        """The next input of each row, and all that is given but the last."""
        return jnp.concatenate([next_B[:, None], given_BT[:, :-1]], axis=1)

    model, attribute_B, asked = nnx.merge(graphdef, state), None, {}
    if attributes_BT is not None:
        assert rows.attribute_B is not None  # the prompts had attributes too
        asked = {"attributes_BT": inputs(rows.attribute_B, attributes_BT)}
        attribute_B = attributes_BT[:, -1]
    cache = dataclasses.replace(rows.cache, prefix=prefix)
    _, cache = model.extend(inputs(rows.next_B, ids_BT), cache, **asked)
    return dataclasses.replace(
        rows,
        cache=dataclasses.replace(cache, prefix=None),
        next_B=ids_BT[:, -1],
        attribute_B=attribute_B,
    )


@functools.partial(jax.jit, static_argnames="slots")
def _grown(cache: KVCache, slots: int) -> KVCache:
    return cache.grown(slots)


# The loop's state: draws made in this call, the rows, and the ids drawn so far.
_Carry = tuple[Int[Array, ""], Rows, Int[Array, "S B"]]


@functools.partial(
    jax.jit, static_argnames=("graphdef", "count", "stop", "no_repeat"), donate_argnames=("rows",)
)
def _decode(
    graphdef: Any,
    state: Any,
    prefix: Prefix | None,
    rows: Rows,
    keys_B: Key[Array, " B"],
    filters: Filters,
    allowed: Bool[Array, " V"] | Bool[Array, "S V"],
    count: int,
    stop: Stop | None,
    no_repeat: int,
    before_BP: Int[Array, "B P"] | None,
) -> tuple[Int[Array, "B S"], Rows]:
    model = nnx.merge(graphdef, state)

    def goes_on(carry: _Carry) -> Bool[Array, ""]:
        n, rows, _ = carry
        # Without a stop id the trip count is a compile-time constant, and no step waits for `stopped_B`.
        return (n < count) if stop is None else (n < count) & ~rows.stopped_B.all()

    def step(carry: _Carry) -> _Carry:
        n, rows, ids_SB = carry
        # The prefix joins only here: `rows` is donated to each call, and the prompts' cache must outlive it.
        cache = dataclasses.replace(rows.cache, prefix=prefix)
        asked = {}
        if rows.attribute_B is not None:
            asked = {"attributes_BT": rows.attribute_B[:, None]}
        logits_B1V, cache = model.extend(rows.next_B[:, None], cache, **asked)
        step_keys_B = jax.vmap(lambda key: jax.random.fold_in(key, rows.made))(keys_B)
        allowed_V = allowed[n] if allowed.ndim == 2 else allowed
        logits_BV = logits_B1V[:, -1]
        if before_BP is not None:
            drawn = jnp.concatenate([before_BP.T, ids_SB]), before_BP.shape[1] + n
            logits_BV = keep_new_ngrams(logits_BV, *drawn, no_repeat)
        ids_B, stopped_B = draw(step_keys_B, logits_BV, filters, allowed_V), rows.stopped_B
        gained_B = log_likelihood(logits_BV, ids_B, allowed_V)
        if stop is not None:
            ids_B = jnp.where(stopped_B, stop.pad, ids_B)
            gained_B = jnp.where(stopped_B, 0.0, gained_B)
            stopped_B = stopped_B | jnp.isin(ids_B, jnp.array(stop.ids, jnp.int32))
        rows = Rows(
            dataclasses.replace(cache, prefix=None),
            ids_B,
            stopped_B,
            rows.made + 1,
            rows.log_likelihood_B + gained_B,
            rows.attribute_B,
        )
        return n + 1, rows, jax.lax.dynamic_update_index_in_dim(ids_SB, ids_B, n, axis=0)

    # (S, B), as a scan would stack it: each write is one contiguous row. Pad fills the steps left out by an early end.
    blank_SB = jnp.full((count, len(keys_B)), 0 if stop is None else stop.pad, jnp.int32)
    _, rows, ids_SB = jax.lax.while_loop(goes_on, step, (jnp.int32(0), rows, blank_SB))
    # Replicated, so every host can read all ids and how likely they are.
    total_B = constrain(rows.log_likelihood_B, None)
    rows = dataclasses.replace(rows, log_likelihood_B=total_B)
    return constrain(ids_SB.T, None, None), rows
