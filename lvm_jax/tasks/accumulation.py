"""Gradient accumulation: a batch computed as microbatches, one after the other.

It needs the memory of one microbatch and gives the result of the whole batch.

Shape suffixes: B rows of a batch, M microbatches, b rows of a microbatch, B = M * b.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from lvm_jax.errors import UserError
from lvm_jax.parallel.sharding import RULES, constrain, split_mesh


def in_microbatches(function: Callable[..., Any], microbatches: int) -> Callable[..., Any]:
    """A version of `function`, which maps arrays of B rows to a pytree of such arrays, that runs in microbatches.

    The function must return rows only, and no row may depend on another. A loss of the returned rows is then exactly
    the loss without microbatches. The backward pass keeps only what the function returns and recomputes the rest.

    Raises:
      UserError: see `cut`, when called.
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
      UserError: M does not divide the rows, or the mesh not those of a microbatch.
    """
    if len(x_B) % microbatches:
        raise UserError(
            f"a batch of {len(x_B)} does not divide into {microbatches} parts: change batch_size or accumulation"
        )
    if (mesh := split_mesh()) is not None:
        # `constrain` would leave odd rows whole, and each device would compute all of them.
        ways = math.prod(mesh.shape.get(axis, 1) for axis in RULES["batch"])
        if len(x_B) // microbatches % ways:
            raise UserError(
                f"a batch of {len(x_B)} in {microbatches} parts does not divide over data*fsdp*expert={ways} of the "
                f"mesh: set batch_size to a multiple of {microbatches * ways}, or lower accumulation"
            )
    # Neighbouring rows go to different microbatches, so each device cuts its own rows. Contiguous microbatches would
    # lie on a few devices each, and rows would have to move.
    x_bM = x_B.reshape(len(x_B) // microbatches, microbatches, *x_B.shape[1:])
    return constrain(x_bM.swapaxes(0, 1), None, "batch", *(None,) * (x_B.ndim - 1))


def _join(x_Mb: jax.Array) -> jax.Array:
    x_B = x_Mb.swapaxes(0, 1).reshape(-1, *x_Mb.shape[2:])
    return constrain(x_B, "batch", *(None,) * (x_B.ndim - 1))
