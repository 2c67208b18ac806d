"""Networks that fill a canvas, by name: the published ones, and small ones for pools of 32 pixels and 64 codes."""

from typing import Any

from lvm_jax.models.canvas.mae_vqgan_config import MaeVqganConfig
from lvm_jax.models.canvas.seggpt_config import SegGptConfig
from lvm_jax.models.presets.overrides import entry

# Published: MAE-VQGAN is ViT-L with MAE's decoder (arXiv 2209.00647), SegGPT is ViT-L too (arXiv 2304.03284).
_MAE_VQGAN: dict[str, dict[str, Any]] = {
    "debug": {
        "image_size": (32, 32),
        "patch_size": 8,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "decoder_hidden_size": 16,
        "decoder_intermediate_size": 24,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "codes": 24,
        "initializer_range": 0.1,
    },
    "quickstart": {
        "image_size": (64, 64),
        "patch_size": 4,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "decoder_hidden_size": 128,
        "decoder_intermediate_size": 512,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
        "codes": 512,
        "initializer_range": 0.08,  # about 1/sqrt(128), as in `vitdet("lines")`
    },
    "published": {},
}
_SEGGPT: dict[str, dict[str, Any]] = {
    "debug": {
        "image_size": (32, 16),
        "patch_size": 8,
        "hidden_size": 16,
        "mlp_dim": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "pretrain_image_size": 16,
        "merge_index": 0,
        "intermediate_hidden_state_indices": (1, 2),
        "decoder_hidden_size": 8,
        "initializer_range": 0.1,
    },
    "quickstart": {
        "image_size": (64, 32),
        "patch_size": 4,
        "hidden_size": 128,
        "mlp_dim": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "pretrain_image_size": 32,
        "merge_index": 1,
        "intermediate_hidden_state_indices": (2, 3, 4, 5),
        "decoder_hidden_size": 16,
        "initializer_range": 0.08,
    },
    "published": {},
}


def mae_vqgan(name: str, **overrides: Any) -> MaeVqganConfig:
    """The MAE-VQGAN `name`: debug, quickstart, published. Published: 329,370,624 parameters, its tokenizer apart.

    Args:
      name: a key of the table.
      **overrides: fields of `MaeVqganConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    preset = entry("MAE-VQGAN", name, _MAE_VQGAN, MaeVqganConfig, overrides)
    return MaeVqganConfig(**{**preset, **overrides})


def seggpt(name: str, **overrides: Any) -> SegGptConfig:
    """The SegGPT `name`: debug, quickstart, published. Published: 370,723,203 parameters.

    Args:
      name: a key of the table.
      **overrides: fields of `SegGptConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    preset = entry("SegGPT", name, _SEGGPT, SegGptConfig, overrides)
    return SegGptConfig(**{**preset, **overrides})
