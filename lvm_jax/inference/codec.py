"""Images to codes and back through a tokenizer, in batches of few shapes, so that any number of images compiles little.

M: images, N: tokens an image, H, W: pixels, C: the channels R, G, B.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Integer, UInt8

from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_float

DEFAULT_BATCH = 16


def encode_images(
    vqgan: VQGAN,
    images_MHWC: UInt8[np.ndarray, "M H W C"] | Sequence[UInt8[np.ndarray, "H W C"]],
    batch_size: int = DEFAULT_BATCH,
    *,
    full_batches: bool = False,
) -> Int[np.ndarray, "M N"]:
    """The codes of uint8 RGB images of the tokenizer's size, int32, in raster order.

    Args:
      vqgan: the tokenizer.
      images_MHWC: an array, or a list of images: only one batch of a list is copied at a time.
      batch_size: images that the tokenizer sees at once.
      full_batches: fills the last batch up to `batch_size` too, so that any number of calls compiles once; without it,
        a few images take a small batch and little time.
    """
    if not len(images_MHWC):
        return np.zeros((0, vqgan.tokens_per_image), np.int32)
    graphdef, state = nnx.split(vqgan)
    return _batched(
        lambda batch: _encode(graphdef, state, batch), images_MHWC, batch_size, full_batches
    )


def decode_codes(
    vqgan: VQGAN, codes_MN: Integer[np.ndarray, "M N"], batch_size: int = DEFAULT_BATCH
) -> Float[np.ndarray, "M H W C"]:
    """The images of codes: float32 RGB in [0, 1]."""
    graphdef, state = nnx.split(vqgan)
    return _batched(
        lambda batch: _decode(graphdef, state, batch), codes_MN.astype(np.int32), batch_size
    )


def _batched(
    function: Callable[[np.ndarray], Array],
    rows: np.ndarray | Sequence[np.ndarray],
    batch_size: int,
    full_batches: bool = False,
) -> np.ndarray:
    """Applies `function` to batches; the last is filled up with its last row, to a power of two or to a full batch."""
    results = []
    for start in range(0, len(rows), batch_size):
        batch = np.asarray(rows[start : start + batch_size])
        power_of_two = 1 << (len(batch) - 1).bit_length()
        filled = batch_size if full_batches else min(batch_size, power_of_two)
        padding = np.repeat(batch[-1:], filled - len(batch), axis=0)
        results.append(np.asarray(function(np.concatenate([batch, padding])))[: len(batch)])
    return np.concatenate(results)


@functools.partial(jax.jit, static_argnames="graphdef")
def _encode(graphdef: Any, state: Any, images_MHWC: UInt8[Array, "M H W C"]) -> Int[Array, "M N"]:
    return nnx.merge(graphdef, state).encode(to_float(images_MHWC))


@functools.partial(jax.jit, static_argnames="graphdef")
def _decode(graphdef: Any, state: Any, codes_MN: Int[Array, "M N"]) -> Float[Array, "M H W C"]:
    return nnx.merge(graphdef, state).decode(codes_MN)
