"""How the next visual token is drawn from the decoder's logits: greedy, temperature, top-k, top-p, min-p.

B: rows, V: vocabulary (codes, then the special ids).

The filters set what may not be drawn to -inf and leave the other logits as they are, so they compose in any order;
`draw` applies them in the usual one: codes only, temperature, top-k, top-p, min-p.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What is drawn from the model's distribution.

    Attributes:
      temperature: the logits are divided by it; 0 takes the most likely code (greedy).
      top_k: only the k most likely codes may be drawn; 0 means all.
      top_p: only the most likely codes that together reach this probability may be drawn; 1 means all.
      min_p: only codes at least this fraction as likely as the likeliest may be drawn; 0 means all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def plan(self) -> "Plan":
        """What `draw` takes.

        Raises:
          UserError: a value out of range.
        """
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}: it must be 0 (all codes) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: it must be above 0 and at most 1 (all codes)")
        if not 0 <= self.min_p < 1:
            raise UserError(f"min_p is {self.min_p}: it must be at least 0 (all codes) and below 1")
        if self.temperature == 0:
            return Plan(None, 0, None, None)
        top_p = self.top_p if self.top_p < 1 else None
        return Plan(self.temperature, self.top_k, top_p, self.min_p or None)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["temperature", "top_p", "min_p"],
    meta_fields=["top_k"],
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """`Sampling` as a pytree: None where a filter is off, so a compiled program holds only those in use.

    Another temperature, top-p or min-p compiles nothing anew; another top-k does. `temperature=None` is greedy.
    """

    temperature: float | Float[Array, ""] | None
    top_k: int
    top_p: float | Float[Array, ""] | None
    min_p: float | Float[Array, ""] | None


def keep_codes(logits_BV: Float[Array, "b v"], codebook_size: int) -> Float[Array, "b v"]:
    """Forbids every id that is not a code: BOS, EOS, PAD and the reserved ids never enter an image."""
    return jnp.where(jnp.arange(logits_BV.shape[-1]) < codebook_size, logits_BV, -jnp.inf)


def keep_top_k(logits_BV: Float[Array, "b v"], k: int) -> Float[Array, "b v"]:
    """Forbids all but exactly the k highest logits; of equal ones the lower ids stay. `k=0` keeps all."""
    if k == 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    _, ids_BK = jax.lax.top_k(logits_BV, k)
    rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
    kept_BV = jnp.zeros(logits_BV.shape, bool).at[rows_B1, ids_BK].set(True)
    return jnp.where(kept_BV, logits_BV, -jnp.inf)


def keep_top_p(logits_BV: Float[Array, "b v"], p: Float[Array, ""] | float) -> Float[Array, "b v"]:
    """Forbids all but the smallest set of most likely ids whose probability reaches `p` (nucleus sampling,
    Holtzman et al., arXiv 1904.09751). The most likely id always stays; `p=1` keeps all.
    """
    order_BV = jnp.argsort(logits_BV, axis=-1, descending=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV  # what the more likely ids hold together
    kept_BV = ((before_BV < p) | (jnp.asarray(p) >= 1)).at[:, 0].set(True)
    rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
    return (
        jnp.full_like(logits_BV, -jnp.inf)
        .at[rows_B1, order_BV]
        .set(jnp.where(kept_BV, sorted_BV, -jnp.inf))
    )


def keep_min_p(logits_BV: Float[Array, "b v"], p: Float[Array, ""] | float) -> Float[Array, "b v"]:
    """Forbids ids less than `p` times as likely as the most likely one (Nguyen et al., arXiv 2407.01082)."""
    lowest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where(logits_BV >= lowest_B1, logits_BV, -jnp.inf)


def draw(
    keys_B: Key[Array, "b"], logits_BV: Float[Array, "b v"], plan: Plan, codebook_size: int
) -> Int[Array, "b"]:
    """Draws one code for each row, each with its own key.

    Args:
      keys_B: typed keys, one a row; a row's draw depends on no other row.
      logits_BV: logits of any float type; the arithmetic is in fp32.
      plan: from `Sampling.plan`.
      codebook_size: the codes are ids 0..codebook_size-1; no other id is drawn.

    Returns:
      ids in [0, codebook_size), int32.
    """
    logits_BV = keep_codes(logits_BV.astype(jnp.float32), codebook_size)
    if plan.temperature is None:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = keep_top_k(logits_BV / plan.temperature, plan.top_k)
    if plan.top_p is not None:
        logits_BV = keep_top_p(logits_BV, plan.top_p)
    if plan.min_p is not None:
        logits_BV = keep_min_p(logits_BV, plan.min_p)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)
