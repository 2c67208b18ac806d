"""Revival of dead codes: a code that was not chosen for a while moves to where the quantisation error is large.

A codebook collapses because only chosen codes learn: one that is never nearest stays where it began. Moved onto a
feature of the current batch, it is nearest to something. Features are drawn in proportion to their squared distance
from their code, as k-means++ seeds its centres (Arthur and Vassilvitskii 2007, section 2.2), so a feature that already
has a good code gets no second one.

Shape suffixes: K codes, D code dimension, T tokens.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def count_idle(idle_K: Int[Array, " K"], ids: Int[Array, "..."]) -> Int[Array, " K"]:
    """Steps since each code was last chosen, updated by a step that chose `ids`."""
    used_K = jnp.zeros(len(idle_K), bool).at[ids.ravel()].set(True)
    return jnp.where(used_K, 0, idle_K + 1)


def revive(
    codebook_KD: Float[Array, "K D"],
    dead_K: Bool[Array, " K"],
    inputs_TD: Float[Array, "T D"],
    distances_T: Float[Array, " T"],
    key: jax.Array,
) -> Float[Array, "K D"]:
    """The codebook with its dead codes moved onto features; a pure function of its arguments.

    Systematic sampling: the dead codes divide the sum of the distances into equal shares, so two of them land on one
    feature only if its distance spans two shares. If all distances are 0, nothing moves.

    Args:
      codebook_KD: all codes.
      dead_K: which of them to move.
      inputs_TD: the features of a batch, as compared with the codes.
      distances_T: squared distance of each feature to its nearest code.
      key: draws the offset at which every code looks into its share.
    """
    reached_T = jnp.cumsum(distances_T)
    rank_K = jnp.cumsum(dead_K) - 1
    share_K = (rank_K + jax.random.uniform(key)) / jnp.maximum(jnp.sum(dead_K), 1)
    chosen_K = jnp.searchsorted(reached_T, share_K * reached_T[-1], side="right")
    # Rounding, or a sum of 0, can place a share past the last feature.
    features_KD = inputs_TD[jnp.minimum(chosen_K, len(inputs_TD) - 1)]
    moves_K = dead_K & (reached_T[-1] > 0)
    return jnp.where(moves_K[:, None], features_KD, codebook_KD)
