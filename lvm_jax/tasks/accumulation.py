"""A batch computed in parts, one after the other: the memory of one part, the result of the whole.

Shape suffixes: B batch, P parts, b rows of a part.
"""

from collections.abc import Callable
from typing import Any

import jax

from lvm_jax.errors import UserError
from lvm_jax.parallel.sharding import constrain


def in_parts(function: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """`function`, from arrays of B rows to a pytree of arrays of B rows, over `parts` equal parts.

    Only rows may be returned, and no row may depend on another: then sums, means and other losses of the whole batch,
    taken of what is returned, are exactly those of one part. Differentiating keeps nothing of a part but what is
    returned and computes the rest again. Each device's rows are cut where they lie.

    Raises:
      UserError: when called with rows that do not divide.
    """
    if parts == 1:
        return function

    def mapped(*arrays: jax.Array) -> Any:
        pieces = tuple(cut(array, parts) for array in arrays)
        results = jax.lax.map(jax.checkpoint(lambda part: function(*part)), pieces)
        return jax.tree.map(_join, results)

    return mapped


def cut(x_B: jax.Array, parts: int) -> jax.Array:
    """(B, ...) as (parts, B / parts, ...); each device's rows are cut where they lie.

    Raises:
      UserError: the rows do not divide.
    """
    if len(x_B) % parts:
        raise UserError(
            f"a batch of {len(x_B)} does not divide into {parts} parts: change batch_size or accumulation"
        )
    x_bP = x_B.reshape(len(x_B) // parts, parts, *x_B.shape[1:])
    return constrain(x_bP.swapaxes(0, 1), None, "batch", *(None,) * (x_B.ndim - 1))


def _join(x_Pb: jax.Array) -> jax.Array:
    x_B = x_Pb.swapaxes(0, 1).reshape(-1, *x_Pb.shape[2:])
    return constrain(x_B, "batch", *(None,) * (x_B.ndim - 1))
