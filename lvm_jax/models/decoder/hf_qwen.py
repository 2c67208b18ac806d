"""Folders of the first Qwen (Bai et al., arXiv 2309.16609), which are only read: we write its decoders as Qwen2.

Queries, keys and values are one tensor, and of the MLP's two halves w2 is the gate. Beyond `seq_length` tokens Qwen
scales rotary wavelengths and attention in evaluation; up to there it is Qwen2.
"""

import math
from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.hf_family import Family, Place, named
from lvm_jax.models.decoder.hf_llama import QWEN2


def _read(fields: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    both, theta = fields.get("intermediate_size"), fields.get("rotary_emb_base", 10000)
    if not isinstance(both, int) or both < 2 or both % 2:
        raise UserError(
            f"{where} has intermediate_size={both!r}: it must be an even number, of both halves of the MLP"
        )
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < math.inf:
        raise UserError(f"{where} has rotary_emb_base={theta!r}: it must be a number above 0")
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    channels = fields.get("kv_channels")
    if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int)):
        raise UserError(f"{where} has kv_channels={channels!r}: it must be a whole number")
    if channels is not None and heads and hidden and channels * heads != hidden:
        raise UserError(
            f"{where} has kv_channels={channels}, {heads} heads and hidden_size={hidden}: heads must make up the width"
        )
    return {"intermediate_size": both // 2, "rope_theta": float(theta)}


def _write(config: DecoderConfig) -> dict[str, Any]:
    raise UserError(f"a decoder of {config.hidden_size} columns is saved as Qwen2, never as Qwen")


QWEN = Family(
    name="Qwen",
    model_type="qwen",
    architecture="QWenLMHeadModel",
    structure=QWEN2.structure,
    grouped=False,
    fields={
        **named(
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "initializer_range",
            "tie_word_embeddings",
        ),
        "rms_norm_eps": "layer_norm_epsilon",
        "max_position_embeddings": "seq_length",
    },
    # config.json names no special ids: those of its tokenizer for the end of a text.
    defaults={"bos_token_id": 151643, "eos_token_id": 151643, "max_position_embeddings": 8192},
    fixed={
        "no_bias": True,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "emb_dropout_prob": 0.0,
        "attn_dropout_prob": 0.0,
    },
    special=("intermediate_size", "rotary_emb_base", "kv_channels"),
    ignored=(
        *("max_position_embeddings", "use_dynamic_ntk", "use_logn_attn", "use_flash_attn"),
        *("bf16", "fp16", "fp32", "onnx_safe", "softmax_in_fp32"),
        *("use_cache_quantization", "use_cache_kernel"),
    ),
    read=_read,
    write=_write,
    prefixes=("transformer.",),
    embedding="wte.weight",
    top={"norm.scale": Place("ln_f.weight")},
    layer="h.{}.",
    block={
        "attention_norm.scale": Place("ln_1.weight"),
        **{
            f"attention.{name}": Place("attn.c_attn.weight", inputs=1, piece=piece, pieces=3)
            for piece, name in enumerate(("query", "key", "value"))
        },
        **{
            f"attention.{name}_bias": Place("attn.c_attn.bias", piece=piece, pieces=3)
            for piece, name in enumerate(("query", "key", "value"))
        },
        "attention.out": Place("attn.c_proj.weight", inputs=2),
        "mlp_norm.scale": Place("ln_2.weight"),
        "mlp.gate": Place("mlp.w2.weight", inputs=1),
        "mlp.up": Place("mlp.w1.weight", inputs=1),
        "mlp.down": Place("mlp.c_proj.weight", inputs=1),
    },
    no_parameters=(".rotary_emb.inv_freq",),
)
