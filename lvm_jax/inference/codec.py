"""Images to codes and back through a tokenizer, in batches of few shapes, so that any number of images compiles little.

M: images, N: tokens an image, H, W: pixels, C: the channels R, G, B.
"""

import functools
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_float

DEFAULT_BATCH = 16


def encode_images(
    vqgan: VQGAN, images_MHWC: UInt8[np.ndarray, "m h w c"], batch_size: int = DEFAULT_BATCH
) -> Int[np.ndarray, "m n"]:
    """The codes of uint8 RGB images of the tokenizer's size, int32, in raster order."""
    graphdef, state = nnx.split(vqgan)
    return _batched(lambda batch: _encode(graphdef, state, batch), images_MHWC, batch_size)


def decode_codes(
    vqgan: VQGAN, codes_MN: Int[np.ndarray, "m n"], batch_size: int = DEFAULT_BATCH
) -> Float[np.ndarray, "m h w c"]:
    """The images of codes: float32 RGB in [0, 1]."""
    graphdef, state = nnx.split(vqgan)
    return _batched(
        lambda batch: _decode(graphdef, state, batch), codes_MN.astype(np.int32), batch_size
    )


def _batched(function: Any, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Applies `function` to full batches; a smaller rest is filled up to a power of two with its last row."""
    results = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        filled = min(batch_size, 1 << (len(batch) - 1).bit_length())
        padding = np.repeat(batch[-1:], filled - len(batch), axis=0)
        results.append(np.asarray(function(np.concatenate([batch, padding])))[: len(batch)])
    return np.concatenate(results)


@functools.partial(jax.jit, static_argnames="graphdef")
def _encode(graphdef: Any, state: Any, images_MHWC: UInt8[Array, "m h w c"]) -> Int[Array, "m n"]:
    return nnx.merge(graphdef, state).encode(to_float(images_MHWC))


@functools.partial(jax.jit, static_argnames="graphdef")
def _decode(graphdef: Any, state: Any, codes_MN: Int[Array, "m n"]) -> Float[Array, "m h w c"]:
    return nnx.merge(graphdef, state).decode(codes_MN)
