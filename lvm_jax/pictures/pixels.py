"""Pixels as bytes and as floats: the one place that turns 0..255 into [0, 1], and back.

Shape legend: *shape any dimensions.
"""

from typing import overload

import jax
import numpy as np
from jaxtyping import Float, Float32, UInt8

# Of the three colours in [0, 1], over ImageNet; many networks read pictures minus the one, divided by the other.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@overload
def to_float(images: UInt8[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]: ...
@overload
def to_float(images: UInt8[jax.Array, "*shape"]) -> Float32[jax.Array, "*shape"]: ...
def to_float(
    images: UInt8[np.ndarray | jax.Array, "*shape"],
) -> Float32[np.ndarray | jax.Array, "*shape"]:
    """Converts bytes to floats in [0, 1]; NumPy stays NumPy and JAX stays JAX, also inside `jit`.

    The two may differ in the last bit: XLA multiplies by the reciprocal of 255, NumPy divides.
    """
    return images.astype(np.float32) / 255


@overload
def to_uint8(images: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]: ...
@overload
def to_uint8(images: Float[jax.Array, "*shape"]) -> UInt8[jax.Array, "*shape"]: ...
def to_uint8(
    images: Float[np.ndarray | jax.Array, "*shape"],
) -> UInt8[np.ndarray | jax.Array, "*shape"]:
    """Clips floats to [0, 1] and rounds them to bytes (halves to even)."""
    return (images.clip(0.0, 1.0) * 255).round().astype(np.uint8)
