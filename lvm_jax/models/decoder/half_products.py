"""Training in bf16 on one CPU device: products whose results are fp32 and rounded afterwards.

XLA's CPU backend multiplies bf16 matrices as fast as fp32 ones, unless the result is fp32 and both operands lie row by
row. Then it uses the CPU's bf16 instructions, and a product takes half the time. Sums are fp32 either way. Other
devices need none of this, and between devices fp32 partial sums would be twice the traffic.

Shapes: M tokens, R rows and C columns of a kernel.
"""

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from lvm_jax.parallel.sharding import on_one_cpu


def serves(x: jax.Array) -> bool:
    """Whether `x` is bf16 on one CPU device."""
    return x.dtype == jnp.bfloat16 and on_one_cpu()


@jax.custom_vjp
def product(x_MR: Float[Array, "M R"], kernel_RC: Float[Array, "R C"]) -> Float[Array, "M C"]:
    """x @ kernel, rounded to x's dtype; the gradient of an fp32 kernel is not rounded.

    Without a gradient it is the plain product: while decoding the shapes are small.
    """
    return x_MR @ kernel_RC.astype(x_MR.dtype)


def _forward(x_MR, kernel_RC):
    return _dot(x_MR, kernel_RC.astype(x_MR.dtype), 0).astype(x_MR.dtype), (x_MR, kernel_RC)


def _backward(saved, dy_MC):
    x_MR, kernel_RC = saved
    dx_MR = _dot(dy_MC, kernel_RC.astype(dy_MC.dtype), 1).astype(x_MR.dtype)
    # Else the transposed copy would be the same bytes, read column by column.
    x_RM = with_layout_constraint(x_MR.T, Layout(major_to_minor=(0, 1)))
    return dx_MR, _dot(x_RM, dy_MC, 0).astype(kernel_RC.dtype)


product.defvjp(_forward, _backward)


def _dot(a: jax.Array, b: jax.Array, contract_b: int) -> jax.Array:
    """The product over a's columns, in fp32."""
    dimensions = (((1,), (contract_b,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
