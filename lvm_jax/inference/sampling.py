"""How the next visual token is drawn from the decoder's logits: greedy, temperature, top-k, top-p.

B: candidates, V: vocabulary (codes, then the special ids).

The filters set what may not be drawn to -inf and leave the other logits as they are, so they compose in any order;
`draw` applies them in the usual one: codes only, temperature, top-k, top-p.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lvm_jax.errors import UserError


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["temperature", "top_p"],
    meta_fields=["top_k"],
)
@dataclasses.dataclass(frozen=True)
class Sampling:
    """What is drawn from the model's distribution.

    A pytree: another temperature or top-p compiles nothing anew; another top-k does.

    Attributes:
      temperature: the logits are divided by it; 0 takes the most likely code (greedy).
      top_k: only the k most likely codes may be drawn; 0 means all.
      top_p: only the most likely codes that together reach this probability may be drawn; 1 means all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def check(self) -> "Sampling":
        """Returns itself, or raises a UserError for a value out of range."""
        if not self.temperature >= 0:
            raise UserError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}: it must be 0 (all codes) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: it must be above 0 and at most 1 (all codes)")
        return self


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

    def nucleus(logits_BV: Float[Array, "b v"]) -> Float[Array, "b v"]:
        order_BV = jnp.argsort(logits_BV, axis=-1, descending=True)
        sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
        probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = (
            jnp.cumsum(probs_BV, axis=-1) - probs_BV
        )  # what the more likely ids hold together
        kept_BV = (before_BV < p).at[:, 0].set(True)
        rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
        return (
            jnp.full_like(logits_BV, -jnp.inf)
            .at[rows_B1, order_BV]
            .set(jnp.where(kept_BV, sorted_BV, -jnp.inf))
        )

    return jax.lax.cond(jnp.asarray(p) < 1, nucleus, lambda x_BV: x_BV, logits_BV)


def draw(
    keys_B: Key[Array, "b"],
    logits_BV: Float[Array, "b v"],
    sampling: Sampling,
    codebook_size: int,
) -> Int[Array, "b"]:
    """Draws one code for each row, each with its own key.

    Args:
      keys_B: typed keys, one a row; a row's draw depends on no other row.
      logits_BV: logits of any float type; the arithmetic is in fp32.
      sampling: see `Sampling`; its temperature and top_p may be traced.
      codebook_size: the codes are ids 0..codebook_size-1; no other id is drawn.

    Returns:
      ids in [0, codebook_size), int32.
    """
    logits_BV = keep_codes(logits_BV.astype(jnp.float32), codebook_size)
    temperature = jnp.asarray(sampling.temperature, jnp.float32)

    def greedy() -> Int[Array, "b"]:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)

    def random() -> Int[Array, "b"]:
        filtered_BV = keep_top_k(logits_BV / temperature, sampling.top_k)
        filtered_BV = keep_top_p(filtered_BV, sampling.top_p)
        return jax.vmap(jax.random.categorical)(keys_B, filtered_BV).astype(jnp.int32)

    return jax.lax.cond(temperature == 0, greedy, random)
