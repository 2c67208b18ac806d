"""Folders of GPT-2: pre-norm LayerNorm, GELU by its tanh, learned positions, a tied head.

Its matrices are Conv1D's, stored (inputs, outputs), and one tensor `c_attn` holds queries, keys and values.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.hf_family import Family, Place, named


def _conv1d(name: str, inputs: int = 1) -> Place:
    return Place(f"{name}.weight", inputs=inputs, transposed=False)


def _fused(piece: int) -> tuple[Place, Place]:
    """The weight and the bias of queries, keys or values in c_attn."""
    return (
        Place("attn.c_attn.weight", inputs=1, transposed=False, piece=piece, pieces=3),
        Place("attn.c_attn.bias", piece=piece, pieces=3),
    )


def _read(fields: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    del fields, where
    hidden = values.get("hidden_size")
    # n_inner is null in the published folders, which means four times the width.
    return (
        {} if "intermediate_size" in values or hidden is None else {"intermediate_size": 4 * hidden}
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    del config  # all of it is in `fields`
    return {}


_QUERY, _KEY, _VALUE = (_fused(piece) for piece in range(3))

GPT2 = Family(
    name="GPT-2",
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    structure={
        "norm": "layer",
        "positions": "learned",
        "position_offset": 0,
        "mlps": ("gelu_tanh",),
        "qkv_bias": True,
        "dense_bias": True,
        "attention_head_dim": 0,
    },
    grouped=False,
    fields={
        **named("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"),
        **named("initializer_range", "tie_word_embeddings"),
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "rms_norm_eps": "layer_norm_epsilon",
        "dropout": "resid_pdrop",
        "embedding_dropout": "embd_pdrop",
        "attention_dropout": "attn_pdrop",
    },
    defaults={
        **dict.fromkeys(("dropout", "embedding_dropout", "attention_dropout"), 0.1),
        "tie_word_embeddings": True,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
    },
    fixed={
        "activation_function": "gelu_new",
        "add_cross_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    },
    special=(),
    ignored=(
        *("n_ctx", "reorder_and_upcast_attn", "summary_activation"),
        *("summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
    ),
    read=_read,
    write=_write,
    prefixes=("transformer.", ""),
    embedding="wte.weight",
    top={
        "positions.table": Place("wpe.weight"),
        "norm.scale": Place("ln_f.weight"),
        "norm.bias": Place("ln_f.bias"),
    },
    layer="h.{}.",
    block={
        "attention_norm.scale": Place("ln_1.weight"),
        "attention_norm.bias": Place("ln_1.bias"),
        "attention.query": _QUERY[0],
        "attention.query_bias": _QUERY[1],
        "attention.key": _KEY[0],
        "attention.key_bias": _KEY[1],
        "attention.value": _VALUE[0],
        "attention.value_bias": _VALUE[1],
        "attention.out": _conv1d("attn.c_proj", inputs=2),
        "attention.out_bias": Place("attn.c_proj.bias"),
        "mlp_norm.scale": Place("ln_2.weight"),
        "mlp_norm.bias": Place("ln_2.bias"),
        "mlp.up": _conv1d("mlp.c_fc"),
        "mlp.up_bias": Place("mlp.c_fc.bias"),
        "mlp.down": _conv1d("mlp.c_proj"),
        "mlp.down_bias": Place("mlp.c_proj.bias"),
    },
    # Causal masks of older exports.
    no_parameters=(".attn.bias", ".attn.masked_bias"),
)
