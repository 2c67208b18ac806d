"""The activations of towers; functions of the module, so that equal towers compile once."""

import jax


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) by the error function (Hendrycks and Gimpel, arXiv 1606.08415, section 2)."""
    return jax.nn.gelu(x, approximate=False)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the approximation of the same section that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)
