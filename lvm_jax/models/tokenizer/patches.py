"""The `patches` architecture: a tokenizer whose codes say what is in their own patch, and nothing else.

A VQGAN's convolutions let a code depend on all that surrounds its patch. That helps its pictures and hurts whoever
must predict the code: equal patches get different codes, and a small decoder cannot guess which (docs/tokenizer.md).
Here features and codes are patches of pixels, f x f x C values each, and both networks are corrections that begin at
zero:
  encoder   adds to each patch what an MLP makes of it, and of its neighbours within `encoder_reach` cells;
  decoder   adds to each code what blocks make of the codes around it: without it, edges of patches show.
So without a step of training, a codebook of k-means over patches is a tokenizer already.

Shape suffixes: B batch, H W sides in pixels, H2 W2 sides in cells (h w in names), C image channels, D = f * f * C
values of a patch, W width of a network.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.models.tokenizer.vqgan_layers import Conv

_EXPANSION = 4  # hidden width of an MLP, in widths


class Correction(nnx.Module):
    """Blocks between two 1x1 convolutions; the last one starts from zero, and so does all that is added.

    Args:
      config: gives the width and the size of a patch.
      mixes: for each block, whether it looks at the eight cells around first.
      rngs: of the initialisation.
    """

    def __init__(self, config: VQGANConfig, mixes: Sequence[bool], *, rngs: nnx.Rngs):
        width, values, zeros = config.hidden_channels, config.z_channels, nnx.initializers.zeros
        self.conv_in = Conv(values, width, 1, dtype=config.dtype, rngs=rngs)
        self.blocks = nnx.List([Block(width, mix, config.dtype, rngs=rngs) for mix in mixes])
        self.norm_out = ChannelNorm(width)
        self.conv_out = Conv(width, values, 1, kernel_init=zeros, dtype=config.dtype, rngs=rngs)

    def corrected(self, x_BhwD: Float[Array, "B H2 W2 D"]) -> Float[Array, "B H2 W2 D"]:
        """`x_BhwD`, and what the blocks add to it."""
        h = self.conv_in(x_BhwD)
        for block in self.blocks:
            h = block(h)
        return x_BhwD + self.conv_out(self.norm_out(h))


class PatchEncoder(nnx.Module):
    """Maps images to patches, corrected if the config has `encoder_blocks`."""

    def __init__(self, config: VQGANConfig, *, rngs: nnx.Rngs):
        self.side = config.downsampling
        # One mixing block a cell of reach; the others stay within their patch.
        mixes = [block < config.encoder_reach for block in range(config.encoder_blocks)]
        self.correction = Correction(config, mixes, rngs=rngs) if mixes else None

    def __call__(self, x_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """Features of images already in the network's pixel range and dtype."""
        patches_BhwD = to_patches(x_BHWC, self.side)
        return patches_BhwD if self.correction is None else self.correction.corrected(patches_BhwD)


class PatchDecoder(Correction):
    """Maps codes, which are patches, to images without visible edges between the patches."""

    def __init__(self, config: VQGANConfig, *, rngs: nnx.Rngs):
        super().__init__(config, [True] * config.num_res_blocks, rngs=rngs)
        self.side = config.downsampling

    def __call__(self, z_BhwD: Float[Array, "B H2 W2 D"]) -> Float[Array, "B H W C"]:
        """Images in the network's pixel range, not clamped."""
        return to_image(self.corrected(z_BhwD), self.side)


class Block(nnx.Module):
    """A depthwise 3x3 convolution over cells if `mix`, then an MLP, each added to its input and zero at first."""

    def __init__(self, width: int, mix: bool, dtype: str, *, rngs: nnx.Rngs):
        zeros, hidden = nnx.initializers.zeros, _EXPANSION * width
        self.mixing = Mixing(width, dtype, rngs=rngs) if mix else None
        self.norm = ChannelNorm(width)
        self.up = Conv(width, hidden, 1, dtype=dtype, rngs=rngs)
        self.down = Conv(hidden, width, 1, kernel_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x_BhwW: Float[Array, "B H2 W2 W"]) -> Float[Array, "B H2 W2 W"]:
        """Residual update of `x_BhwW`."""
        if self.mixing is not None:
            x_BhwW = x_BhwW + self.mixing(x_BhwW)
        return x_BhwW + self.down(jax.nn.gelu(self.up(self.norm(x_BhwW))))


class Mixing(nnx.Module):
    """A depthwise 3x3 convolution over cells, then a 1x1 convolution that starts from zero."""

    def __init__(self, width: int, dtype: str, *, rngs: nnx.Rngs):
        self.norm = ChannelNorm(width)
        taps = jax.random.normal(rngs.params(), (3, 3, width)) / 3
        self.taps = nnx.Param(taps, axes=(None, None, "conv_in"))
        zeros = nnx.initializers.zeros
        self.out = Conv(width, width, 1, kernel_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x_BhwW: Float[Array, "B H2 W2 W"]) -> Float[Array, "B H2 W2 W"]:
        """What to add to `x_BhwW`."""
        height, width = x_BhwW.shape[1:3]
        padded = jnp.pad(self.norm(x_BhwW), ((0, 0), (1, 1), (1, 1), (0, 0)))
        taps = self.taps[...].astype(padded.dtype)
        # Nine shifted products: XLA's depthwise convolution is many times slower on a CPU.
        mixed = jnp.zeros_like(x_BhwW)
        for i in range(3):
            for j in range(3):
                shifted = padded[:, i : i + height, j : j + width]
                mixed += shifted * taps[i, j][None, None, None]
        return self.out(mixed)


class ChannelNorm(nnx.Module):
    """Divides each position by the root mean square of its channels, in fp32.

    GroupNorm averages over positions too: one far patch would then change every code.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-6):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(channels), axes=(None,))

    def __call__(self, x: Float[Array, "B H2 W2 W"]) -> Float[Array, "B H2 W2 W"]:
        """Normalised `x`, in its dtype."""
        x_fp32 = x.astype(jnp.float32)
        square = jnp.mean(jnp.square(x_fp32), axis=-1, keepdims=True)
        normed = x_fp32 * jax.lax.rsqrt(square + self.epsilon)
        return (normed * self.scale[...][None, None, None]).astype(x.dtype)


def to_patches(x_BHWC: Float[Array, "B H W C"], side: int) -> Float[Array, "B H2 W2 D"]:
    """Cuts images into squares of `side` pixels, in raster order."""
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // side, width // side, -1)


def to_image(patches_BhwD: Float[Array, "B H2 W2 D"], side: int) -> Float[Array, "B H W C"]:
    """The inverse of `to_patches`."""
    batch, height, width, _ = patches_BhwD.shape
    x = patches_BhwD.reshape(batch, height, width, side, side, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * side, width * side, -1)
