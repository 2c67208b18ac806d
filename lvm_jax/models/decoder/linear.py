"""Matrices: how they are initialised, stored and multiplied.

Shapes: B batch, T tokens, D hidden size, P rows of the vocabulary table.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from lvm_jax.models.decoder import half_products, quantized
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.parallel.sharding import partition_spec

_FEW = 64  # rows; from here on the blocks of the right operand pay


def matrix(
    rngs: nnx.Rngs, config: DecoderConfig, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> nnx.Param:
    """A parameter from a normal distribution with the configured deviation; `axes` name its dimensions."""
    return nnx.Param(
        config.initializer_range * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes
    )


def bias(size: int, axis: str | None) -> nnx.Param:
    """A bias of zeros. It is flat whatever the product's shape, so that weight decay, for matrices only, spares it."""
    return nnx.Param(jnp.zeros((size,), jnp.float32), axes=(axis,))


def vocabulary_table(rngs: nnx.Rngs, config: DecoderConfig, axes: tuple[str, str]) -> nnx.Param:
    """A matrix over the padded vocabulary. The padding is and stays zero: no id reads it, and no logit shows it."""
    sizes = {"vocab": config.padded_vocab_size, "embed": config.hidden_size}
    table = matrix(rngs, config, tuple(sizes[axis] for axis in axes), axes)
    rows = jax.lax.broadcasted_iota(jnp.int32, table.shape, axes.index("vocab"))
    table[...] = jnp.where(rows < config.vocab_size, table[...], 0.0)
    return table


def linear(
    x_BTD: jax.Array,
    kernel: jax.Array,
    inputs: int = 1,
    result: jnp.dtype | type | None = None,
    quantization: str = "none",
) -> jax.Array:
    """x @ kernel, rounded to `result` or to x's dtype.

    Args:
      x_BTD: activations; their last `inputs` dimensions are contracted.
      kernel: weights; their first `inputs` dimensions are contracted.
      inputs: how many dimensions are inputs; 2 if heads and their dimensions are contracted together.
      result: dtype of the product; None: x's.
      quantization: "none", or as in `quantized.dot_general`.
    """
    # Folding a split sequence into the batch would gather it first, so this product keeps all dimensions.
    if not sequence_is_whole(x_BTD.shape[1]):
        kernel = kernel.astype(x_BTD.dtype)
        if quantization != "none":
            dims = (tuple(range(2, 2 + inputs)), tuple(range(inputs)))
            return quantized.dot_general(x_BTD, kernel, (dims, ((), ())), quantization)
        return jnp.tensordot(x_BTD, kernel, inputs, preferred_element_type=result)
    # All other products are of two matrices. A kernel's gradient would else contract (batch, sequence) pairs, which
    # XLA's CPU backend does by transposed copies, at a third of the speed.
    rows, columns = math.prod(kernel.shape[:inputs]), kernel.shape[inputs:]
    x, kernel = x_BTD.reshape(-1, rows), kernel.reshape(rows, -1)
    if quantization != "none":
        kernel = kernel.astype(x.dtype)
        y = quantized.dot_general(x, kernel, (((1,), (0,)), ((), ())), quantization)
    elif result is None and half_products.serves(x):
        y = half_products.product(x, kernel)
    else:
        y = jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=result)
    return y.reshape(*x_BTD.shape[:2], *columns)


class ByOutputs(nnx.Param):
    """A matrix whose outputs come first: what `by_outputs` makes and `few_rows` multiplies by."""


def by_outputs(kernel: nnx.Param, inputs: int = 1) -> ByOutputs:
    """A copy of a matrix whose first `inputs` dimensions are inputs, with these last."""
    order = (*range(inputs, kernel.ndim), *range(inputs))
    axes = kernel.get_metadata()["axes"]
    return ByOutputs(jnp.transpose(kernel[...], order), axes=tuple(axes[i] for i in order))


def few_rows(
    x_BTD: jax.Array, kernel: ByOutputs, inputs: int = 1, result: jnp.dtype | type | None = None
) -> jax.Array:
    """The product of `linear`, fast where a CPU decodes and so reads a whole matrix for a few rows.

    Args:
      x_BTD: activations; their last `inputs` dimensions are contracted.
      kernel: weights, of x's dtype; their last `inputs` dimensions are contracted.
      inputs: how many dimensions are inputs.
      result: dtype of the product; None: x's.
    """
    columns, rows = kernel.shape[: kernel.ndim - inputs], math.prod(kernel.shape[-inputs:])
    x, weights = x_BTD.reshape(-1, rows), kernel[...].reshape(-1, rows)
    if not 1 < len(x) <= _FEW:
        y = jnp.matmul(x, weights.T, preferred_element_type=result)
    else:
        # XLA's CPU backend reads the left operand once and copies the right one into blocks first; a vector needs
        # neither. Without the barrier it would merge the transposition into the product, and turn the operands round.
        y_T = jnp.matmul(weights, x.T, preferred_element_type=result)
        y = jax.lax.optimization_barrier(y_T).T
    return y.reshape(*x_BTD.shape[:2], *columns)


def sequence_is_whole(length: int) -> bool:
    """Whether a row of `length` tokens stays on one device: without a mesh, or by the rules on the current one."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or len(partition_spec(("seq",), (length,), mesh, strict=False)) == 0
