"""Losses of a VQGAN. Each returns (sum, weight), to be divided once over the global batch.

Shape suffixes: B images, H W sides, C channels, H2 W2 patches along each side, or halved sides (h w in names),
G grid dimensions, T tokens, D code dimension, K codes.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lvm_jax.errors import UserError

SumWeight = tuple[Float[Array, ""], Float[Array, ""]]


def reconstruction(
    images_BHWC: Float[Array, "B H W C"],
    outputs_BHWC: Float[Array, "B H W C"],
    kind: Literal["l1", "l2"] = "l1",
) -> SumWeight:
    """Mean absolute or squared error of each image; weight: images."""
    error_BHWC = outputs_BHWC - images_BHWC
    error_BHWC = jnp.abs(error_BHWC) if kind == "l1" else jnp.square(error_BHWC)
    return per_image(jnp.mean(error_BHWC, axis=(1, 2, 3)))


def gradient_distance(
    images_BHWC: Float[Array, "B H W C"], outputs_BHWC: Float[Array, "B H W C"], scales: int = 3
) -> Float[Array, " B"]:
    """How far the edges of two images differ: an LPIPS without weights.

    Mean absolute difference of both first derivatives and of the Laplacian, summed over `scales`
    halvings of the side. It rewards sharp edges in the right place; L1 alone blurs them.

    Raises:
      UserError: a side does not halve that often, or the last halves are too small for a Laplacian.
    """
    sides, halvings = images_BHWC.shape[1:3], scales - 1
    if any(side % 2**halvings or side >> halvings < 3 for side in sides):
        raise UserError(
            f"images of {sides[0]} x {sides[1]} pixels have no edges at {scales} scales: perceptual='gradient' "
            f"needs sides of at least {3 << halvings} that {2**halvings} divides; set it to 'none'"
        )
    error = outputs_BHWC - images_BHWC  # the derivatives are linear: one image carries both
    total_B = jnp.zeros(error.shape[0])
    for scale in range(scales):
        if scale:
            error = _halve(error)
        dx, dy = error[:, :, 1:] - error[:, :, :-1], error[:, 1:] - error[:, :-1]
        laplacian = dx[:, 1:-1, 1:] - dx[:, 1:-1, :-1] + dy[:, 1:, 1:-1] - dy[:, :-1, 1:-1]
        for derivative in (dx, dy, laplacian):
            total_B += jnp.mean(jnp.abs(derivative), axis=(1, 2, 3))
    return total_B


def divide(loss: SumWeight) -> Float[Array, ""]:
    """The mean that a (sum, weight) stands for."""
    total, weight = loss
    return total / weight


def per_image(values_B: Float[Array, " B"]) -> SumWeight:
    """A value for each image as (sum, weight)."""
    return jnp.sum(values_B), jnp.float32(values_B.size)


def vector_quantization(
    inputs: Float[Array, "*G D"],
    codes: Float[Array, "*G D"],
    *,
    commitment_cost: float = 0.25,
    legacy: bool = False,
) -> SumWeight:
    """|sg(z) - e|^2 + beta |z - sg(e)|^2, averaged over the code dimension; weight: tokens.

    Args:
      inputs: features z.
      codes: the nearest codes e.
      commitment_cost: beta (arXiv 1711.00937, equation 3).
      legacy: beta weighs the codebook term instead, as the code of taming-transformers and
        open-muse does.
    """
    codebook = jnp.mean(jnp.square(jax.lax.stop_gradient(inputs) - codes), axis=-1)
    commitment = jnp.mean(jnp.square(inputs - jax.lax.stop_gradient(codes)), axis=-1)
    loss = (
        commitment_cost * codebook + commitment
        if legacy
        else codebook + commitment_cost * commitment
    )
    return jnp.sum(loss), jnp.float32(loss.size)


def unforetold(expected_BND: Float[Array, "B N D"], codes_BND: Float[Array, "B N D"]) -> SumWeight:
    """Squared error of expected codes, summed; weight: the codes' squared distances from their mean, summed.

    So it is the share of their variance that nobody foretold: 1 for guessing the mean, whatever the codes' scale. Both
    have a gradient: codes that shrink or become equal gain nothing. The 1e-12 is for codes that are all equal.
    """
    mean_11D = jnp.mean(codes_BND, axis=(0, 1), keepdims=True)
    variance = jnp.sum(jnp.square(codes_BND - mean_11D))
    return jnp.sum(jnp.square(codes_BND - expected_BND)), variance + 1e-12


def soft_assignment(
    affinities_TK: Float[Array, "T K"], *, temperature: float
) -> tuple[Float[Array, " T"], Float[Array, "T K"]]:
    """Entropy in nats of each token's softmax over codes, and that softmax.

    Args:
      affinities_TK: negative squared distances.
      temperature: of the softmax.
    """
    log_p_TK = jax.nn.log_softmax(affinities_TK / temperature, axis=-1)
    p_TK = jnp.exp(log_p_TK)
    return -jnp.sum(p_TK * log_p_TK, axis=-1), p_TK


def code_entropy(
    entropy_T: Float[Array, " T"], mean_K: Float[Array, " K"]
) -> tuple[SumWeight, SumWeight]:
    """Entropy of a token's soft assignment, and of the batch's mean assignment, in nats.

    Minimising the first minus the second makes each choice certain and puts all codes to use (MaskGIT,
    arXiv 2202.04200; its ratio is 0.1 at a temperature of 0.01). The second is one number for the whole
    batch: it is returned times T, so that it divides like the first.

    Args:
      entropy_T: of each token, from `soft_assignment`.
      mean_K: mean of the tokens' assignments.
    """
    tokens = jnp.float32(entropy_T.size)
    # 1e-9 keeps the logarithm of a code with no mass finite; times 0 it adds nothing.
    overall = -jnp.sum(mean_K * jnp.log(mean_K + 1e-9))
    return (jnp.sum(entropy_T), tokens), (overall * tokens, tokens)


def discriminator(
    real_Bhw: Float[Array, "B H2 W2"],
    fake_Bhw: Float[Array, "B H2 W2"],
    kind: Literal["hinge", "non_saturating"] = "hinge",
) -> SumWeight:
    """What the discriminator minimises: the mean of its real and fake halves; weight: patches."""
    if kind == "hinge":
        loss_Bhw = jax.nn.relu(1 - real_Bhw) + jax.nn.relu(1 + fake_Bhw)
    else:
        loss_Bhw = jax.nn.softplus(-real_Bhw) + jax.nn.softplus(fake_Bhw)
    return jnp.sum(loss_Bhw) / 2, jnp.float32(loss_Bhw.size)


def adversarial(
    fake_Bhw: Float[Array, "B H2 W2"], kind: Literal["hinge", "non_saturating"] = "hinge"
) -> SumWeight:
    """What the generator minimises; weight: patches."""
    loss_Bhw = -fake_Bhw if kind == "hinge" else jax.nn.softplus(-fake_Bhw)
    return jnp.sum(loss_Bhw), jnp.float32(loss_Bhw.size)


def gradient_penalty(gradient_BHWC: Float[Array, "B H W C"]) -> SumWeight:
    """R1: half the squared length of the discriminator's gradient at each real image; weight: images.

    Mescheder et al., arXiv 1801.04406, equation 9, without gamma. Pixels are in [0, 1].
    """
    return per_image(jnp.sum(jnp.square(gradient_BHWC), axis=(1, 2, 3)) / 2)


def lecam(
    real_Bhw: Float[Array, "B H2 W2"],
    fake_Bhw: Float[Array, "B H2 W2"],
    average_real: Float[Array, ""],
    average_fake: Float[Array, ""],
) -> SumWeight:
    """relu(real - average fake)^2 + relu(average real - fake)^2: keeps real and fake logits close.

    LeCam regularisation (Tseng et al., arXiv 2104.03310, equation 7) with the one-sided distances of its authors' code.
    It keeps the discriminator from overfitting when data is scarce. Weight: patches.

    Args:
      real_Bhw: logits of real images.
      fake_Bhw: logits of reconstructions.
      average_real: moving average of the mean real logit, a constant.
      average_fake: moving average of the mean fake logit, a constant.
    """
    loss_Bhw = jnp.square(jax.nn.relu(real_Bhw - average_fake))
    loss_Bhw += jnp.square(jax.nn.relu(average_real - fake_Bhw))
    return jnp.sum(loss_Bhw), jnp.float32(loss_Bhw.size)


def adaptive_weight(
    reconstruction_gradient: Float[Array, "..."], adversarial_gradient: Float[Array, "..."]
) -> Float[Array, ""]:
    """|reconstruction gradient| / |adversarial gradient| at the decoder's last kernel, at most 1e4.

    It makes both losses pull equally hard (arXiv 2012.09841, equation 7). It carries no gradient.
    """
    ratio = jnp.linalg.norm(reconstruction_gradient.ravel()) / (
        jnp.linalg.norm(adversarial_gradient.ravel()) + 1e-4
    )
    return jax.lax.stop_gradient(jnp.clip(ratio, 0, 1e4))


def _halve(x_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    batch, height, width, channels = x_BHWC.shape
    return x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
