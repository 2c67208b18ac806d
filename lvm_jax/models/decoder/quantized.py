"""Matrix products in 8 bits, in training: operands are rounded, each row and column with a scale of its own.

Qwix does it. Its rules match module paths by pattern; this decoder says product by product what is quantised, so the
function beneath them is called, which Qwix does not export: setup.py bounds its version.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lvm_jax.errors import UserError


def dot_general(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, quantization: str
) -> jax.Array:
    """`jax.lax.dot_general` in 8 bits, forward and backward, rounded to x's dtype.

    Args:
      x: activations.
      kernel: weights, of x's dtype.
      dimension_numbers: as in `jax.lax.dot_general`.
      quantization: "int8": both operands of the forward product; the backward ones are not quantised.
        "fp8": e4m3 forward, and e5m2 for the incoming gradient (Micikevicius et al., arXiv 2209.05433, section 3).

    Raises:
      UserError: qwix is not installed.
    """
    dot, config = _qwix(quantization)
    return dot(x, kernel, dimension_numbers, config).astype(x.dtype)


@functools.cache
def _qwix(quantization: str) -> tuple[Any, Any]:
    try:
        from qwix._src.core.dot_general_qt import DotGeneralQtConfig, dot_general_qt
    except ImportError as error:
        raise UserError(
            f"quantization={quantization!r} needs qwix ({error}): pip install 'lvm_jax[quantization]'"
        ) from error
    if quantization == "int8":
        config = DotGeneralQtConfig(
            lhs_qtype=jnp.int8, rhs_qtype=jnp.int8, use_original_residuals=True
        )
    else:
        config = DotGeneralQtConfig(
            lhs_qtype=jnp.float8_e4m3fn,
            rhs_qtype=jnp.float8_e4m3fn,
            dlhs_grad_qtype=jnp.float8_e5m2,
            drhs_grad_qtype=jnp.float8_e5m2,
        )
    return dot_general_qt, config
