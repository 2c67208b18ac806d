"""2-D convolution, NHWC with an HWIO kernel, whose gradient is fast on CPUs too.

On a CPU, XLA computes the gradient of a 3x3 kernel as one convolution with a window as large as the image. For wide
layers it is several times faster to go through the image in bands of rows, lay out each as patches that fit a cache,
and multiply matrices (docs/performance.md).

Shape suffixes: B batch, H W sides in, H2 W2 sides out (h w in names), S sides of the kernel, C channels in, O channels
out, P positions of a band, K entries of a patch.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lvm_jax.parallel.sharding import split_mesh

Padding = tuple[tuple[int, int], tuple[int, int]]
# From this many channels on, bands gain in a whole network and not only when timed alone.
WIDE = 128
# Maximum positions of a band, unless a single row has more: 3x3 patches of 128 channels then take 9 MB.
BAND_POSITIONS = 2048


def convolve(
    x_BHWC: Float[Array, "B H W C"],
    kernel: Float[Array, "S S C O"],
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding,
) -> Float[Array, "B H2 W2 O"]:
    """The convolution of `x_BHWC`, padded with zeros; `stride` is that of both sides, or (rows, columns).

    Wide layers have no forward-mode derivatives, except 1x1 and strided ones.
    """
    size, _, channels, _ = kernel.shape
    # If the array is split over devices, each band's result would need a sum over all of them.
    strides = (stride, stride) if isinstance(stride, int) else stride
    if strides == (1, 1) and size > 1 and channels >= WIDE and split_mesh() is None:
        return _convolve_wide(padding, x_BHWC, kernel)
    return _xla(x_BHWC, kernel, strides, padding)


def _xla(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_wide(padding: Padding, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _xla(x, kernel, (1, 1), padding)


def _forward(padding: Padding, x: jax.Array, kernel: jax.Array):
    return _xla(x, kernel, (1, 1), padding), (x, kernel)


def _backward(padding: Padding, residuals: tuple[jax.Array, jax.Array], g: jax.Array):
    x, kernel = residuals

    def of_kernel(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda k: _xla(x, k, (1, 1), padding), kernel)(g)[0]

    bands = functools.partial(_kernel_gradient, size=kernel.shape[0], padding=padding)
    (of_input,) = jax.linear_transpose(lambda x: _xla(x, kernel, (1, 1), padding), x)(g)
    return of_input, jax.lax.platform_dependent(x, g, cpu=bands, default=of_kernel)


_convolve_wide.defvjp(_forward, _backward)


def _kernel_gradient(
    x_BHWC: Float[Array, "B H W C"],
    g_BhwO: Float[Array, "B H2 W2 O"],
    *,
    size: int,
    padding: Padding,
) -> Float[Array, "S S C O"]:
    """Sums the products of each position's gradient with its patch, band of rows by band, in fp32."""
    batch, height, width, outputs = g_BhwO.shape
    channels = x_BHWC.shape[-1]
    # The most rows per band that divide the height, since a scan needs bands of one shape.
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
