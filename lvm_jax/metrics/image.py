"""How close two images are: PSNR and SSIM, one value per pair.

B: images, H, W: pixels, H2, W2: places of the window, C: channels. Pixels are floats in [0, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lvm_jax.errors import UserError

_LOWEST_MSE, _HIGHEST_PSNR = 1e-10, 100.0  # one bound, as an error and in dB
_WINDOW = 11  # of SSIM, in pixels; with _SIGMA as in the paper
_SIGMA = 1.5


Images = Float[Array, "B H W C"] | Float[np.ndarray, "B H W C"]
Values = Float[Array, " B"] | Float[np.ndarray, " B"]


def psnr(a_BHWC: Images, b_BHWC: Images) -> Values:
    """Peak signal-to-noise ratio in dB, `10 log10(1 / MSE)`, of each pair of images.

    Capped at 100 dB, the value of identical images, so that a mean stays finite. NumPy arrays are compared on the
    host, JAX arrays on their devices; the two agree up to float32 rounding.
    """
    # NumPy stays NumPy: while a mesh is set, a jitted function of host arrays would run on all its devices.
    xp = a_BHWC.__array_namespace__()
    difference_BHWC = a_BHWC.astype(xp.float32) - b_BHWC.astype(xp.float32)
    mse_B = xp.mean(xp.square(difference_BHWC), axis=(1, 2, 3))
    # NumPy and JAX round the logarithm of the lowest error differently; the minimum makes both exactly 100.
    return xp.minimum(-10 * xp.log10(xp.maximum(mse_B, _LOWEST_MSE)), _HIGHEST_PSNR)


def ssim(a_BHWC: Float[Array, "B H W C"], b_BHWC: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    """Structural similarity of each pair of images, in [-1, 1]; 1 for identical images.

    Wang et al. 2004: a Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, averaged over channels and the
    positions where the window lies inside the image.

    Raises:
      UserError: images smaller than the window.
    """
    if min(a_BHWC.shape[1:3]) < _WINDOW:
        height, width = a_BHWC.shape[1:3]
        raise UserError(
            f"images of {height}x{width} are too small for SSIM: its window is {_WINDOW}x{_WINDOW}"
        )
    a_BHWC, b_BHWC = a_BHWC.astype(jnp.float32), b_BHWC.astype(jnp.float32)
    mean_a, mean_b = _blur(a_BHWC), _blur(b_BHWC)
    variance_a = _blur(a_BHWC * a_BHWC) - mean_a**2
    variance_b = _blur(b_BHWC * b_BHWC) - mean_b**2
    covariance = _blur(a_BHWC * b_BHWC) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast_structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return jnp.mean(luminance * contrast_structure, axis=(1, 2, 3))


def _blur(x_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """The Gaussian-weighted mean around each position where the whole window fits."""
    # The kernel is separable: two passes of 11 taps give the same as one of 121.
    offsets = jnp.arange(_WINDOW) - _WINDOW // 2
    weights = jnp.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    for axis in (1, 2):
        length = x_BHWC.shape[axis] - _WINDOW + 1
        x_BHWC = sum(
            (
                weights[k] * jax.lax.slice_in_dim(x_BHWC, k, k + length, axis=axis)
                for k in range(_WINDOW)
            ),
            start=jnp.zeros(()),
        )
    return x_BHWC
