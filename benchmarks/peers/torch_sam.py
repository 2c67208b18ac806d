"""A ViTDet tower in PyTorch: transformers' SAM encoder and convolutions behind it; grids need not be square."""

import json
import pathlib
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from transformers.models.sam.modeling_sam import (  # pyright: ignore[reportMissingImports]
    SamVisionEncoder,
)

# Names of transformers' GotOcr2, which has the same two convolutions.
MERGE = "multi_modal_projector.conv_upsampler{}.weight"


class Tower(nn.Module):
    """`tower(images)`: normalised (B, 3, H, W) -> tokens (B, N, D).

    Args:
      config: fields of our VitDetConfig.
      tensors: by the names of transformers.
    """

    def __init__(self, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        height, width = config["image_size"]
        taken = (
            *("hidden_size", "output_channels", "num_hidden_layers", "num_attention_heads"),
            *("patch_size", "layer_norm_eps", "window_size", "global_attn_indexes", "mlp_dim"),
        )
        shape = {name: config[name] for name in taken} | {"image_size": height}
        attention = {"attn_implementation": "sdpa"}
        self.sam = SamVisionEncoder(transformers.SamVisionConfig(**shape, **attention))
        self.sam.patch_embed.image_size = (height, width)
        strides = enumerate(config["merge_strides"], 1)
        kernels = [(tensors.pop(MERGE.format(i)), tuple(stride)) for i, stride in strides]
        # transformers makes square tables; a grid that is not square has others.
        for name, tensor in tensors.items():
            owner, _, leaf = name.rpartition(".")
            module = self.sam.get_submodule(owner)
            setattr(module, leaf, nn.Parameter(tensor))
        self.merge = nn.Sequential()
        for kernel, stride in kernels:
            out, into = kernel.shape[:2]
            conv = nn.Conv2d(into, out, kernel.shape[2:], stride=stride, padding=1, bias=False)
            conv.weight = nn.Parameter(kernel)
            self.merge.append(conv)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens of normalised images."""
        features = self.sam(images).last_hidden_state
        return self.merge(features).flatten(2).transpose(1, 2)


def load(folder: pathlib.Path) -> Tower:
    """The tower in FOLDER/tower.json and tower.safetensors."""
    config = json.loads((folder / "tower.json").read_text())
    return Tower(config, load_file(folder / "tower.safetensors"))
