"""Every published size by name, as explicit tables."""

from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import LlamaConfig
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig

# Ids beyond the codes in the published vocabulary of 8292: BOS, EOS, PAD, and 97 that nothing uses.
RESERVED_IDS = 100

# The sizes of the official LVM code (EasyLM/models/llama/llama_model.py); 300m, 600m, 1b and 3b are the paper's
# Table 2. `quickstart` and `small` are this project's own: they train on two CPU cores.
_LLAMA: dict[str, dict[str, Any]] = {
    "debug": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "100m": {
        "hidden_size": 640,
        "intermediate_size": 1664,
        "num_hidden_layers": 22,
        "num_attention_heads": 10,
    },
    "300m": {
        "hidden_size": 1024,
        "intermediate_size": 2688,
        "num_hidden_layers": 22,
        "num_attention_heads": 8,
    },
    "600m": {
        "hidden_size": 1536,
        "intermediate_size": 4096,
        "num_hidden_layers": 22,
        "num_attention_heads": 16,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 5504,
        "num_hidden_layers": 22,
        "num_attention_heads": 16,
    },
    "3b": {
        "hidden_size": 3200,
        "intermediate_size": 8640,
        "num_hidden_layers": 26,
        "num_attention_heads": 32,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "13b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "20b": {
        "hidden_size": 6144,
        "intermediate_size": 16128,
        "num_hidden_layers": 46,
        "num_attention_heads": 48,
    },
    "30b": {
        "hidden_size": 6656,
        "intermediate_size": 17920,
        "num_hidden_layers": 60,
        "num_attention_heads": 52,
    },
    "quickstart": {
        "vocab_size": 512 + RESERVED_IDS,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        # 0.02 suits thousands of columns; 1/sqrt(128) lets so narrow a model attend from the first steps on.
        "initializer_range": 0.08,
        "rope_theta": 1000.0,  # wavelengths for rows of 512 tokens, not of thousands
    },
    "small": {
        "vocab_size": 1024 + RESERVED_IDS,
        "hidden_size": 160,
        "intermediate_size": 320,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.08,
        "rope_theta": 1000.0,
    },
}


def llama(name: str, **overrides: Any) -> LlamaConfig:
    """The decoder `name`: debug, 100m, 300m, 600m, 1b, 3b, 7b, 13b, 20b, 30b, quickstart, small.

    Args:
      name: a key of the table.
      **overrides: fields of `LlamaConfig` that replace the preset's. BOS, EOS and PAD follow `vocab_size`
        (the ids right after its codes) unless they are given too.

    Raises:
      UserError: an unknown preset or field.
    """
    if name not in _LLAMA:
        raise UserError(f"decoder preset {name!r} does not exist; known: {', '.join(_LLAMA)}")
    unknown = sorted(set(overrides) - set(LlamaConfig.__dataclass_fields__))
    if unknown:
        raise UserError(
            f"decoder preset {name!r} has no field {unknown[0]!r}; known: {', '.join(LlamaConfig.__dataclass_fields__)}"
        )
    fields: dict[str, Any] = {"vocab_size": 8192 + RESERVED_IDS, **_LLAMA[name], **overrides}
    codes = fields["vocab_size"] - RESERVED_IDS
    special = {"bos_token_id": codes, "eos_token_id": codes + 1, "pad_token_id": codes + 2}
    if "num_attention_heads" in overrides or "num_key_value_heads" not in overrides:
        fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    return LlamaConfig(**{**special, **fields})


# `lvm-f16-8192` is the released tokenizer (and open-muse's vqgan-f16-8192-laion), `maskgit-f16-8192` the paper-era one,
# `taming-f16-1024` taming-transformers' on ImageNet. `quickstart` and `small` are our own, for two CPU cores.
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
    # Pooling and depth to space spend few FLOPs at full resolution; codes of 4 dimensions on the sphere stay in use.
    "quickstart": {
        **_NO_ATTENTION,
        "architecture": "maskgit",
        "resolution": 32,
        "hidden_channels": 16,
        "channel_mult": (1, 2, 4),
        "num_res_blocks": 1,
        "z_channels": 4,
        "num_embeddings": 512,
        "quantized_embed_dim": 4,
        "pixel_range": "-1_1",
        "l2_normalize": True,
        "norm_groups": 4,
    },
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
}


def vqgan(name: str, **overrides: Any) -> VQGANConfig:
    """The tokenizer `name`: lvm-f16-8192, maskgit-f16-8192, taming-f16-1024, debug, quickstart, small.

    Args:
      name: a key of the table.
      **overrides: fields of `VQGANConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    if name not in _VQGAN:
        raise UserError(f"tokenizer preset {name!r} does not exist; known: {', '.join(_VQGAN)}")
    known = VQGANConfig.__dataclass_fields__
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise UserError(
            f"tokenizer preset {name!r} has no field {unknown[0]!r}; known: {', '.join(known)}"
        )
    return VQGANConfig(**{**_VQGAN[name], **overrides})
