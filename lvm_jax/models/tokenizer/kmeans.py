"""A codebook from k-means (Lloyd's algorithm) over the features of pictures.

A codebook that starts where the features are has no dead codes, and with `patches` it is a tokenizer at once.

Shape suffixes: T features, K codes, D their dimension, C features of a chunk.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.revival import revive

_CHUNK = 16_384  # features whose distances to all codes are in memory together
_ROUNDS = 8  # in which the first centres are placed


def kmeans(
    features_TD: Float[Array, "T D"], codes: int, *, iterations: int, key: jax.Array
) -> tuple[Float[Array, "K D"], Float[Array, " R"]]:
    """Centres of `codes` clusters, and the mean squared distance to them in each iteration.

    The centres are placed in rounds, each on features far from the centres so far (k-means||, arXiv 1203.6402). One
    that no feature is nearest to moves onto a feature with a large error, as dead codes do in training.

    Args:
      features_TD: fp32; those beyond a multiple of 16,384 (if there are so many) are not looked at.
      codes: K.
      iterations: rounds of assigning features and moving centres.
      key: draws the first centres, and where lost ones go.

    Raises:
      UserError: fewer features than codes.
    """
    if len(features_TD) < codes:
        raise UserError(
            f"k-means has {len(features_TD)} features for {codes} codes: give it more images, at least "
            "ten features a code"
        )
    chunks = max(1, len(features_TD) // _CHUNK)
    size = min(_CHUNK, len(features_TD))
    chunked = features_TD[: chunks * size].reshape(chunks, size, -1)
    key, placing = jax.random.split(key)
    centres_KD, errors = _placed(chunked, codes, placing), []
    for draw in jax.random.split(key, iterations):
        centres_KD, error = _iteration(chunked, centres_KD, draw)
        errors.append(error)
    return centres_KD, jnp.stack(errors)


@functools.partial(jax.jit, static_argnames="codes")
def _placed(chunked_SCD: Float[Array, "S C D"], codes: int, key: jax.Array) -> Float[Array, "K D"]:
    """The first centres: one feature, then in each round an equal share of the others."""
    first, *draws = jax.random.split(key, 1 + _ROUNDS)
    one_D = jax.random.choice(first, chunked_SCD[-1])
    centres_KD = jnp.broadcast_to(one_D, (codes, len(one_D)))
    rounds_K = jnp.arange(codes) * _ROUNDS // codes
    for number, draw in enumerate(draws):
        features_CD = chunked_SCD[number % len(chunked_SCD)]
        _, distances_C = _nearest(features_CD, centres_KD)
        here_K = (rounds_K == number) & (jnp.arange(codes) > 0)
        centres_KD = revive(centres_KD, here_K, features_CD, distances_C, draw)
    return centres_KD


@functools.partial(jax.jit, donate_argnums=1)
def _iteration(
    chunked_SCD: Float[Array, "S C D"], centres_KD: Float[Array, "K D"], key: jax.Array
) -> tuple[Float[Array, "K D"], Float[Array, ""]]:
    """The centres after one round, and the mean squared distance before it."""
    codes = len(centres_KD)

    def assign(
        carry: tuple[jax.Array, jax.Array], features_CD: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        sums_KD, counts_K = carry
        ids_C, distances_C = _nearest(features_CD, centres_KD)
        return (sums_KD.at[ids_C].add(features_CD), counts_K.at[ids_C].add(1.0)), distances_C

    start = (jnp.zeros_like(centres_KD), jnp.zeros(codes))
    (sums_KD, counts_K), distances_SC = jax.lax.scan(assign, start, chunked_SCD)
    means_KD = sums_KD / jnp.maximum(counts_K, 1.0)[:, None]
    # Lost centres move within the last chunk: `revive` needs features in one array, and any large error will do.
    moved_KD = revive(means_KD, counts_K == 0, chunked_SCD[-1], distances_SC[-1], key)
    return moved_KD, jnp.mean(distances_SC)


def _nearest(
    features_CD: Float[Array, "C D"], centres_KD: Float[Array, "K D"]
) -> tuple[Int[Array, " C"], Float[Array, " C"]]:
    """The nearest centre of each feature, and the squared distance to it."""
    products_CK = jnp.matmul(features_CD, centres_KD.T, precision=jax.lax.Precision.HIGHEST)
    affinities_CK = 2 * products_CK - jnp.sum(jnp.square(centres_KD), axis=-1)[None]
    distances_C = jnp.sum(jnp.square(features_CD), axis=-1) - jnp.max(affinities_CK, axis=-1)
    # Rounding can make a tiny distance negative.
    return jnp.argmax(affinities_CK, axis=-1), jnp.maximum(distances_C, 0.0)
