"""What a MAE-VQGAN is, before any array exists."""

import dataclasses
from typing import Literal

from lvm_jax.errors import UserError
from lvm_jax.models.towers.checks import check_choices, check_grid, check_sizes


@dataclasses.dataclass(frozen=True)
class MaeVqganConfig:
    """Shape of a MAE-VQGAN, in Hugging Face's names where they exist, and how to compute it.

    The defaults are the published ones (Bar et al., arXiv 2209.00647, section 3.2): MAE's ViT-L/16 over codes.

    Attributes:
      image_size: height and width of the canvas, in pixels.
      patch_size: side of a patch; one patch has one code.
      num_channels: of an image.
      hidden_size: width D of the encoder.
      intermediate_size: width F of its MLPs.
      num_hidden_layers: its blocks.
      num_attention_heads: its heads; they divide hidden_size.
      decoder_hidden_size: the same four of the decoder.
      decoder_intermediate_size: see above.
      decoder_num_hidden_layers: see above.
      decoder_num_attention_heads: see above.
      codes: K, of the image tokenizer.
      layer_norm_eps: added to the variance of a norm.
      initializer_range: standard deviation of every matrix at initialisation.
      dtype: of activations and products; parameters, norms, softmax and logits are fp32.
      scan_layers: compile one block and loop over it; the parameters are the same.
      remat: what the backward pass recomputes: nothing, all of a block, or all but its products with weights.
      attention: "auto", or a key of `lvm_jax.models.attention.attend.IMPLEMENTATIONS`.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    decoder_hidden_size: int = 512
    decoder_intermediate_size: int = 2048
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    codes: int = 1024
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: Literal["none", "full", "dots"] = "dots"
    attention: Literal["auto", "xla", "chunked", "splash", "cudnn"] = "auto"

    def __post_init__(self) -> None:
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        names += tuple(f"decoder_{name}" for name in names)
        sizes = {name: vars(self)[name] for name in (*names, "num_channels", "codes")}
        check_sizes(sizes, self.hidden_size, self.num_attention_heads)
        check_grid(self.image_size, self.patch_size)
        check_choices(self)
        if self.decoder_hidden_size % self.decoder_num_attention_heads:
            raise UserError(
                f"decoder_num_attention_heads={self.decoder_num_attention_heads} must divide decoder_hidden_size="
                f"{self.decoder_hidden_size}"
            )
        for name in ("hidden_size", "decoder_hidden_size"):
            if vars(self)[name] % 4:
                raise UserError(
                    f"{name}={vars(self)[name]} must be a multiple of 4: positions are sines and cosines of rows and "
                    "columns"
                )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size
