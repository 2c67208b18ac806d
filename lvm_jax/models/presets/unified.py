"""The decoder of unified in-context understanding (arXiv 2312.02520, Table 5), and its small variants."""

from typing import Any

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.presets.language import gpt2
from lvm_jax.models.presets.overrides import entry
from lvm_jax.vocabulary import Vocabulary

# `published` is GPT-2 small with experts in every second layer; its 2,060 positions are four pairs of 515 tokens.
# `quickstart` and `small` are for two CPU cores.
_UNIFIED: dict[str, dict[str, Any]] = {
    "debug": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    },
    "quickstart": {
        "num_hidden_layers": 4,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "max_position_embeddings": 640,
    },
    "small": {
        "num_hidden_layers": 6,
        "hidden_size": 192,
        "num_attention_heads": 6,
        "max_position_embeddings": 640,
    },
    "published": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "max_position_embeddings": 2060,
    },
}
_SHARED: dict[str, Any] = {
    "rms_norm_eps": 1e-12,
    "mlps": ("gelu_tanh", "moe"),
    "dropout": 0.1,
    "embedding_dropout": 0.1,
    "attention_dropout": 0.1,
    # Of the implementations only the plain one drops weights.
    "attention": "xla",
}


def unified(name: str, vocabulary: Vocabulary, **overrides: Any) -> DecoderConfig:
    """The decoder `name`: debug, quickstart, small, published.

    324,407,808 parameters with `Vocabulary.unified()`; 325,179,648 with its boxes; 50,688 more with the attribute
    router. The paper leaves open how many experts a token uses: 2, as in Uni-Perceiver-MoE (arXiv 2206.04674).

    Args:
      name: a key of the table.
      vocabulary: from `Vocabulary.unified`.
      **overrides: fields of `DecoderConfig` that replace the preset's, such as `moe`.

    Raises:
      UserError: an unknown preset or field.
    """
    preset = entry("unified", name, _UNIFIED, DecoderConfig, overrides)
    ids = {
        "vocab_size": vocabulary.size,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    fields = {**_SHARED, **ids, **preset, **overrides}
    fields.setdefault("intermediate_size", 4 * fields["hidden_size"])
    fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    return gpt2("small", **fields)
