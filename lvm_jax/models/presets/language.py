"""Text decoders by name, in the shapes of OPT, GPT-2, Qwen and Vicuna; vocabulary and positions can be overridden."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.presets.overrides import entry

# What all sizes of a family share.
_OPT: dict[str, Any] = {
    "vocab_size": 50272,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "max_position_embeddings": 2048,
    "position_offset": 2,
    "rms_norm_eps": 1e-5,
    "mlps": ("relu",),
}
_GPT2: dict[str, Any] = {
    "vocab_size": 50257,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "pad_token_id": 50256,  # GPT-2 has none; EOS will do, since padding has no loss
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "mlps": ("gelu_tanh",),
}
_BOTH: dict[str, Any] = {
    "norm": "layer",
    "positions": "learned",
    "qkv_bias": True,
    "dense_bias": True,
    "tie_word_embeddings": True,
}

# (layers, width, heads), from OPT's Table 1 (arXiv 2205.01068), without 350m, which normalises after each layer, and
# from GPT-2's Table 2.
_OPT_SIZES = {
    "debug": (2, 128, 4),
    "125m": (12, 768, 12),
    "1.3b": (24, 2048, 32),
    "2.7b": (32, 2560, 32),
    "6.7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
}
_GPT2_SIZES = {
    "debug": (2, 128, 4),
    "small": (12, 768, 12),
    "medium": (24, 1024, 16),
    "large": (36, 1280, 20),
    "xl": (48, 1600, 25),
}

# What the rotary families share. Qwen's vocabulary has 151,851 ids, those of pictures behind it, and padding.
_QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "bos_token_id": 151643,
    "eos_token_id": 151645,  # of a turn; the end of a text is 151643, which also pads
    "pad_token_id": 151643,
    "qkv_bias": True,
}
_VICUNA: dict[str, Any] = {
    "vocab_size": 32000,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
}
# (layers, width, heads, width of the MLP, what else is its own): Qwen-7B and 1.8B (arXiv 2309.16609, Table 1, whose MLP
# is twice as wide because it counts both halves), and the 0.5B of Qwen1.5, GOT-OCR2's.
_QWEN_SIZES: dict[str, tuple[int, int, int, int, dict[str, Any]]] = {
    "debug": (2, 128, 4, 192, {}),
    "0.5b": (
        24,
        1024,
        16,
        2816,
        {"tie_word_embeddings": True, "rope_theta": 1e6, "max_position_embeddings": 32768},
    ),
    "1.8b": (24, 2048, 16, 5504, {"max_position_embeddings": 8192}),
    "7b": (32, 4096, 32, 11008, {"max_position_embeddings": 8192}),
}
_VICUNA_SIZES: dict[str, tuple[int, int, int, int, dict[str, Any]]] = {
    "debug": (2, 128, 4, 192, {}),
    "7b": (32, 4096, 32, 11008, {}),
    "13b": (40, 5120, 40, 13824, {}),
}


def opt(name: str, **overrides: Any) -> DecoderConfig:
    """The OPT decoder `name`: debug, 125m, 1.3b, 2.7b, 6.7b, 13b.

    Args:
      name: a key of the table.
      **overrides: fields of `DecoderConfig` that replace the preset's. Unless given, the MLP's width is four times the
        hidden size, and there are as many key-value heads as query heads.

    Raises:
      UserError: an unknown preset or field.
    """
    return _config("OPT", name, _OPT_SIZES, _OPT, overrides)


def gpt2(name: str, **overrides: Any) -> DecoderConfig:
    """The GPT-2 decoder `name`: debug, small, medium, large, xl.

    All matrices start from one normal distribution. GPT-2's own initialisation scales down those that write to the
    residual stream.

    Args:
      name: a key of the table.
      **overrides: as in `opt`.

    Raises:
      UserError: an unknown preset or field.
    """
    return _config("GPT-2", name, _GPT2_SIZES, _GPT2, overrides)


def qwen(name: str, **overrides: Any) -> DecoderConfig:
    """The Qwen decoder `name`: debug, 0.5b, 1.8b, 7b. A turn ends with EOS.

    Args:
      name: a key of the table.
      **overrides: fields of `DecoderConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    return _rotary("Qwen", name, _QWEN_SIZES, _QWEN, overrides)


def vicuna(name: str, **overrides: Any) -> DecoderConfig:
    """The Vicuna decoder `name`: debug, 7b, 13b. Arguments and errors as in `qwen`."""
    return _rotary("Vicuna", name, _VICUNA_SIZES, _VICUNA, overrides)


def _rotary(
    family: str,
    name: str,
    sizes: Mapping[str, tuple[int, int, int, int, dict[str, Any]]],
    shared: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> DecoderConfig:
    layers, width, heads, mlp, own = entry(family, name, sizes, DecoderConfig, overrides)
    shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    fields: dict[str, Any] = {**shared, **shape, "intermediate_size": mlp, **own, **overrides}
    fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    return DecoderConfig(**fields)


def _config(
    family: str,
    name: str,
    sizes: Mapping[str, tuple[int, int, int]],
    shared: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> DecoderConfig:
    layers, width, heads = entry(family, name, sizes, DecoderConfig, overrides)
    shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    fields: dict[str, Any] = {**_BOTH, **shared, **shape, **overrides}
    fields.setdefault("intermediate_size", 4 * fields["hidden_size"])
    fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    return DecoderConfig(**fields)
