"""Rotary position embedding (Su et al., arXiv 2104.09864), in Hugging Face's rotate-half form.

It pairs dimension i of a head with i + H/2. The published LVM code pairs 2i with 2i + 1. The two differ by a fixed
permutation of the query and key columns, which the LVM weights on Hugging Face already have.

Shapes: B batch, T tokens, N heads, H head dimension, F = H/2 frequencies, A = 3 axes.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lvm_jax.models.decoder.config import RopeScaling


def rope_table(
    positions_BT: Int[Array, "B T"],
    head_dim: int,
    theta: float,
    scaling: RopeScaling = RopeScaling(),  # noqa: B008 - frozen
) -> tuple[Float[Array, "B T 1 F"], Float[Array, "B T 1 F"]]:
    """Cosine and sine of the angles position * theta^(-2i/H), with a unit axis for the heads.

    Angles are fp32 whatever the model's dtype: in bf16, neighbouring positions beyond 256 would share their angles.

    Args:
      positions_BT: token positions, from 0.
      head_dim: H, even.
      theta: the base of the geometric series of wavelengths.
      scaling: how to stretch wavelengths for rows longer than those of training.
    """
    frequencies_F = _scaled(_frequencies(head_dim, theta), scaling)
    angles_BT1F = (
        positions_BT[:, :, None, None].astype(jnp.float32) * frequencies_F[None, None, None]
    )
    return jnp.cos(angles_BT1F), jnp.sin(angles_BT1F)


def image_rope_table(
    positions_BT: Int[Array, "B T"], head_dim: int, theta: float, tokens_per_image: int
) -> tuple[Float[Array, "B T 1 F"], Float[Array, "B T 1 F"]]:
    """The table of multimodal RoPE (Wang et al., arXiv 2409.12191, section 2.1): angles by image, row and column.

    Position p > 0 is code p - 1 of its sentence: image (p - 1) // N, and within it the row and column of a square grid
    of N codes. BOS, position 0, lies at the origin. Pair (i, i + H/2) of a head turns with frequency theta^(-2i/H) as
    in `rope_table`, and with the image's number if i mod 3 is 0, with the row if it is 1, with the column if it is 2.
    So each axis has short and long wavelengths; the paper gives each a contiguous piece of the frequencies, of which
    only the first piece has short ones.

    Args:
      positions_BT: token positions in their sentence, from 0.
      head_dim: H, even.
      theta: the base of the geometric series of wavelengths.
      tokens_per_image: N, a square.
    """
    images_BT, places_BT = jnp.divmod(jnp.maximum(positions_BT - 1, 0), tokens_per_image)
    rows_BT, columns_BT = jnp.divmod(places_BT, math.isqrt(tokens_per_image))
    axes_BTA = jnp.stack([images_BT, rows_BT, columns_BT], axis=-1).astype(jnp.float32)
    frequencies_F = _frequencies(head_dim, theta)
    turns_BTF = axes_BTA[..., jnp.arange(len(frequencies_F)) % 3]
    angles_BT1F = (turns_BTF * frequencies_F[None, None])[:, :, None]
    return jnp.cos(angles_BT1F), jnp.sin(angles_BT1F)


def _frequencies(head_dim: int, theta: float) -> Float[Array, " F"]:
    exponents_F = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    return 1.0 / (theta**exponents_F)


def _scaled(frequencies_F: Float[Array, " F"], scaling: RopeScaling) -> Float[Array, " F"]:
    if scaling.rope_type == "none":
        return frequencies_F
    if scaling.rope_type == "linear":
        return frequencies_F / scaling.factor
    # llama3: the more waves of a frequency fit into a row of training, the more of it is kept.
    waves_F = scaling.original_max_position_embeddings * frequencies_F / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept_F = jnp.clip((waves_F - low) / (high - low), 0.0, 1.0)
    return frequencies_F * (kept_F + (1 - kept_F) / scaling.factor)


def apply_rope(
    x_BTNH: Float[Array, "B T N H"],
    table: tuple[Float[Array, "#B T 1 F"], Float[Array, "#B T 1 F"]],
) -> Float[Array, "B T N H"]:
    """Rotates each pair (i, i + H/2) of every head by its position's angle, in fp32; returns the input's dtype."""
    cos, sin = table
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated_BTNH = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return rotated_BTNH.astype(x_BTNH.dtype)
