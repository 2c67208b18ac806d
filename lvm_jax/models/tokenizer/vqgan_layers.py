"""The layers of a VQGAN, NHWC.

Convolutions compute in `dtype`, with fp32 parameters; group statistics and attention weights are
always fp32.

Shape suffixes: B batch, H W sides, H2 W2 the smaller sides of a resampling or a convolution's sides out, C channels in,
O channels out, D channels before depth to space, N M positions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.tokenizer.convolution import Padding, convolve
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig


class ResBlock(nnx.Module):
    """Twice GroupNorm, SiLU, convolution; if the width changes, the shortcut is a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, config: VQGANConfig, *, rngs: nnx.Rngs):
        kwargs: dict[str, Any] = {
            "use_bias": config.structure.bias,
            "dtype": config.dtype,
            "rngs": rngs,
        }
        self.norm1 = GroupNorm(inputs, config.norm_groups)
        self.conv1 = Conv(inputs, outputs, 3, **kwargs)
        self.norm2 = GroupNorm(outputs, config.norm_groups)
        # Starting from 0 makes each block the identity at first, so random features do not drown the
        # latent's signal on its way through the stages.
        zeros = nnx.initializers.zeros_init()
        self.conv2 = Conv(outputs, outputs, 3, kernel_init=zeros, **kwargs)
        self.nin_shortcut = Conv(inputs, outputs, 1, **kwargs) if inputs != outputs else None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W O"]:
        """Residual update of `x`."""
        h = self.conv1(nnx.silu(self.norm1(x)))
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class Attention(nnx.Module):
    """Single-head self-attention over all positions, added to its input."""

    def __init__(self, channels: int, config: VQGANConfig, *, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, config.norm_groups)
        self.q, self.k, self.v, self.proj_out = (
            Conv(channels, channels, 1, dtype=config.dtype, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Residual update of `x`."""
        batch, height, width, channels = x.shape
        normed = self.norm(x)
        q_BNC, k_BNC, v_BNC = (
            conv(normed).reshape(batch, height * width, channels)
            for conv in (self.q, self.k, self.v)
        )
        # Scores are summed in fp32 even if the convolutions compute in bf16, and the softmax is fp32.
        scores_BNM = jnp.einsum("bnc,bmc->bnm", q_BNC, k_BNC, preferred_element_type=jnp.float32)
        weights_BNM = jax.nn.softmax(scores_BNM * channels**-0.5, axis=-1).astype(v_BNC.dtype)
        attended_BNC = jnp.einsum("bnm,bmc->bnc", weights_BNM, v_BNC)
        return x + self.proj_out(attended_BNC.reshape(x.shape))


class Downsample(nnx.Module):
    """Halves the side: average pooling, or a strided convolution over one extra row and column of zeros.

    The zeros are at the bottom and the right, as the published weights expect.
    """

    def __init__(self, channels: int, config: VQGANConfig, *, rngs: nnx.Rngs):
        if config.structure.pool:
            self.conv = None
            return
        padding = ((0, 1), (0, 1))
        self.conv = Conv(
            channels, channels, 3, stride=2, padding=padding, dtype=config.dtype, rngs=rngs
        )

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
        """Half the side."""
        if self.conv is not None:
            return self.conv(x)
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Upsample(nnx.Module):
    """Doubles the side: nearest neighbour then convolution, or convolution to 4x channels then depth to space."""

    def __init__(self, channels: int, config: VQGANConfig, *, rngs: nnx.Rngs):
        self.conv_first = config.structure.pool
        outputs = 4 * channels if self.conv_first else channels
        self.conv = Conv(channels, outputs, 3, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H2 W2 C"]) -> Float[Array, "B H W C"]:
        """Twice the side."""
        return depth_to_space(self.conv(x)) if self.conv_first else self._doubled_conv(x)

    def _doubled_conv(self, x: Float[Array, "B H2 W2 C"]) -> Float[Array, "B H W C"]:
        """Doubles `x` by nearest neighbour and convolves it, without building the doubled array.

        3x3 pixels of the doubled image are copies of 2x2 pixels of `x`. So 4 products give the same sum as 9, with
        weights that are sums of the 3x3 kernel's. The 2x2 window over pixels i-1 and i gives the doubled pixels 2i-1
        and 2i, which leaves one row and column too many on each side.
        """
        # Axes: pixel row, tap row, pixel column, tap column, channels in, channels out.
        kernel = _of_each_phase(_of_each_phase(self.conv.kernel[...], 0), 2)
        kernel = kernel.transpose(1, 3, 4, 0, 2, 5).reshape(4 * x.shape[-1], -1)
        height, width = x.shape[1] + 1, x.shape[2] + 1
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [padded[:, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
        windows = jnp.concatenate(windows, axis=-1)
        y = windows @ kernel.astype(self.conv.dtype)
        return self.conv.add_bias(depth_to_space(y)[:, 1:-1, 1:-1])


def _of_each_phase(kernel: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Turns `axis` of 3 taps into (pixel, tap), 2 x 2: the weights of an odd and an even pixel for its two sources."""
    first, middle, last = jnp.moveaxis(kernel, axis, 0)
    odd, even = (first + middle, last), (first, middle + last)
    return jnp.stack([jnp.stack(odd, axis), jnp.stack(even, axis)], axis)


def depth_to_space(x: Float[Array, "B H2 W2 D"]) -> Float[Array, "B 2*H2 2*W2 D//4"]:
    """Spreads each position's channels over 2x2 positions, in raster order."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


class GroupNorm(nnx.Module):
    """Group normalisation over min(groups, channels) groups, in fp32.

    It sums over positions for each channel, then over a group's channels, and normalises with one
    multiply and add. On CPUs that is eight times as fast as reshaping into groups first.
    """

    def __init__(self, channels: int, groups: int, *, epsilon: float = 1e-6):
        self.groups = min(groups, channels)
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(channels), axes=(None,))
        self.bias = nnx.Param(jnp.zeros(channels), axes=(None,))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalised `x`, in its dtype."""
        x_fp32 = x.astype(jnp.float32)
        mean_BC = self._group_mean(jnp.mean(x_fp32, axis=(1, 2)))
        square_BC = self._group_mean(jnp.mean(jnp.square(x_fp32), axis=(1, 2)))
        # E[x^2] - E[x]^2 may round to below 0.
        variance_BC = jnp.maximum(square_BC - jnp.square(mean_BC), 0)
        scale_BC = jax.lax.rsqrt(variance_BC + self.epsilon) * self.scale[...][None]
        shift_BC = self.bias[...][None] - mean_BC * scale_BC
        normed = x_fp32 * scale_BC[:, None, None] + shift_BC[:, None, None]
        return normed.astype(x.dtype)

    def _group_mean(self, x_BC: Float[Array, "B C"]) -> Float[Array, "B C"]:
        """Replaces each channel's entry by the mean of its group."""
        batch, channels = x_BC.shape
        grouped = x_BC.reshape(batch, self.groups, channels // self.groups)
        mean = jnp.mean(grouped, axis=-1, keepdims=True)
        return jnp.broadcast_to(mean, grouped.shape).reshape(batch, channels)


class Conv(nnx.Module):
    """2-D convolution, NHWC with an HWIO kernel; by default zero padding keeps the side.

    The bias starts from zero. Only kernels whose outputs are a multiple of 64 name an axis to split over devices: few
    channels (colours, logits, latents) and biases are not worth it and would rarely divide.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int | tuple[int, int] = 1,
        padding: Padding | None = None,
        use_bias: bool = True,
        kernel_init: Callable = nnx.initializers.lecun_normal(),  # noqa: B008 (a pure function)
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding = padding or ((size // 2, size // 2), (size // 2, size // 2))
        self.dtype = dtype
        self.kernel = nnx.Param(
            kernel_init(rngs.params(), (size, size, inputs, outputs), jnp.float32),
            axes=(None, None, "conv_in", "conv_out" if outputs % 64 == 0 else None),
        )
        self.bias = nnx.Param(jnp.zeros(outputs), axes=(None,)) if use_bias else None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 O"]:
        """The convolution of `x`."""
        kernel = self.kernel[...].astype(self.dtype)
        return self.add_bias(convolve(x, kernel, stride=self.stride, padding=self.padding))

    def add_bias(self, y: Float[Array, "B H2 W2 O"]) -> Float[Array, "B H2 W2 O"]:
        """`y` plus the bias, if there is one."""
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)[None, None, None]
