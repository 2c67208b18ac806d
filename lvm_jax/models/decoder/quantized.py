"""Matrix products in 8 bits, also in training: operands are rounded, each row and column with its own scale.

Qwix computes them. Its rules choose modules by path patterns, but this decoder chooses each product itself. So it calls
the function beneath the rules, which Qwix does not export; setup.py bounds Qwix's version.
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
      quantization: "int8" quantises both operands of the forward product, and nothing backward. "fp8" uses e4m3 forward
        and e5m2 for the incoming gradient (Micikevicius et al., arXiv 2209.05433, section 3).

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
