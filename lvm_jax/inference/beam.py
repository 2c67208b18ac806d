"""Beam search: of the continuations of a prompt, the likeliest ones that a search of fixed width finds.

R: prompts, K: beams of a prompt, B = R * K rows, V: vocabulary, S: ids of a continuation, C: candidates of a step.

A beam is a row of the cache. In each step the likeliest C = K * (stop ids + 1) extensions of a prompt's beams are
looked at, so that at least K of them go on. Those that end among the first K are kept as finished, if they are among
the K best of all; the K best of the others go on.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.inference.generate import Continuation, Stop
from lvm_jax.inference.sampling import keep_allowed, keep_new_ngrams
from lvm_jax.models.decoder.kv_cache import KVCache, Prefix


@dataclasses.dataclass(frozen=True)
class Beams:
    """How wide to search, and how to compare texts of different lengths.

    Attributes:
      width: K, continuations that are kept.
      length_penalty: a finished text's score is its log-probability over its length to this power; the stop id counts.
        0 compares log-probabilities, which prefers short texts; 1 their mean.
      no_repeat: as in `Continuation.draw`.
    """

    width: int = 4
    length_penalty: float = 1.0
    no_repeat: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.length_penalty < 0 or self.no_repeat < 0:
            raise UserError(
                f"{self}: width must be at least 1, length_penalty and no_repeat at least 0"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """The search between two steps.

    Attributes:
      cache: each beam's own tokens.
      next_RK: the id that each beam read last, not yet in the cache.
      ids_RKS: ids of the beams.
      scores_RK: log-probabilities of the beams, the best first; -inf for one that does not exist.
      ended_RKS, ended_scores_RK: the finished texts with their stop id, and their scores, the best first.
    """

    cache: KVCache
    next_RK: Int[Array, "R K"]
    ids_RKS: Int[Array, "R K S"]
    scores_RK: Float[Array, "R K"]
    ended_RKS: Int[Array, "R K S"]
    ended_scores_RK: Float[Array, "R K"]


def search(
    started: Continuation,
    count: int,
    beams: Beams,
    allowed_V: Bool[np.ndarray, " V"],
    stop: Stop,
    *,
    first_slots: int,
) -> tuple[Int[np.ndarray, "R K S"], Float[np.ndarray, "R K"]]:
    """Continues every prompt by at most `count` ids.

    It ends when no beam can become better than the finished texts. Beams that have not ended by then count as texts
    without a stop id.

    Args:
      started: from `Generator.start`, with K rows for each prompt and `first_slots` slots. It is used up.
      count: S.
      beams: see `Beams`.
      allowed_V: ids that may be drawn.
      stop: what ends a text.
      first_slots: slots of the cache; they double when they are used up.

    Returns:
      K texts of each prompt, the best first, pad behind their stop id; and their scores.

    Raises:
      UserError: no stop id is allowed, which would be needed when `no_repeat` forbids all others.
    """
    if beams.no_repeat and not allowed_V[list(stop.ids)].any():
        raise UserError(f"no_repeat={beams.no_repeat} may forbid every other id: allow a stop id")
    state = _begin(started.rows.cache, started.rows.next_B, beams.width, count, stop)
    slots = done = 0
    while done < count:
        grown = min(max(first_slots, 2 * slots), count)
        if slots:
            state = _grown(state, grown - slots)
        slots = grown
        state, settled = _advance(
            started.graphdef, started.state, started.prefix, state, allowed_V, slots, count, beams, stop
        )  # fmt: skip
        done = count if bool(settled) else slots
    ids_RKS, scores_RK = _best(state, beams, stop)
    return np.asarray(ids_RKS), np.asarray(scores_RK)


@functools.partial(jax.jit, static_argnames=("width", "count", "stop"))
def _begin(cache: KVCache, next_B: Int[Array, " B"], width: int, count: int, stop: Stop) -> _State:
    R = next_B.shape[0] // width
    none = jnp.full((R, width), -jnp.inf, jnp.float32)
    blank = jnp.full((R, width, count), stop.pad, jnp.int32)
    # All beams of a prompt are equal at first: only one of them counts.
    return _State(cache, next_B.reshape(R, width), blank, none.at[:, 0].set(0.0), blank, none)


@functools.partial(jax.jit, static_argnames="slots")
def _grown(state: _State, slots: int) -> _State:
    return dataclasses.replace(state, cache=state.cache.grown(slots))


@functools.partial(
    jax.jit,
    static_argnames=("graphdef", "slots", "count", "beams", "stop"),
    donate_argnames=("state_",),
)
def _advance(
    graphdef: Any,
    weights: Any,
    prefix: Prefix | None,
    state_: _State,
    allowed_V: Bool[Array, " V"],
    slots: int,
    count: int,
    beams: Beams,
    stop: Stop,
) -> tuple[_State, Bool[Array, ""]]:
    """Steps until the slots are full or nothing can get better; the second result says which."""
    model = nnx.merge(graphdef, weights)

    def goes_on(state: _State) -> Bool[Array, ""]:
        return (state.cache.length < slots) & ~_settled(state, count, beams)

    def step(state: _State) -> _State:
        R, K, S = state.ids_RKS.shape
        cache = dataclasses.replace(state.cache, prefix=prefix)
        logits_B1V, cache = model.extend(state.next_RK.reshape(-1, 1), cache)
        logp_BV = jax.nn.log_softmax(logits_B1V[:, -1].astype(jnp.float32))
        if beams.no_repeat:
            ids_SB = state.ids_RKS.reshape(R * K, S).T
            logp_BV = keep_new_ngrams(logp_BV, ids_SB, state.cache.length, beams.no_repeat)
        logp_BV = keep_allowed(logp_BV, allowed_V)
        cache = dataclasses.replace(cache, prefix=None)
        return _chosen(state, cache, logp_BV.reshape(R, K, -1), beams, stop)

    state = jax.lax.while_loop(goes_on, step, state_)
    return state, _settled(state, count, beams)


def _chosen(
    state: _State, cache: KVCache, logp_RKV: Float[Array, "R K V"], beams: Beams, stop: Stop
) -> _State:
    """The state after a step: the best extensions of all beams of a prompt, finished or going on."""
    R, K, V = logp_RKV.shape
    length = cache.length  # of every beam, with the new id
    wanted = min(K * (len(stop.ids) + 1), K * V)
    totals = (state.scores_RK[..., None] + logp_RKV).reshape(R, K * V)
    scores_RC, places_RC = jax.lax.top_k(totals, wanted)
    parents_RC, new_RC = places_RC // V, (places_RC % V).astype(jnp.int32)
    ids_RCS = jnp.take_along_axis(state.ids_RKS, parents_RC[..., None], axis=1)
    ids_RCS = jax.lax.dynamic_update_index_in_dim(ids_RCS, new_RC, length - 1, axis=2)
    ends_RC = jnp.isin(new_RC, jnp.array(stop.ids, jnp.int32))
    among_first = (jnp.arange(wanted) < K)[None]
    ended_RC = jnp.where(ends_RC & among_first, _penalised(scores_RC, length, beams), -jnp.inf)
    both = jnp.concatenate([state.ended_scores_RK, ended_RC], axis=1)
    texts = jnp.concatenate([state.ended_RKS, ids_RCS], axis=1)
    ended_scores_RK, best_RK = jax.lax.top_k(both, K)
    scores_RK, kept_RK = jax.lax.top_k(jnp.where(ends_RC, -jnp.inf, scores_RC), K)
    parents_RK = jnp.take_along_axis(parents_RC, kept_RK, axis=1)
    rows_B = (jnp.arange(R)[:, None] * K + parents_RK).reshape(-1)
    return _State(
        cache.reordered(rows_B),
        jnp.take_along_axis(new_RC, kept_RK, axis=1),
        jnp.take_along_axis(ids_RCS, kept_RK[..., None], axis=1),
        scores_RK,
        jnp.take_along_axis(texts, best_RK[..., None], axis=1),
        ended_scores_RK,
    )


def _settled(state: _State, count: int, beams: Beams) -> Bool[Array, ""]:
    """Whether no beam can overtake the worst finished text: log-probabilities only fall, lengths end at `count`."""
    reachable_R = _penalised(state.scores_RK[:, 0], jnp.asarray(count), beams)
    return jnp.all(reachable_R <= state.ended_scores_RK[:, -1])


def _penalised(scores: Float[Array, "..."], length: Int[Array, ""], beams: Beams) -> jax.Array:
    return scores / length.astype(jnp.float32) ** beams.length_penalty


@functools.partial(jax.jit, static_argnames=("beams", "stop"))
def _best(
    state: _State, beams: Beams, stop: Stop
) -> tuple[Int[Array, "R K S"], Float[Array, "R K"]]:
    """The finished texts and the beams together."""
    open_RK = _penalised(state.scores_RK, state.cache.length, beams)
    scores = jnp.concatenate([state.ended_scores_RK, open_RK], axis=1)
    texts = jnp.concatenate([state.ended_RKS, state.ids_RKS], axis=1)
    scores_RK, best_RK = jax.lax.top_k(scores, beams.width)
    return jnp.take_along_axis(texts, best_RK[..., None], axis=1), scores_RK
