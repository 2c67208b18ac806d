"""The norms of a residual stream: RMSNorm of LLaMA and Qwen2, LayerNorm of OPT and GPT-2.

Both compute in fp32 and return the input's dtype.

Shapes: B any leading dimensions, D hidden size.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.decoder.config import DecoderConfig


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale (Zhang and Sennrich, arXiv 1910.07467, equation 4)."""

    def __init__(self, size: int, eps: float) -> None:
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32), axes=(None,))
        self.eps = eps

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalises the last dimension."""
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * inverse * _along_last(self.scale[...], x)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + eps) * scale + bias (Ba et al., arXiv 1607.06450, section 3)."""

    def __init__(self, size: int, eps: float) -> None:
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32), axes=(None,))
        self.bias = nnx.Param(jnp.zeros((size,), jnp.float32), axes=(None,))
        self.eps = eps

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalises the last dimension."""
        x32 = x.astype(jnp.float32)
        # Centred before squaring: mean(x^2) - mean(x)^2 loses its digits if the mean is large.
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.eps)
        scale, bias = (_along_last(vector[...], x) for vector in (self.scale, self.bias))
        return (centred * inverse * scale + bias).astype(x.dtype)


NORMS: Mapping[str, type[RMSNorm] | type[LayerNorm]] = {"rms": RMSNorm, "layer": LayerNorm}


def make_norm(config: DecoderConfig) -> RMSNorm | LayerNorm:
    """The configured norm, over the hidden size."""
    return NORMS[config.norm](config.hidden_size, config.rms_norm_eps)


def _along_last(vector_D: jax.Array, x: jax.Array) -> jax.Array:
    """The vector with as many dimensions as `x`, because silent rank promotion is an error."""
    return jnp.expand_dims(vector_D, tuple(range(x.ndim - 1)))
