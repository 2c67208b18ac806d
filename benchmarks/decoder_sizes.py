"""The decoders that benchmarks train on CPU cores: all presets, and sizes between them and `100m`."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.models import presets
from lvm_jax.models.decoder.config import DecoderConfig

# Of `small`, grown.
_MORE: Mapping[str, dict[str, Any]] = {
    "15m": {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
    }
}
# What our small decoders have, and LLaMA has not.
_PLAIN = {"qk_norm": False, "place_embeddings": False, "look_back": 0, "tokens_per_image": 0}


def decoder(name: str, *, plain: bool = False, **overrides: Any) -> DecoderConfig:
    """A preset of `presets.llama`, or "15m".

    Args:
      name: of the size.
      plain: only what transformers' LlamaForCausalLM has too.
      **overrides: fields of `DecoderConfig`.

    Raises:
      UserError: no such size or field.
    """
    preset, grown = ("small", _MORE[name]) if name in _MORE else (name, {})
    return presets.llama(preset, **{**grown, **(_PLAIN if plain else {}), **overrides})
