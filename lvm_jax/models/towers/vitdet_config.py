"""What a ViTDet tower is, before any array exists: its configuration, its size, its cost."""

import dataclasses
import math
from typing import Literal

from lvm_jax.errors import UserError
from lvm_jax.models.towers.checks import check_choices, check_grid, check_sizes

MERGE_SIDE = 3  # of the kernels of the merging convolutions, and of the neck's second


@dataclasses.dataclass(frozen=True)
class VitDetConfig:
    """Shape of a tower, in Hugging Face's names where they exist, and how to compute it.

    The defaults are the tower of Vary (arXiv 2312.06109, section 3.2.1): SAM's ViT-B and two convolutions.

    Attributes:
      image_size: height and width of the images, in pixels.
      patch_size: side of a patch.
      num_channels: of an image.
      hidden_size: width D of the blocks.
      mlp_dim: width F of the MLPs.
      num_hidden_layers: blocks.
      num_attention_heads: heads; they divide hidden_size.
      window_size: side, in patches, of the windows that most blocks attend within.
      global_attn_indexes: blocks, from 0, that attend over the whole grid.
      output_channels: of the neck.
      merge_channels: output channels of the convolutions behind the neck; the last is the width of a token.
      merge_strides: (rows, columns) of each: by how much it thins the grid.
      layer_norm_eps: added to the variance of the blocks' norms; the neck's have 1e-6.
      initializer_range: standard deviation of the blocks' matrices at initialisation.
      dtype: of activations and products; parameters, norms and softmax are fp32.
      scan_layers: compile one period of the blocks and loop over it, instead of compiling all blocks; the parameters
        are the same.
      remat: what the backward pass recomputes: nothing, all of a period, or all but its products with weights.
      attention: "auto", or a key of `lvm_jax.models.attention.attend.IMPLEMENTATIONS`.
    """

    image_size: tuple[int, int] = (1024, 1024)
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 768
    mlp_dim: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    window_size: int = 14
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    output_channels: int = 256
    merge_channels: tuple[int, ...] = (512, 1024)
    merge_strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2))
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: Literal["none", "full", "dots"] = "dots"
    attention: Literal["auto", "xla", "chunked", "splash", "cudnn"] = "auto"

    def __post_init__(self) -> None:
        sizes = {
            "num_channels": self.num_channels,
            "hidden_size": self.hidden_size,
            "mlp_dim": self.mlp_dim,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "window_size": self.window_size,
            "output_channels": self.output_channels,
        }
        check_sizes(sizes, self.hidden_size, self.num_attention_heads)
        check_grid(self.image_size, self.patch_size)
        check_choices(self)
        outside = [i for i in self.global_attn_indexes if not 0 <= i < self.num_hidden_layers]
        if outside:
            raise UserError(
                f"global_attn_indexes={self.global_attn_indexes} names block {outside[0]}: "
                f"num_hidden_layers={self.num_hidden_layers} blocks count from 0"
            )
        self._check_merge()

    def _check_merge(self) -> None:
        if len(self.merge_channels) != len(self.merge_strides):
            raise UserError(
                f"merge_channels={self.merge_channels} and merge_strides={self.merge_strides}: give one of each for "
                "every convolution"
            )
        if any(channels < 1 for channels in self.merge_channels) or any(
            step < 1 for strides in self.merge_strides for step in strides
        ):
            raise UserError(
                f"merge_channels={self.merge_channels}, merge_strides={self.merge_strides}: all must be at least 1"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of tokens, after the merging convolutions."""
        return self.grids[-1]

    @property
    def grids(self) -> list[tuple[int, int]]:
        """The grid behind the neck, and behind each merging convolution."""
        grids = [self.grid]
        for down, right in self.merge_strides:
            rows, columns = grids[-1]
            grids.append((-(-rows // down), -(-columns // right)))
        return grids

    @property
    def tokens_per_image(self) -> int:
        """N, tokens an image."""
        return math.prod(self.token_grid)

    @property
    def token_width(self) -> int:
        """D of a token."""
        return (self.output_channels, *self.merge_channels)[-1]

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of each block's windows; 0: it attends over the whole grid."""
        return tuple(
            0 if i in self.global_attn_indexes else self.window_size
            for i in range(self.num_hidden_layers)
        )

    @property
    def period(self) -> int:
        """Blocks after which the kinds of blocks repeat: 3 in SAM's ViT-B."""
        windows = self.windows
        return next(
            size
            for size in range(1, len(windows) + 1)
            if len(windows) % size == 0 and windows == windows[:size] * (len(windows) // size)
        )


def forward_flops(config: VitDetConfig) -> float:
    """Floating-point operations of one image's forward pass; a multiply-add is 2. Training takes three times as many.

    Matrix products and convolutions as in the plain implementation of attention: the padding of windows is counted,
    and the further features that a bias costs the kernels are not.
    """
    h, w = config.grid
    D, F, S = config.hidden_size, config.mlp_dim, config.window_size
    pixels = config.patch_size**2 * config.num_channels
    total = 2.0 * h * w * pixels * D
    for window in config.windows:
        P, Q = (S, S) if window else (h, w)
        tokens = -(-h // P) * -(-w // Q) * P * Q
        # Four projections; scores and weighted values; relative positions of rows and columns.
        total += tokens * (8 * D * D + 4 * P * Q * D + 2 * (P + Q) * D)
        total += 4.0 * h * w * D * F
    channels = (config.output_channels, *config.merge_channels)
    total += 2.0 * h * w * channels[0] * (D + MERGE_SIDE**2 * channels[0])
    for inputs, outputs, (rows, columns) in zip(channels, channels[1:], config.grids[1:]):
        total += 2.0 * rows * columns * MERGE_SIDE**2 * inputs * outputs
    return total
