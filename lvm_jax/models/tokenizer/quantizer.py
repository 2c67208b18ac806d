"""Vector quantisation: each feature vector becomes the id of the nearest of K codes.

Shape suffixes: B batch, H2 W2 sides of the latent grid (h w in names), N = H2 * W2 tokens an image, T tokens in all,
K codes of the codebook or of a slice, D code dimension, S any dimensions, or slices of the codebook.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

# At most this many (token, code) distances are in memory at once: 256 MiB in fp32.
MAX_PAIRS = 2**26


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A quantised feature map.

    Attributes:
      straight_through_BhwD: the chosen codes; their gradient passes to the features unchanged.
      inputs_BhwD: the features as compared with the codes (unit length if normalised).
      codes_BhwD: the chosen codes; their gradient reaches the codebook.
      ids_BN: int32 ids of the chosen codes, in raster order.
    """

    straight_through_BhwD: Float[Array, "B H2 W2 D"]
    inputs_BhwD: Float[Array, "B H2 W2 D"]
    codes_BhwD: Float[Array, "B H2 W2 D"]
    ids_BN: Int[Array, "B N"]


class VectorQuantizer(nnx.Module):
    """A codebook and its nearest-neighbour search, all in fp32.

    With `l2_normalize`, features and codes are compared and used on the unit sphere (ViT-VQGAN,
    arXiv 2110.04627, section 3.2). Then no code wins or loses by its length, which keeps small
    codebooks in use.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        l2_normalize: bool = False,
        rngs: nnx.Rngs,
    ):
        self.num_embeddings = num_embeddings
        self.l2_normalize = l2_normalize
        shape = (num_embeddings, embedding_dim)
        if l2_normalize:
            codebook_KD = jax.random.normal(rngs.params(), shape)
        else:  # as published: codes start tiny, so that the features set the scale
            bound = 1 / num_embeddings
            codebook_KD = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        self.codebook = nnx.Param(codebook_KD, axes=("codes", "code_dim"))

    def __call__(self, z_BhwD: Float[Array, "B H2 W2 D"]) -> Quantized:
        """Quantises a feature map, with the straight-through gradient (arXiv 1711.00937)."""
        inputs_BhwD = self._project(z_BhwD.astype(jnp.float32))
        ids_BN = self.nearest(z_BhwD)
        codes_BhwD = self.lookup(ids_BN).reshape(inputs_BhwD.shape)
        return Quantized(straight_through(inputs_BhwD, codes_BhwD), inputs_BhwD, codes_BhwD, ids_BN)

    def nearest(self, z_BhwD: Float[Array, "B H2 W2 D"]) -> Int[Array, "B N"]:
        """Ids of the nearest codes in raster order; the lowest id wins a tie.

        If all distances exceed `MAX_PAIRS`, the codebook is searched in slices. Slicing codes and not tokens leaves a
        batch that is split over devices in place.
        """
        batch, height, width, dim = z_BhwD.shape
        # The choice has no gradient. Said here, so that a backward pass stores nothing of the search.
        z_TD = jax.lax.stop_gradient(z_BhwD).reshape(-1, dim)
        codes_KD = jax.lax.stop_gradient(self.codebook[...])
        slices = _slices(self.num_embeddings, len(z_TD))
        codes_SKD = codes_KD.reshape(slices, self.num_embeddings // slices, dim)

        def search(carry: tuple[jax.Array, ...], codes_KD: jax.Array) -> tuple[Any, None]:
            best_T, ids_T, first = carry
            affinities_TK = self._affinities(z_TD, codes_KD)
            slice_best_T = jnp.max(affinities_TK, axis=-1)
            slice_ids_T = first + _first_equal(affinities_TK, slice_best_T)
            # Only a strictly better code replaces an earlier one, so the lowest id wins across slices too.
            ids_T = jnp.where(slice_best_T > best_T, slice_ids_T, ids_T)
            return (jnp.maximum(best_T, slice_best_T), ids_T, first + len(codes_KD)), None

        start = (jnp.full(len(z_TD), -jnp.inf), jnp.zeros(len(z_TD), jnp.int32), jnp.int32(0))
        (_, ids_T, _), _ = jax.lax.scan(search, start, codes_SKD)
        return ids_T.reshape(batch, height * width)

    def all_codes(
        self,
        codes_TD: Float[Array, "T D"],
        affinities_TK: Float[Array, "T K"],
        *,
        temperature: float,
    ) -> Float[Array, "T D"]:
        """`codes_TD` forward; backward, the softmax over codes moves all codes and the features.

        Index backpropagation (IBQ, arXiv 2412.02692, section 3.2): the gradient is that of `(onehot + p - sg(p)) @ C`
        with p = softmax(affinities / temperature). `onehot @ C` is `codes_TD`, and the term added to it is exactly 0:
        the forward pass uses the codes bit for bit.

        Args:
          codes_TD: the chosen codes, from `lookup`; their gradient reaches the codebook.
          affinities_TK: from `affinities`, differentiable.
          temperature: of the softmax.
        """
        p_TK = jax.nn.softmax(affinities_TK / temperature, axis=-1)
        codes_KD = jax.lax.stop_gradient(self._project(self.codebook[...]))
        return codes_TD + (p_TK - jax.lax.stop_gradient(p_TK)) @ codes_KD

    def lookup(self, ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        """The codes of `ids`, fp32."""
        return self._project(jnp.take(self.codebook[...], ids, axis=0))

    def affinities(self, z_TD: Float[Array, "T D"]) -> Float[Array, "T K"]:
        """Negative squared distances to all codes, up to a constant of each token.

        It is |z - e|^2 = |z|^2 - 2 z.e + |e|^2 without |z|^2, on which neither the nearest code nor a
        softmax over codes depends. That takes one matrix product and never a (T, K, D) array.
        """
        return self._affinities(z_TD, self.codebook[...])

    def _affinities(
        self, z_TD: Float[Array, "T D"], codes_KD: Float[Array, "K D"]
    ) -> Float[Array, "T K"]:
        z_TD = self._project(z_TD.astype(jnp.float32))
        codes_KD = self._project(codes_KD)
        # An accelerator's default precision (bf16 or tf32) would change which codes are nearest.
        products_TK = jnp.matmul(z_TD, codes_KD.T, precision=jax.lax.Precision.HIGHEST)
        return 2 * products_TK - jnp.sum(codes_KD**2, axis=-1)[None]

    def _project(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        if not self.l2_normalize:
            return x
        return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _slices(codes: int, tokens: int) -> int:
    """The smallest number of equal slices of the codebook such that a slice's distances fit `MAX_PAIRS`."""
    wanted = max(1, -(-codes * tokens // MAX_PAIRS))
    return next((n for n in range(wanted, codes) if codes % n == 0), codes)


def _first_equal(x_TK: Float[Array, "T K"], values_T: Float[Array, " T"]) -> Int[Array, " T"]:
    """The first index in each row of its value. CPUs run two plain reductions many times faster than `argmax`."""
    last = x_TK.shape[-1] - 1  # the answer for a row of NaN, which equals nothing
    places_K = jnp.arange(last + 1, dtype=jnp.int32)
    return jnp.min(jnp.where(x_TK == values_T[:, None], places_K[None], last), axis=-1)


def straight_through(inputs: Float[Array, "*S"], codes: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """`codes` forward, the identity to `inputs` backward."""
    return inputs + jax.lax.stop_gradient(codes - inputs)
