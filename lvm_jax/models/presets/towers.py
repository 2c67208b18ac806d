"""Vision towers by name: the published ones, and small ones for tests and two CPU cores."""

from typing import Any

from lvm_jax.models.presets.overrides import entry
from lvm_jax.models.towers.clip_config import ClipVisionConfig
from lvm_jax.models.towers.vitdet_config import VitDetConfig

# `vary` is the tower of Vary (arXiv 2312.06109, section 3.2.1) and of GOT-OCR2; `lines` reads lines of text on two CPU
# cores, `blocks` a few rows of it.
_VITDET: dict[str, dict[str, Any]] = {
    "debug": {
        "image_size": (40, 48),
        "patch_size": 8,
        "hidden_size": 16,
        "mlp_dim": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "window_size": 4,
        "global_attn_indexes": (1, 3),
        "output_channels": 8,
        "merge_channels": (16, 24),
    },
    # Lines are four patches high: the convolutions keep the columns, so that a token sees about one character.
    "lines": {
        "image_size": (32, 128),
        "patch_size": 8,
        "hidden_size": 128,
        "mlp_dim": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "window_size": 4,
        "global_attn_indexes": (1, 2),
        "output_channels": 64,
        "merge_channels": (96, 128),
        "merge_strides": ((2, 1), (2, 1)),
        "initializer_range": 0.08,  # about 1/sqrt(128): 0.02 suits towers of a thousand columns
    },
    # Two rows of tokens for at most three of text, so a token sees at most two characters.
    "blocks": {
        "image_size": (64, 160),
        "patch_size": 8,
        "hidden_size": 128,
        "mlp_dim": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "window_size": 4,
        "global_attn_indexes": (1, 2),
        "output_channels": 64,
        "merge_channels": (96, 128),
        "merge_strides": ((2, 1), (2, 1)),
        "initializer_range": 0.08,
    },
    "vary": {},
}
_CLIP: dict[str, dict[str, Any]] = {
    "debug": {
        "image_size": (16, 24),
        "patch_size": 8,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    },
    "vit-l-14": {},
}


def vitdet(name: str, **overrides: Any) -> VitDetConfig:
    """The tower `name`: debug, lines, blocks, vary.

    Args:
      name: a key of the table.
      **overrides: fields of `VitDetConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    preset = entry("ViTDet", name, _VITDET, VitDetConfig, overrides)
    return VitDetConfig(**{**preset, **overrides})


def clip(name: str, **overrides: Any) -> ClipVisionConfig:
    """The CLIP vision tower `name`: debug, vit-l-14.

    Args:
      name: a key of the table.
      **overrides: fields of `ClipVisionConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    preset = entry("CLIP", name, _CLIP, ClipVisionConfig, overrides)
    return ClipVisionConfig(**{**preset, **overrides})
