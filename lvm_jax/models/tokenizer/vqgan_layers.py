"""The parts VQGANs are made of, NHWC.

Convolutions compute in `dtype`, with fp32 parameters; group statistics and attention weights are
fp32 always.

Shape suffixes: B batch, H W or h w sides, C channels in, O channels out, N M positions.
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
    """GroupNorm, SiLU, conv, twice; a 1x1 convolution fits the shortcut to another width."""

    def __init__(self, inputs: int, outputs: int, config: VQGANConfig, *, rngs: nnx.Rngs):
        kwargs: dict[str, Any] = {
            "use_bias": config.structure.bias,
            "dtype": config.dtype,
            "rngs": rngs,
        }
        self.norm1 = GroupNorm(inputs, config.norm_groups)
        self.conv1 = Conv(inputs, outputs, 3, **kwargs)
        self.norm2 = GroupNorm(outputs, config.norm_groups)
        # Starting at 0 makes each block the identity at first: the latent's signal, which every
        # convolution between levels passes on, is not drowned by random features on its way.
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
        scores_BNM = jnp.einsum("bnc,bmc->bnm", q_BNC, k_BNC, preferred_element_type=jnp.float32)
        weights_BNM = jax.nn.softmax(scores_BNM * channels**-0.5, axis=-1).astype(v_BNC.dtype)
        attended_BNC = jnp.einsum("bnm,bmc->bnc", weights_BNM, v_BNC)
        return x + self.proj_out(attended_BNC.reshape(x.shape))


class Downsample(nnx.Module):
    """Halves the side: average pooling, or a strided conv over one more row and column of zeros.

    The zeros stand at the bottom and the right, as in the published weights.
    """

    def __init__(self, channels: int, config: VQGANConfig, *, rngs: nnx.Rngs):
        if config.structure.pool:
            self.conv = None
            return
        padding = ((0, 1), (0, 1))
        self.conv = Conv(
            channels, channels, 3, stride=2, padding=padding, dtype=config.dtype, rngs=rngs
        )

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        """Half the side."""
        if self.conv is not None:
            return self.conv(x)
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Upsample(nnx.Module):
    """Doubles the side: nearest neighbour then conv, or conv to 4x channels then depth to space."""

    def __init__(self, channels: int, config: VQGANConfig, *, rngs: nnx.Rngs):
        self.conv_first = config.structure.pool
        outputs = 4 * channels if self.conv_first else channels
        self.conv = Conv(channels, outputs, 3, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
        """Twice the side."""
        return depth_to_space(self.conv(x)) if self.conv_first else self._doubled_conv(x)

    def _doubled_conv(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
        """The convolution of `x` doubled by nearest neighbour, without the doubled array.

        3x3 pixels of a doubled image come from 2x2 of its own: the same sum with 4 products in place of 9, whose
        weights are sums of the 3x3 kernel's. The 2x2 window between the pixels i-1 and i gives the doubled ones
        2i-1 and 2i, hence a row and a column too many on each side.
        """
        kernel = _of_each_phase(_of_each_phase(self.conv.kernel[...], 0), 2)  # p i q j c o
        kernel = kernel.transpose(1, 3, 4, 0, 2, 5).reshape(4 * x.shape[-1], -1)
        height, width = x.shape[1] + 1, x.shape[2] + 1
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [padded[:, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
        windows = jnp.concatenate(windows, axis=-1)
        y = windows @ kernel.astype(self.conv.dtype)
        return self.conv.add_bias(depth_to_space(y)[:, 1:-1, 1:-1])


def _of_each_phase(kernel: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """`axis` of 3 taps becomes (pixel, tap), 2 x 2: what an odd and an even doubled pixel take from their sources."""
    first, middle, last = jnp.moveaxis(kernel, axis, 0)
    odd, even = (first + middle, last), (first, middle + last)
    return jnp.stack([jnp.stack(odd, axis), jnp.stack(even, axis)], axis)


def depth_to_space(x: Float[Array, "B h w D"]) -> Float[Array, "B 2*h 2*w D//4"]:
    """Each position's channels as 2x2 positions, in raster order."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


class GroupNorm(nnx.Module):
    """Group normalisation over min(groups, channels) groups, in fp32.

    Sums run over positions for each channel and only then over the channels of a group, and the
    normalisation folds into one multiply and add: eight times as fast on CPUs as reshaping into
    groups first.
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
        variance_BC = jnp.maximum(square_BC - jnp.square(mean_BC), 0)
        scale_BC = jax.lax.rsqrt(variance_BC + self.epsilon) * self.scale[...][None]
        shift_BC = self.bias[...][None] - mean_BC * scale_BC
        normed = x_fp32 * scale_BC[:, None, None] + shift_BC[:, None, None]
        return normed.astype(x.dtype)

    def _group_mean(self, x_BC: Float[Array, "B C"]) -> Float[Array, "B C"]:
        """Each channel's entry becomes the mean of its group's."""
        batch, channels = x_BC.shape
        grouped = x_BC.reshape(batch, self.groups, channels // self.groups)
        mean = jnp.mean(grouped, axis=-1, keepdims=True)
        return jnp.broadcast_to(mean, grouped.shape).reshape(batch, channels)


class Conv(nnx.Module):
    """2-D convolution, NHWC with an HWIO kernel, zero padding that keeps the side unless given.

    The bias starts at zero. Only kernels of wide layers name an output axis to be split over devices: colours, logits
    and latents of a few channels, and biases, are not worth it and would rarely divide.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
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

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w O"]:
        """The convolution of `x`."""
        kernel = self.kernel[...].astype(self.dtype)
        return self.add_bias(convolve(x, kernel, stride=self.stride, padding=self.padding))

    def add_bias(self, y: Float[Array, "B h w O"]) -> Float[Array, "B h w O"]:
        """`y` and the bias, if there is one."""
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)[None, None, None]
