"""Discriminators: networks that tell real from reconstructed images.

  patch  PatchGAN (arXiv 1611.07004): logits of overlapping patches. As in taming-transformers, but with GroupNorm
         instead of BatchNorm: batch statistics would mix real with reconstructed images, need a running state, and
         change with the number of devices.
  style  the residual network of StyleGAN2 (arXiv 1912.04958, section 4) with a blur before each halving, against which
         MaskGIT (arXiv 2202.04200) trains its tokenizer: one logit an image.

Shape suffixes: B batch, H W image, H2 W2 patches or halved sides, C channels in, C2 channels out.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.vqgan_layers import Conv, GroupNorm

Discriminator = Callable[[Float[Array, "B H W C"]], Float[Array, "B H2 W2"]]


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """The shape of a discriminator.

    Attributes:
      hidden_channels: width of the first layer; each further layer doubles it, up to 8x.
      n_layers: for "patch", strided layers: with 3 a patch sees 70 pixels a side, with 2 it sees 34. For "style",
        halvings.
      num_channels: image channels.
      norm_groups: groups of each GroupNorm of "patch"; 0: no normalisation.
      kind: which network.
    """

    hidden_channels: int = 64
    n_layers: int = 3
    num_channels: int = 3
    norm_groups: int = 32
    kind: Literal["patch", "style"] = "patch"

    def __post_init__(self):
        if self.n_layers < 1:
            raise UserError(f"n_layers is {self.n_layers}: the discriminator needs at least 1")
        if (
            self.kind == "patch"
            and self.norm_groups
            and (2 * self.hidden_channels) % self.norm_groups
        ):
            raise UserError(
                f"norm_groups {self.norm_groups} does not divide the width "
                f"{2 * self.hidden_channels} of the discriminator's second layer"
            )

    @property
    def widths(self) -> list[int]:
        """Channels after each layer, including the first."""
        return [self.hidden_channels * min(2**i, 8) for i in range(self.n_layers + 1)]


def make_discriminator(
    config: DiscriminatorConfig, resolution: int, *, rngs: nnx.Rngs
) -> "PatchDiscriminator | StyleDiscriminator":
    """The network of `config.kind`, for square images of `resolution`.

    Raises:
      UserError: the images are too small for so many layers.
    """
    if config.kind == "patch":
        # Each of the two convolutions behind the strided ones takes a row and a column.
        if resolution >> config.n_layers < 3:
            raise UserError(
                f"n_layers is {config.n_layers}: the discriminator has no patch in {resolution} pixels, and needs "
                f"{3 << config.n_layers}; lower it"
            )
        return PatchDiscriminator(config, rngs=rngs)
    return StyleDiscriminator(config, resolution, rngs=rngs)


class PatchDiscriminator(nnx.Module):
    """Maps images to grids of logits; positive means real."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        widths = config.widths
        strides = [2] * config.n_layers + [1]
        padding = ((1, 1), (1, 1))
        inputs = [config.num_channels, *widths[:-1]]
        self.convs = nnx.List()
        self.norms = nnx.List()
        for i, (channels, width, stride) in enumerate(zip(inputs, widths, strides)):
            normed = i > 0 and config.norm_groups > 0
            self.convs.append(
                Conv(
                    channels,
                    width,
                    4,
                    stride=stride,
                    padding=padding,
                    use_bias=not normed,
                    rngs=rngs,
                )
            )
            if normed:
                self.norms.append(GroupNorm(width, config.norm_groups))
        self.conv_out = Conv(widths[-1], 1, 4, padding=padding, rngs=rngs)

    def __call__(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2"]:
        """fp32 logits of overlapping patches of images in [0, 1]."""
        x = 2 * images_BHWC.astype(jnp.float32) - 1
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if i > 0 and self.norms:
                x = self.norms[i - 1](x)
            x = jax.nn.leaky_relu(x, 0.2)
        return self.conv_out(x)[..., 0]


class StyleDiscriminator(nnx.Module):
    """Maps images to one logit each; positive means real. It has no normalisation, which suits R1.

    Raises:
      UserError: `resolution` does not halve `n_layers` times.
    """

    def __init__(self, config: DiscriminatorConfig, resolution: int, *, rngs: nnx.Rngs):
        side = resolution >> config.n_layers
        if side << config.n_layers != resolution or side < 1:
            raise UserError(
                f"n_layers is {config.n_layers}: the discriminator cannot halve {resolution} pixels that often; "
                "lower it"
            )
        widths = config.widths
        self.conv_in = Conv(config.num_channels, widths[0], 3, rngs=rngs)
        self.blocks = nnx.List(
            [_StyleBlock(a, b, rngs=rngs) for a, b in itertools.pairwise(widths)]
        )
        self.conv_out = Conv(widths[-1], widths[-1], 3, rngs=rngs)
        padding = ((0, 0), (0, 0))
        self.hidden = Conv(widths[-1], widths[-1], side, padding=padding, rngs=rngs)
        self.logit = Conv(widths[-1], 1, 1, rngs=rngs)

    def __call__(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B 1 1"]:
        """fp32 logits of images in [0, 1]."""
        x = _activate(self.conv_in(2 * images_BHWC.astype(jnp.float32) - 1))
        for block in self.blocks:
            x = block(x)
        # `hidden` is a convolution as large as its input: a dense layer over all positions.
        return self.logit(_activate(self.hidden(_activate(self.conv_out(x)))))[..., 0]


class _StyleBlock(nnx.Module):
    """Two convolutions and a halving, plus a shortcut that halves too."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv1 = Conv(inputs, inputs, 3, rngs=rngs)
        self.conv2 = Conv(inputs, outputs, 3, rngs=rngs)
        self.shortcut = Conv(inputs, outputs, 1, use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
        h = halve_blurred(_activate(self.conv2(_activate(self.conv1(x)))))
        return (h + self.shortcut(halve_blurred(x))) * 0.5**0.5  # two branches: keeps the variance


def halve_blurred(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """Halves the side after a binomial blur (1 3 3 1 in both directions), to avoid aliasing."""
    channels = x.shape[-1]
    taps = np.array([1, 3, 3, 1], np.float32) / 8
    kernel = jnp.asarray(
        np.broadcast_to(np.outer(taps, taps)[..., None, None], (4, 4, 1, channels))
    )
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def _activate(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.nn.leaky_relu(x, 0.2)
