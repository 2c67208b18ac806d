"""Folders of LLaMA, Qwen2 and Qwen3, which transformers and vLLM open; this project writes its own in this format.

Projections are stored (outputs, inputs). Query and key columns need no permutation, because `rope` pairs dimensions as
Hugging Face does. Qwen2's format is the same, with biases of queries, keys and values; Qwen3's has norms of queries and
keys instead.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig, RopeScaling
from lvm_jax.models.decoder.hf_family import Family, Place, named

_TOP = {"norm.scale": Place("norm.weight")}
_BLOCK = {
    "attention_norm.scale": Place("input_layernorm.weight"),
    "attention.query": Place("self_attn.q_proj.weight", inputs=1),
    "attention.key": Place("self_attn.k_proj.weight", inputs=1),
    "attention.value": Place("self_attn.v_proj.weight", inputs=1),
    "attention.out": Place("self_attn.o_proj.weight", inputs=2),
    "mlp_norm.scale": Place("post_attention_layernorm.weight"),
    "mlp.gate": Place("mlp.gate_proj.weight", inputs=1),
    "mlp.up": Place("mlp.up_proj.weight", inputs=1),
    "mlp.down": Place("mlp.down_proj.weight", inputs=1),
}
_BIASES = {
    "attention.query_bias": Place("self_attn.q_proj.bias"),
    "attention.key_bias": Place("self_attn.k_proj.bias"),
    "attention.value_bias": Place("self_attn.v_proj.bias"),
}
_QK_NORMS = {
    "attention.query_norm.scale": Place("self_attn.q_norm.weight"),
    "attention.key_norm.scale": Place("self_attn.k_norm.weight"),
}
_FIELDS = named(
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "rms_norm_eps",
    "initializer_range",
    "max_position_embeddings",
    "tie_word_embeddings",
)
_STRUCTURE = {
    "norm": "rms",
    "positions": "rotary",
    "position_offset": 0,
    "mlps": ("swiglu",),
    "dense_bias": False,
}


def _read(fields: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    # Rotary settings come in three spellings: flat, in rope_scaling, and (transformers 5) all in rope_parameters.
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    rope = fields.get(name) or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"{where} has {name}={rope!r}: it must be an object")
    rope = {setting: value for setting, value in rope.items() if value is not None}
    theta = rope.get("rope_theta", fields.get("rope_theta", 10000.0))
    found: dict[str, Any] = {
        "rope_theta": _positive(theta, "rope_theta", where),
        "rope_scaling": _rope_scaling(rope, where),
    }
    head_dim, heads = fields.get("head_dim"), values.get("num_attention_heads")
    if head_dim is not None and (not isinstance(head_dim, int) or isinstance(head_dim, bool)):
        raise UserError(f"{where} has head_dim={head_dim!r}: it must be an integer")
    if head_dim and heads and head_dim * heads != values.get("hidden_size"):
        found["attention_head_dim"] = head_dim
    return found


def _positive(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"{where} has {name}={value!r}: it must be a number above 0")
    return float(value)


def _read_qwen3(fields: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    # Its heads have 128 dimensions unless config.json says otherwise, whatever the width.
    return _read({"head_dim": 128, **fields}, values, where)


def _rope_scaling(rope: Mapping[str, Any], where: str) -> RopeScaling:
    kind = rope.get("rope_type", rope.get("type", "default"))
    names = {"default": (), "linear": ("factor",)}
    names["llama3"] = ("factor", "low_freq_factor", "high_freq_factor")
    names["llama3"] += ("original_max_position_embeddings",)
    if kind not in [*names]:  # a list compares with anything, also with what cannot be hashed
        raise UserError(f"{where} has rope_type={kind!r}: Llama supports {', '.join(names)}")
    given = set(rope) - {"rope_type", "type", "rope_theta"}
    if rope.get("partial_rotary_factor") == 1.0:  # all dimensions turn, as they do here
        given.discard("partial_rotary_factor")
    wrong = sorted(given ^ set(names[kind]))
    if wrong:
        problem = "which it does not take" if wrong[0] in given else "which is missing"
        raise UserError(
            f"{where} has rope_type={kind!r} and {wrong[0]}, {problem}: it takes {', '.join(names[kind]) or 'nothing'}"
        )
    if kind == "default":
        return RopeScaling()
    numbers: dict[str, Any] = {name: _positive(rope[name], name, where) for name in names[kind]}
    if kind == "llama3":
        numbers["original_max_position_embeddings"] = int(
            numbers["original_max_position_embeddings"]
        )
    return RopeScaling(rope_type=kind, **numbers)


def _write(config: DecoderConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {"head_dim": config.head_dim, "rope_theta": config.rope_theta}
    scaling = config.rope_scaling
    if scaling.rope_type == "linear":
        fields["rope_scaling"] = {"rope_type": "linear", "factor": scaling.factor}
    elif scaling.rope_type == "llama3":
        fields["rope_scaling"] = dataclasses.asdict(scaling)
    return fields


LLAMA = Family(
    name="Llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    structure={**_STRUCTURE, "qkv_bias": False},
    grouped=True,
    fields=_FIELDS,
    defaults={},
    fixed={
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
    },
    special=("head_dim", "rope_theta", "rope_scaling", "rope_parameters"),
    ignored=("pretraining_tp", "max_sequence_length"),
    read=_read,
    write=_write,
    prefixes=("model.", ""),
    embedding="embed_tokens.weight",
    top=_TOP,
    layer="layers.{}.",
    block=_BLOCK,
    no_parameters=(".rotary_emb.inv_freq",),
)

QWEN2 = dataclasses.replace(
    LLAMA,
    name="Qwen2",
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    structure={**_STRUCTURE, "qkv_bias": True},
    fixed={"hidden_act": "silu", "use_sliding_window": False, "attention_dropout": 0.0},
    # A window's settings mean nothing while use_sliding_window is off.
    ignored=(*LLAMA.ignored, "sliding_window", "max_window_layers", "layer_types"),
    block={**_BLOCK, **_BIASES},
)

QWEN3 = dataclasses.replace(
    QWEN2,
    name="Qwen3",
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    structure={**_STRUCTURE, "qkv_bias": False, "qk_norm": True},
    fixed={**QWEN2.fixed, "attention_bias": False},
    read=_read_qwen3,
    block={**_BLOCK, **_QK_NORMS},
)
