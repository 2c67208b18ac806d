"""What a SegGPT is, before any array exists."""

import dataclasses
import itertools
from typing import Literal

from lvm_jax.errors import UserError
from lvm_jax.models.towers.checks import check_choices, check_grid, check_sizes


@dataclasses.dataclass(frozen=True)
class SegGptConfig:
    """Shape of a SegGPT, in Hugging Face's names, and how to compute it.

    The defaults are the published ones (Wang et al., arXiv 2304.03284; Painter, arXiv 2212.02499, section 3).

    Attributes:
      image_size: height and width of a column, which is a prompt above its query, in pixels.
      patch_size: side of a patch.
      num_channels: of an image.
      hidden_size: width D of the blocks.
      mlp_dim: width F of their MLPs.
      num_hidden_layers: blocks.
      num_attention_heads: heads; they divide hidden_size.
      pretrain_image_size: side of the square whose positions are learned; those of a column are interpolated.
      merge_index: block, from 0, after which the streams of pictures and of masks become their mean.
      intermediate_hidden_state_indices: blocks whose outputs the head reads, in rising order; none before the merge.
      decoder_hidden_size: channels of the head.
      beta: of the smooth L1 loss: smaller errors count by their square.
      layer_norm_eps: added to the variance of a norm.
      initializer_range: standard deviation of every matrix at initialisation.
      dtype: of activations and products; parameters, norms, softmax and the last convolution are fp32.
      scan_layers: compile one block and loop over it; the parameters are the same.
      remat: what the backward pass recomputes: nothing, all of a block, or all but its products with weights.
      attention: "auto", or a key of `lvm_jax.models.attention.attend.IMPLEMENTATIONS`.
    """

    image_size: tuple[int, int] = (896, 448)
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 1024
    mlp_dim: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    pretrain_image_size: int = 224
    merge_index: int = 2
    intermediate_hidden_state_indices: tuple[int, ...] = (5, 11, 17, 23)
    decoder_hidden_size: int = 64
    beta: float = 0.01
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: Literal["none", "full", "dots"] = "dots"
    attention: Literal["auto", "xla", "chunked", "splash", "cudnn"] = "auto"

    def __post_init__(self) -> None:
        names = ("hidden_size", "mlp_dim", "num_hidden_layers", "num_attention_heads")
        names += ("num_channels", "decoder_hidden_size")
        sizes = {name: vars(self)[name] for name in names}
        check_sizes(sizes, self.hidden_size, self.num_attention_heads)
        check_grid(self.image_size, self.patch_size)
        check_grid((self.pretrain_image_size, self.pretrain_image_size), self.patch_size)
        check_choices(self)
        if self.grid[0] % 2:
            raise UserError(
                f"image_size={self.image_size} has {self.grid[0]} rows of patches: a prompt and its query need as many "
                "each, so an even number"
            )
        read = self.intermediate_hidden_state_indices
        rising = all(a < b for a, b in itertools.pairwise(read))
        if not read or not rising or not 0 <= self.merge_index <= read[0]:
            raise UserError(
                f"intermediate_hidden_state_indices={read}, merge_index={self.merge_index}: name blocks in rising "
                "order, none before the merge"
            )
        if read[-1] >= self.num_hidden_layers:
            raise UserError(
                f"intermediate_hidden_state_indices={read} names block {read[-1]}: num_hidden_layers="
                f"{self.num_hidden_layers} blocks count from 0"
            )
        if self.beta <= 0:
            raise UserError(f"beta={self.beta}: it must be above 0")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a column."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size
