"""What a CLIP vision tower is, before any array exists: its configuration and its cost."""

import dataclasses
from typing import Literal

from lvm_jax.errors import UserError
from lvm_jax.models.towers.checks import check_choices, check_grid, check_sizes


@dataclasses.dataclass(frozen=True)
class ClipVisionConfig:
    """Shape of a tower, in Hugging Face's names, and how to compute it. The defaults are those of ViT-L/14.

    Attributes:
      image_size: height and width of the images, in pixels.
      patch_size: side of a patch.
      num_channels: of an image.
      hidden_size: width D of the blocks, and of a token.
      intermediate_size: width F of the MLPs.
      num_hidden_layers: blocks.
      num_attention_heads: heads; they divide hidden_size.
      hidden_act: activation of the MLPs; OpenAI's towers have quick_gelu.
      feature_layer: whose output the tokens are, counted from the last as in Python: -1 is the last block, -2 the one
        before, as in Vary and LLaVA.
      layer_norm_eps: added to the variance of a norm.
      initializer_range: standard deviation of every matrix at initialisation.
      dtype: of activations and products; parameters, norms and softmax are fp32.
      scan_layers: compile one block and loop over it; the parameters are the same.
      remat: what the backward pass recomputes: nothing, all of a block, or all but its products with weights.
      attention: "auto", or a key of `lvm_jax.models.attention.attend.IMPLEMENTATIONS`.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 14
    num_channels: int = 3
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    feature_layer: int = -2
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: Literal["none", "full", "dots"] = "dots"
    attention: Literal["auto", "xla", "chunked", "splash", "cudnn"] = "auto"

    def __post_init__(self) -> None:
        sizes = {
            "num_channels": self.num_channels,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
        }
        check_sizes(sizes, self.hidden_size, self.num_attention_heads)
        check_grid(self.image_size, self.patch_size)
        check_choices(self)
        if self.hidden_act not in ("quick_gelu", "gelu"):
            raise UserError(
                f"hidden_act={self.hidden_act!r} does not exist; known: quick_gelu, gelu"
            )
        if not -self.num_hidden_layers <= self.feature_layer <= -1:
            raise UserError(
                f"feature_layer={self.feature_layer}: blocks count from -1, the last, to "
                f"-{self.num_hidden_layers}, the first"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def tokens_per_image(self) -> int:
        """N, tokens an image, without CLS."""
        return self.grid[0] * self.grid[1]

    @property
    def feature_blocks(self) -> int:
        """How many blocks the tokens have gone through."""
        return self.num_hidden_layers + 1 + self.feature_layer


def forward_flops(config: ClipVisionConfig) -> float:
    """Floating-point operations of one image's tokens; a multiply-add is 2. Training takes three times as many."""
    D, N = config.hidden_size, config.tokens_per_image
    T = N + 1
    patches = 2.0 * N * config.patch_size**2 * config.num_channels * D
    block = 8.0 * T * D * D + 4.0 * T * T * D + 4.0 * T * D * config.intermediate_size
    return patches + config.feature_blocks * block
