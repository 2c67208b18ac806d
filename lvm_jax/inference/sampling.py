"""Draws the next id from the decoder's logits: greedily, or with temperature, top-k, top-p and min-p.

B: rows, V: vocabulary, Z: slots of a row, W: places where n ids in a row begin.

Each filter sets the logits of forbidden ids to -inf and leaves the others alone, so filters compose in any order.
`draw` uses the customary one: allowed ids, temperature, top-k, top-p, min-p.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from lvm_jax.errors import UserError

_TEMPERATURES = 1e-30, 1e30  # within fp32, logits divided by them too


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw from the model's distribution.

    Attributes:
      temperature: divides the logits, 1e-30 to 1e30; 0 takes the most likely id (greedy).
      top_k: draws only from the k most likely ids; 0 means all.
      top_p: draws only from the most likely ids that together reach this probability; 1 means all.
      min_p: draws only from ids at least this fraction as likely as the likeliest; 0 means all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def filters(self) -> "Filters":
        """Checks the values and converts them to what `draw` takes.

        Raises:
          UserError: a value out of range.
        """
        lowest, highest = _TEMPERATURES
        if self.temperature != 0 and not lowest <= self.temperature <= highest:
            raise UserError(
                f"temperature is {self.temperature}: it must be 0 (greedy) or from {lowest} to {highest}"
            )
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}: it must be 0 (all codes) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: it must be above 0 and at most 1 (all codes)")
        if not 0 <= self.min_p < 1:
            raise UserError(f"min_p is {self.min_p}: it must be at least 0 (all codes) and below 1")
        if self.temperature == 0:
            return Filters(None, 0, None, None)
        top_p = self.top_p if self.top_p < 1 else None
        return Filters(self.temperature, self.top_k, top_p, self.min_p or None)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["temperature", "top_p", "min_p"],
    meta_fields=["top_k"],
)
@dataclasses.dataclass(frozen=True)
class Filters:
    """`Sampling` as a pytree. A filter that is off is None, so the compiled program has only the filters in use.

    A new temperature, top-p or min-p reuses the compiled program; a new top-k, the size of an array, compiles again.
    `temperature=None` is greedy.
    """

    temperature: float | Float[Array, ""] | None
    top_k: int
    top_p: float | Float[Array, ""] | None
    min_p: float | Float[Array, ""] | None


def keep_allowed(
    logits_BV: Float[Array, "B V"], allowed: Bool[Array | np.ndarray, "*#B V"]
) -> Float[Array, "B V"]:
    """Forbids every id whose mask is False, such as BOS, EOS and PAD in an image; see `Vocabulary.mask`."""
    return jnp.where(allowed, logits_BV, -jnp.inf)


def keep_top_k(logits_BV: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """Forbids all but exactly the k highest logits; ties go to the lower id. `k=0` keeps all."""
    if k == 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    # By index and not by the k-th logit as a threshold, which would keep all that tie with it.
    _, ids_BK = jax.lax.top_k(logits_BV, k)
    rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
    kept_BV = jnp.zeros(logits_BV.shape, bool).at[rows_B1, ids_BK].set(True)
    return jnp.where(kept_BV, logits_BV, -jnp.inf)


def keep_top_p(logits_BV: Float[Array, "B V"], p: Float[Array, ""] | float) -> Float[Array, "B V"]:
    """Forbids all but the smallest set of most likely ids whose probability reaches `p` (nucleus sampling,
    Holtzman et al., arXiv 1904.09751). The most likely id always stays; `p=1` keeps all.
    """
    order_BV = jnp.argsort(logits_BV, axis=-1, descending=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV  # the probability of all likelier ids
    # p = 1 keeps all explicitly: rounding of the sum could otherwise drop the least likely ids.
    kept_BV = ((before_BV < p) | (jnp.asarray(p) >= 1)).at[:, 0].set(True)
    rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
    return (
        jnp.full_like(logits_BV, -jnp.inf)
        .at[rows_B1, order_BV]
        .set(jnp.where(kept_BV, sorted_BV, -jnp.inf))
    )


def keep_min_p(logits_BV: Float[Array, "B V"], p: Float[Array, ""] | float) -> Float[Array, "B V"]:
    """Forbids ids less than `p` times as likely as the most likely one (Nguyen et al., arXiv 2407.01082)."""
    # A ratio of probabilities is a difference of logits, so no softmax is needed.
    lowest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where(logits_BV >= lowest_B1, logits_BV, -jnp.inf)


def keep_new_ngrams(
    logits_BV: Float[Array, "B V"], ids_ZB: Int[Array, "Z B"], made: Int[Array, ""], n: int
) -> Float[Array, "B V"]:
    """Forbids every id that would repeat `n` ids in a row (Paulus et al., arXiv 1705.04304, section 2.5).

    Args:
      logits_BV: of the next id.
      ids_ZB: each row's ids; those of the prompt are not among them.
      made: how many of them there are.
      n: at least 1.
    """
    places = ids_ZB.shape[0] - n + 1
    if places < 1:
        return logits_BV
    # The last n - 1 ids. Before there are as many, any will do: no n ids lie before them.
    last = [ids_ZB[jnp.maximum(made - n + 1, 0) + k] for k in range(n - 1)]
    begins_W1 = jnp.arange(places)[:, None]
    same_WB = begins_W1 + n <= made
    for k, ids_B in enumerate(last):
        same_WB = same_WB & (ids_ZB[k : k + places] == ids_B[None])
    same_WB = jnp.broadcast_to(same_WB, (places, ids_ZB.shape[1]))
    rows_1B = jnp.arange(ids_ZB.shape[1])[None]
    repeats_BV = jnp.zeros(logits_BV.shape, bool).at[rows_1B, ids_ZB[n - 1 :]].max(same_WB)
    return jnp.where(repeats_BV, -jnp.inf, logits_BV)


def draw(
    keys_B: Key[Array, " B"],
    logits_BV: Float[Array, "B V"],
    filters: Filters,
    allowed: Bool[Array | np.ndarray, "*#B V"],
) -> Int[Array, " B"]:
    """Draws one id for each row, each with its own key.

    Args:
      keys_B: typed keys, one per row; a row's draw does not depend on the others.
      logits_BV: of any float type; computed with in fp32.
      filters: from `Sampling.filters`.
      allowed: True for ids that may be drawn, for all rows (V,) or for each (B, V); at least one per row.

    Returns:
      ids in [0, V), int32.
    """
    logits_BV = keep_allowed(logits_BV.astype(jnp.float32), allowed)
    if filters.temperature is None:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = keep_top_k(logits_BV / filters.temperature, filters.top_k)
    if filters.top_p is not None:
        logits_BV = keep_top_p(logits_BV, filters.top_p)
    if filters.min_p is not None:
        logits_BV = keep_min_p(logits_BV, filters.min_p)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def log_likelihood(
    logits_BV: Float[Array, "B V"],
    ids_B: Int[Array, " B"],
    allowed: Bool[Array | np.ndarray, "*#B V"],
) -> Float[Array, " B"]:
    """How likely each row's id is to the model itself, in nats: among the allowed ids, without temperature or filters.

    So draws of several temperatures compare.
    """
    logits_BV = keep_allowed(logits_BV.astype(jnp.float32), allowed)
    chosen_B = jnp.take_along_axis(logits_BV, ids_B[:, None], axis=-1)[:, 0]
    return chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)
