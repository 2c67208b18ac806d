"""Gradient accumulation: a batch computed as microbatches, one after the other.

It takes the memory of one microbatch and gives the result of the whole batch.

Shape suffixes: B rows of a batch, M microbatches, b rows of a microbatch, B = M * b.
"""

from collections.abc import Callable
from typing import Any

import jax

from lvm_jax.errors import UserError
from lvm_jax.parallel.sharding import constrain


def in_microbatches(function: Callable[..., Any], microbatches: int) -> Callable[..., Any]:
    """`function`, from arrays of B rows to a pytree of arrays of B rows, computed in `microbatches` equal pieces.

    The function must return rows only, and no row may depend on another. Then a loss of the whole batch, taken of what
    is returned, comes out exactly as without microbatches. The backward pass keeps only what the function returns and
    computes the rest again.

    Raises:
      UserError: when called with rows that do not divide.
    """
    if microbatches == 1:
        return function

    def mapped(*arrays: jax.Array) -> Any:
        cut_arrays = tuple(cut(array, microbatches) for array in arrays)
        # The checkpoint is what saves memory: a map alone would keep every microbatch's activations.
        results = jax.lax.map(jax.checkpoint(lambda rows: function(*rows)), cut_arrays)
        return jax.tree.map(_join, results)

    return mapped


def cut(x_B: jax.Array, microbatches: int) -> jax.Array:
    """(B, ...) as (M, b, ...), for M `microbatches`.

    Raises:
      UserError: the rows do not divide.
    """
    if len(x_B) % microbatches:
        raise UserError(
            f"a batch of {len(x_B)} does not divide into {microbatches} parts: change batch_size or accumulation"
        )
    # Neighbouring rows go to different microbatches. So every device cuts the rows that it holds, and none is moved.
    x_bM = x_B.reshape(len(x_B) // microbatches, microbatches, *x_B.shape[1:])
    return constrain(x_bM.swapaxes(0, 1), None, "batch", *(None,) * (x_B.ndim - 1))


def _join(x_Mb: jax.Array) -> jax.Array:
    x_B = x_Mb.swapaxes(0, 1).reshape(-1, *x_Mb.shape[2:])
    return constrain(x_B, "batch", *(None,) * (x_B.ndim - 1))
