"""PatchGAN: a small network that tells real from reconstructed patches (arXiv 1611.07004).

As in taming-transformers, with GroupNorm in place of BatchNorm: statistics of a batch would mix
real with reconstructed images, need a running state, and change with the number of devices.

Shape suffixes: B batch, H W image, h w patches, C channels.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.errors import UserError
from lvm_jax.models.vqgan_layers import Conv, GroupNorm


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """The shape of a PatchGAN.

    Attributes:
      hidden_channels: width of the first layer; each further one doubles it, up to 8x.
      n_layers: strided layers; patches see 70 pixels a side at 3, 34 at 2.
      num_channels: image channels.
      norm_groups: groups of each GroupNorm; 0 leaves normalisation out.
    """

    hidden_channels: int = 64
    n_layers: int = 3
    num_channels: int = 3
    norm_groups: int = 32

    def __post_init__(self):
        if self.n_layers < 1:
            raise UserError(f"n_layers is {self.n_layers}: the discriminator needs at least 1")
        if self.norm_groups and (2 * self.hidden_channels) % self.norm_groups:
            raise UserError(
                f"norm_groups {self.norm_groups} does not divide the width "
                f"{2 * self.hidden_channels} of the discriminator's second layer"
            )


class PatchDiscriminator(nnx.Module):
    """Images to a map of logits, positive for real."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        widths = [config.hidden_channels * min(2**i, 8) for i in range(config.n_layers + 1)]
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

    def __call__(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B h w"]:
        """Logits of overlapping patches of images in [0, 1], fp32."""
        x = 2 * images_BHWC.astype(jnp.float32) - 1
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if i > 0 and self.norms:
                x = self.norms[i - 1](x)
            x = jax.nn.leaky_relu(x, 0.2)
        return self.conv_out(x)[..., 0]
