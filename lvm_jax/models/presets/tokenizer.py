"""Tokenizers by name: the released ones, and our own for two CPU cores."""

from typing import Any

from lvm_jax.models.presets.overrides import entry
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig

# `lvm-f16-8192` is the released tokenizer (and open-muse's vqgan-f16-8192-laion), `maskgit-f16-8192` the paper-era one,
# `taming-f16-1024` taming-transformers' for ImageNet. The others are our own, for two CPU cores: `small` is a VQGAN,
# `quickstart` and `patches` quantise patch by patch.
_NO_ATTENTION: dict[str, Any] = {"attn_resolutions": (), "no_attn_mid_block": True}
_VQGAN: dict[str, dict[str, Any]] = {
    "lvm-f16-8192": {
        **_NO_ATTENTION,
        "channel_mult": (1, 2, 2, 4, 6),
        "z_channels": 64,
        "num_embeddings": 8192,
        "quantized_embed_dim": 64,
    },
    "maskgit-f16-8192": {
        **_NO_ATTENTION,
        "architecture": "maskgit",
        "channel_mult": (1, 1, 2, 2, 4),
        "z_channels": 32,
        "num_embeddings": 8192,
        "quantized_embed_dim": 32,
    },
    "taming-f16-1024": {
        "channel_mult": (1, 1, 2, 2, 4),
        "attn_resolutions": (16,),
        "z_channels": 256,
        "num_embeddings": 1024,
        "quantized_embed_dim": 256,
        "pixel_range": "-1_1",
    },
    "debug": {
        **_NO_ATTENTION,
        "resolution": 16,
        "hidden_channels": 8,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "z_channels": 8,
        "num_embeddings": 32,
        "quantized_embed_dim": 4,
        "norm_groups": 4,
    },
    # Codes that depend on their own patch alone: k-means finds them in seconds, and a small decoder can foretell them.
    "quickstart": {
        **_NO_ATTENTION,
        "architecture": "patches",
        "resolution": 32,
        "hidden_channels": 96,
        "channel_mult": (1, 1, 1),
        "num_res_blocks": 3,
        "z_channels": 48,
        "num_embeddings": 512,
        "quantized_embed_dim": 48,
        "pixel_range": "-1_1",
    },
    # Pooling and depth to space take few FLOPs at full resolution, and codes of 8 dimensions on the sphere stay in use.
    "small": {
        **_NO_ATTENTION,
        "architecture": "maskgit",
        "resolution": 64,
        "hidden_channels": 16,
        "channel_mult": (1, 2, 4, 8),
        "num_res_blocks": 1,
        "z_channels": 8,
        "num_embeddings": 1024,
        "quantized_embed_dim": 8,
        "pixel_range": "-1_1",
        "l2_normalize": True,
        "norm_groups": 4,
    },
    "patches": {
        **_NO_ATTENTION,
        "architecture": "patches",
        "resolution": 64,
        "hidden_channels": 192,
        "channel_mult": (1, 1, 1, 1),
        "num_res_blocks": 4,
        "z_channels": 192,
        "num_embeddings": 1024,
        "quantized_embed_dim": 192,
        "pixel_range": "-1_1",
    },
}


def vqgan(name: str, **overrides: Any) -> VQGANConfig:
    """The tokenizer `name`: lvm-f16-8192, maskgit-f16-8192, taming-f16-1024, debug, quickstart, small, patches.

    Args:
      name: a key of the table.
      **overrides: fields of `VQGANConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    preset = entry("tokenizer", name, _VQGAN, VQGANConfig, overrides)
    return VQGANConfig(**{**preset, **overrides})
