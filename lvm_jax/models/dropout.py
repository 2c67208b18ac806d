"""Dropout: the only random step of a forward pass, and off unless the caller passes a key.

Shapes: S any dimensions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dropout(x: Float[Array, "*S"], rate: float, key: jax.Array | None) -> Float[Array, "*S"]:
    """Zeros entries with probability `rate` and scales the others up, so that the mean stays.

    Args:
      x: activations.
      rate: in [0, 1).
      key: for the draw; None, as in evaluation, returns `x`.
    """
    # Decided while tracing: without dropout the compiled program holds no trace of it.
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))
