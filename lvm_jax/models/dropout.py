"""Dropout: the one random part of a forward pass, and off unless the caller hands over a key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dropout(x: Float[Array, "*s"], rate: float, key: jax.Array | None) -> Float[Array, "*s"]:
    """Zeros entries with probability `rate` and scales the others so that the mean stays.

    Args:
      x: activations.
      rate: in [0, 1).
      key: of the draw; None, as in evaluation, returns `x`.
    """
    # Decided while tracing: a model without dropout compiles to the program that it always had.
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))
