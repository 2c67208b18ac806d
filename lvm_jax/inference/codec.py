"""Encodes images to codes and decodes them back, in batches of few shapes so that little has to be compiled.

M: images, N: tokens per image, H, W: pixels, C: the channels R, G, B.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Integer, UInt8

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_float

DEFAULT_BATCH = 16


def check_trained_with(fingerprint: str, vqgan: VQGAN, who: str) -> None:
    """Requires the tokenizer that a model was trained with.

    Args:
      fingerprint: of that one, as the model's folder names it; "": unknown.
      vqgan: the one that it is to be used with.
      who: the model, in words.

    Raises:
      UserError: it is another.
    """
    if fingerprint and fingerprint != vqgan.fingerprint():
        raise UserError(
            f"{who} was trained with the tokenizer {fingerprint}, this one is {vqgan.fingerprint()}: its codes mean "
            "other pictures; use the tokenizer that the model's shards were made with"
        )


def encode_images(
    vqgan: VQGAN,
    images_MHWC: UInt8[np.ndarray, "M H W C"] | Sequence[UInt8[np.ndarray, "H W C"]],
    batch_size: int = DEFAULT_BATCH,
    *,
    full_batches: bool = False,
) -> Int[np.ndarray, "M N"]:
    """Encodes uint8 RGB images of the tokenizer's size; the codes are int32, in raster order.

    Args:
      vqgan: the tokenizer.
      images_MHWC: an array, or a list of images; of a list, only one batch is copied at a time.
      batch_size: images per call of the tokenizer.
      full_batches: pads the last batch to `batch_size`, so that all calls share one compiled program. Without it, a
        few images make a small batch, which is faster for them.
    """
    if not len(images_MHWC):
        return np.zeros((0, vqgan.tokens_per_image), np.int32)
    graphdef, state = nnx.split(vqgan)
    return batched(
        lambda batch: _encode(graphdef, state, batch), images_MHWC, batch_size, full_batches
    )


def decode_codes(
    vqgan: VQGAN, codes_MN: Integer[np.ndarray, "M N"], batch_size: int = DEFAULT_BATCH
) -> Float[np.ndarray, "M H W C"]:
    """Decodes codes to float32 RGB in [0, 1]."""
    graphdef, state = nnx.split(vqgan)
    return batched(
        lambda batch: _decode(graphdef, state, batch), codes_MN.astype(np.int32), batch_size
    )


def batched(
    function: Callable[[np.ndarray], Array],
    rows: np.ndarray | Sequence[np.ndarray],
    batch_size: int,
    full_batches: bool = False,
) -> np.ndarray:
    """Applies `function` to rows batch by batch; repeats the last row to fill the last batch.

    Args:
      function: from a batch of rows to an array with a row for each.
      rows: at least one.
      batch_size: rows at once.
      full_batches: the last batch grows to a full one; else to a power of two: few programs for any number of rows.
    """
    results = []
    for start in range(0, len(rows), batch_size):
        batch = np.asarray(rows[start : start + batch_size])
        power_of_two = 1 << (len(batch) - 1).bit_length()
        filled = batch_size if full_batches else min(batch_size, power_of_two)
        padding = np.repeat(batch[-1:], filled - len(batch), axis=0)
        results.append(np.asarray(function(np.concatenate([batch, padding])))[: len(batch)])
    return np.concatenate(results)


# Module-level jits keyed by the graph definition: all calls share the compiled programs, and new weights reuse them.
@functools.partial(jax.jit, static_argnames="graphdef")
def _encode(graphdef: Any, state: Any, images_MHWC: UInt8[Array, "M H W C"]) -> Int[Array, "M N"]:
    return nnx.merge(graphdef, state).encode(to_float(images_MHWC))


@functools.partial(jax.jit, static_argnames="graphdef")
def _decode(graphdef: Any, state: Any, codes_MN: Int[Array, "M N"]) -> Float[Array, "M H W C"]:
    return nnx.merge(graphdef, state).decode(codes_MN)
