"""Brings tokens to their experts and back, with a fixed number of slots for each expert and row.

Each row is dealt with alone, so the result depends neither on the rest of the batch nor on the mesh. Slots are given in
the order of the tokens, so a token's experts do not depend on later tokens, as a causal decoder must have it.

Shapes: B batch, T tokens, D hidden size, E experts, K experts a token uses, C slots of an expert, S = E * C slots,
J = T * K choices of a row.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.models.decoder.routers import Choice


def slots_of(config: MoEConfig, tokens: int) -> int:
    """C, the slots of one expert for a row of `tokens`."""
    if not config.capacity_factor:
        return tokens
    share = config.top_k * tokens / config.experts
    return min(tokens, math.ceil(share * config.capacity_factor))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """Where each choice of a token goes, and what fills each slot.

    Attributes:
      slot_BJ: the slot of each choice; S if it is dropped.
      choice_BS: the choice in each slot; J if it is empty.
      top_k: K, choices of a token, which are neighbours.
    """

    slot_BJ: Int[Array, "B J"]
    choice_BS: Int[Array, "B S"]
    top_k: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, choice: Choice, slots: int, real_BT: Bool[Array, "B T"] | None) -> "Slots":
        """Gives `slots` slots of each expert to the tokens that chose it, in their order; padding gets none."""
        batch, tokens, top_k = choice.experts_BTK.shape
        experts = choice.probabilities_BTE.shape[-1]
        chosen_BJ = choice.experts_BTK.reshape(batch, -1)
        one_hot_BJE = jax.nn.one_hot(chosen_BJ, experts, dtype=jnp.int32)
        if real_BT is not None:
            one_hot_BJE = one_hot_BJE * jnp.repeat(real_BT, top_k, axis=1)[..., None]
        # How many earlier choices of the row are of the same expert.
        before_BJE = jnp.cumsum(one_hot_BJE, axis=1) - one_hot_BJE
        place_BJ = jnp.sum(before_BJE * one_hot_BJE, axis=-1)
        kept_BJ = (jnp.sum(one_hot_BJE, axis=-1) > 0) & (place_BJ < slots)
        total, choices = experts * slots, tokens * top_k
        slot_BJ = jnp.where(kept_BJ, chosen_BJ * slots + place_BJ, total)

        def fill(slot_J: jax.Array) -> jax.Array:
            empty_S = jnp.full((total,), choices, jnp.int32)
            return empty_S.at[slot_J].set(jnp.arange(choices, dtype=jnp.int32), mode="drop")

        return cls(slot_BJ, jax.vmap(fill)(slot_BJ), top_k)

    def gather(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B S D"]:
        """The token in each slot; zeros in empty ones."""
        batch, choices = self.slot_BJ.shape
        slot_BTK = self.slot_BJ.reshape(batch, choices // self.top_k, self.top_k)
        return _move(x_BTD, self.choice_BS // self.top_k, slot_BTK)

    def scatter(
        self, y_BSD: Float[Array, "B S D"], gates_BTK: Float[Array, "B T K"]
    ) -> Float[Array, "B T D"]:
        """What the experts made of each token, weighted by the gates; a dropped choice adds nothing."""
        y_BJD = _move(y_BSD, self.slot_BJ, self.choice_BS[..., None])
        y_BTKD = y_BJD.reshape(*gates_BTK.shape, -1)
        return jnp.sum(y_BTKD * gates_BTK[..., None].astype(y_BTKD.dtype), axis=2)

    def dropped(self, real_BT: Bool[Array, "B T"] | None) -> Float[Array, ""]:
        """The share of all choices of real tokens that found no slot."""
        batch, choices = self.slot_BJ.shape
        chosen = batch * choices if real_BT is None else jnp.sum(real_BT) * self.top_k
        kept = jnp.sum(self.slot_BJ < self.choice_BS.shape[1])
        return (chosen - kept) / jnp.maximum(chosen, 1)


@jax.custom_vjp
def _move(rows_BND: jax.Array, index_BM: jax.Array, inverse_BNJ: jax.Array) -> jax.Array:
    """rows[index], and zeros where the index is N; `inverse` lists where each row goes, or M for nowhere.

    The gradient of a gather is a scatter that adds, which is slow on most devices. With the inverse at hand it is a
    gather too.
    """
    del inverse_BNJ
    return _take(rows_BND, index_BM)


def _move_forward(rows_BND, index_BM, inverse_BNJ):
    return _take(rows_BND, index_BM), inverse_BNJ


def _move_backward(inverse_BNJ, dy_BMD):
    batch = len(inverse_BNJ)
    taken_BD = _take(dy_BMD, inverse_BNJ.reshape(batch, -1))
    return jnp.sum(taken_BD.reshape(*inverse_BNJ.shape, -1), axis=2), None, None


_move.defvjp(_move_forward, _move_backward)


def _take(rows_BND: jax.Array, index_BM: jax.Array) -> jax.Array:
    return jax.vmap(lambda rows, index: rows.at[index].get(mode="fill", fill_value=0))(
        rows_BND, index_BM
    )
