"""LVM decoders by name: the published sizes, and our own for two CPU cores."""

from typing import Any

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.presets.overrides import entry
from lvm_jax.vocabulary import Vocabulary

# What a small decoder needs to find the same place of another image, with 64 codes in each (docs/notes.md).
_FOR_64_CODES = {
    "qk_norm": True,
    "place_embeddings": True,
    "look_back": 64,
    "tokens_per_image": 64,
}

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
        "vocab_size": Vocabulary.lvm(512).size,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        # 0.02 suits thousands of columns. With about 1/sqrt(128), so narrow a model attends from the first steps on.
        "initializer_range": 0.08,
        "rope_theta": 1000.0,  # wavelengths for rows of 512 tokens, not of thousands
        **_FOR_64_CODES,
    },
    "small": {
        "vocab_size": Vocabulary.lvm(1024).size,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "initializer_range": 0.06,
        "rope_theta": 1000.0,
        **_FOR_64_CODES,
    },
}


def llama(name: str, **overrides: Any) -> DecoderConfig:
    """The decoder `name`: debug, 100m, 300m, 600m, 1b, 3b, 7b, 13b, 20b, 30b, quickstart, small.

    Args:
      name: a key of the table.
      **overrides: fields of `DecoderConfig` that replace the preset's. Unless given, BOS, EOS and PAD follow from
        `vocab_size`: they are the ids right after its codes.

    Raises:
      UserError: an unknown preset or field.
    """
    preset = entry("decoder", name, _LLAMA, DecoderConfig, overrides)
    published = {"vocab_size": Vocabulary.lvm(8192).size}
    fields: dict[str, Any] = {**published, **preset, **overrides}
    fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    if not {"bos_token_id", "eos_token_id", "pad_token_id"} <= set(overrides):
        ids = Vocabulary.lvm_of_size(fields["vocab_size"])
        special = {"bos_token_id": ids.bos, "eos_token_id": ids.eos, "pad_token_id": ids.pad}
        fields = {**special, **fields}
    return DecoderConfig(**fields)
