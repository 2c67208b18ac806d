"""Folders of OPT (Zhang et al., arXiv 2205.01068): pre-norm LayerNorm, ReLU, learned positions from row 2 on.

Projections are stored (outputs, inputs), and all have biases. OPT-350m is refused: it normalises after each layer and
embeds into another width.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.hf_family import Family, Place, named


def _read(fields: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    width, hidden = fields.get("word_embed_proj_dim"), values.get("hidden_size")
    if width not in (None, hidden):
        raise UserError(
            f"{where} has word_embed_proj_dim={width} and hidden_size={hidden}: OPT supports equal widths only"
        )
    return {}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {"word_embed_proj_dim": config.hidden_size}


OPT = Family(
    name="OPT",
    model_type="opt",
    architecture="OPTForCausalLM",
    structure={
        "norm": "layer",
        "rms_norm_eps": 1e-5,  # config.json has no setting for it
        "positions": "learned",
        "position_offset": 2,
        "mlps": ("relu",),
        "qkv_bias": True,
        "dense_bias": True,
        "attention_head_dim": 0,
    },
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
            "max_position_embeddings",
            "tie_word_embeddings",
            "dropout",
            "attention_dropout",
        ),
        "intermediate_size": "ffn_dim",
        "initializer_range": "init_std",
    },
    defaults={"tie_word_embeddings": True, "dropout": 0.1, "max_position_embeddings": 2048},
    fixed={
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "layerdrop": 0.0,
    },
    special=("word_embed_proj_dim",),
    ignored=("activation_dropout",),
    read=_read,
    write=_write,
    prefixes=("model.decoder.", "decoder."),
    embedding="embed_tokens.weight",
    top={
        "positions.table": Place("embed_positions.weight"),
        "norm.scale": Place("final_layer_norm.weight"),
        "norm.bias": Place("final_layer_norm.bias"),
    },
    layer="layers.{}.",
    block={
        "attention_norm.scale": Place("self_attn_layer_norm.weight"),
        "attention_norm.bias": Place("self_attn_layer_norm.bias"),
        "attention.query": Place("self_attn.q_proj.weight", inputs=1),
        "attention.query_bias": Place("self_attn.q_proj.bias"),
        "attention.key": Place("self_attn.k_proj.weight", inputs=1),
        "attention.key_bias": Place("self_attn.k_proj.bias"),
        "attention.value": Place("self_attn.v_proj.weight", inputs=1),
        "attention.value_bias": Place("self_attn.v_proj.bias"),
        "attention.out": Place("self_attn.out_proj.weight", inputs=2),
        "attention.out_bias": Place("self_attn.out_proj.bias"),
        # A layer's second norm has the same name as the model's final one.
        "mlp_norm.scale": Place("final_layer_norm.weight"),
        "mlp_norm.bias": Place("final_layer_norm.bias"),
        "mlp.up": Place("fc1.weight", inputs=1),
        "mlp.up_bias": Place("fc1.bias"),
        "mlp.down": Place("fc2.weight", inputs=1),
        "mlp.down_bias": Place("fc2.bias"),
    },
)
