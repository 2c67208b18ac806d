"""2-D convolution, NHWC with an HWIO kernel, whose gradient is fast on CPUs too.

XLA runs the gradient of a 3x3 kernel on a CPU as one convolution with a window as large as the image. Bands of rows,
laid out as patches that a cache holds, go through matrix products in a fraction of that time for wide layers
(docs/performance.md).

Shape suffixes: B batch, H W sides, C channels in, O channels out, P positions of a band.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lvm_jax.parallel.sharding import split_mesh

Padding = tuple[tuple[int, int], tuple[int, int]]
WIDE = 128  # channels from which on bands gain in a network, and not only by themselves
BAND_POSITIONS = 2048  # at most, where one row has no more: 3x3 patches of 128 channels take 9 MB


def convolve(
    x_BHWC: Float[Array, "B H W C"],
    kernel: Float[Array, "s s C O"],
    *,
    stride: int = 1,
    padding: Padding,
) -> Float[Array, "B h w O"]:
    """The convolution of `x_BHWC`, with zeros around it.

    Forward-mode derivatives of wide layers, but for 1x1 and strided ones, are not defined.
    """
    size, _, channels, _ = kernel.shape
    # Bands of an array that is split over devices would each be summed over all of them.
    if stride == 1 and size > 1 and channels >= WIDE and split_mesh() is None:
        return _convolve_wide(padding, x_BHWC, kernel)
    return _xla(x_BHWC, kernel, stride, padding)


def _xla(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_wide(padding: Padding, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _xla(x, kernel, 1, padding)


def _forward(padding: Padding, x: jax.Array, kernel: jax.Array):
    return _xla(x, kernel, 1, padding), (x, kernel)


def _backward(padding: Padding, residuals: tuple[jax.Array, jax.Array], g: jax.Array):
    x, kernel = residuals

    def of_kernel(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda k: _xla(x, k, 1, padding), kernel)(g)[0]

    bands = functools.partial(_kernel_gradient, size=kernel.shape[0], padding=padding)
    (of_input,) = jax.linear_transpose(lambda x: _xla(x, kernel, 1, padding), x)(g)
    return of_input, jax.lax.platform_dependent(x, g, cpu=bands, default=of_kernel)


_convolve_wide.defvjp(_forward, _backward)


def _kernel_gradient(
    x_BHWC: Float[Array, "B H W C"], g_BhwO: Float[Array, "B h w O"], *, size: int, padding: Padding
) -> Float[Array, "s s C O"]:
    """Sum of products of each position's gradient and its patch, over one band of rows after the other, in fp32."""
    batch, height, width, outputs = g_BhwO.shape
    channels = x_BHWC.shape[-1]
    rows = next(
        n
        for n in range(height, 0, -1)
        if height % n == 0 and (n == 1 or batch * n * width <= BAND_POSITIONS)
    )
    padded = jnp.pad(x_BHWC, ((0, 0), *padding, (0, 0)))

    def add(sum_OK: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        band = jax.lax.dynamic_slice_in_dim(padded, first, rows + size - 1, axis=1)
        taps = [(i, j) for i in range(size) for j in range(size)]
        patches = jnp.stack([band[:, i : i + rows, j : j + width] for i, j in taps], axis=-2)
        patches_PK = patches.reshape(-1, len(taps) * channels)
        g_PO = jax.lax.dynamic_slice_in_dim(g_BhwO, first, rows, axis=1).reshape(-1, outputs)
        return sum_OK + jnp.matmul(g_PO.T, patches_PK, preferred_element_type=jnp.float32), None

    zeros = jnp.zeros((outputs, size * size * channels), jnp.float32)
    sum_OK, _ = jax.lax.scan(add, zeros, jnp.arange(0, height, rows))
    return sum_OK.T.reshape(size, size, channels, outputs).astype(x_BHWC.dtype)
