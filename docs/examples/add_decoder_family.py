"""A decoder family of your own: StarCoder2, a configuration of the stack and a table of tensor names.

python docs/examples/add_decoder_family.py
"""

import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Decoder, DecoderConfig
from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.config import RopeScaling
from lvm_jax.models.decoder.hf_family import Family, Place, named


# --8<-- [start:family]
def _read(fields: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json says in more than one way: transformers 5 keeps rotary settings in rope_parameters."""
    del values
    rope = fields.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{where} has rope_type={rope['rope_type']!r}: only 'default' is read")
    return {"rope_theta": float(rope.get("rope_theta", fields.get("rope_theta", 10000.0)))}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {"rope_theta": config.rope_theta}


def _linear(ours: str, theirs: str, inputs: int = 1) -> dict[str, Place]:
    """A matrix of torch.nn.Linear, which stores (outputs, inputs), and its bias."""
    return {
        ours: Place(f"{theirs}.weight", inputs=inputs),
        f"{ours}_bias": Place(f"{theirs}.bias"),
    }


def _norm(ours: str, theirs: str) -> dict[str, Place]:
    return {f"{ours}.scale": Place(f"{theirs}.weight"), f"{ours}.bias": Place(f"{theirs}.bias")}


STARCODER2 = Family(
    name="StarCoder2",
    model_type="starcoder2",
    architecture="Starcoder2ForCausalLM",
    # What all its members share. No code asks for a family: these fields choose the modules, and a decoder that differs
    # in one of them is not saved as a member.
    structure={
        "norm": "layer",
        "positions": "rotary",
        "position_offset": 0,
        "rope_scaling": RopeScaling(),  # none: `_write` would lose any other
        "mlps": ("gelu_tanh",),
        "qkv_bias": True,
        "dense_bias": True,
        "attention_head_dim": 0,
    },
    grouped=True,  # fewer key-value heads than query heads
    # Our field -> their setting.
    fields={
        **named("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        **named("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
        **named("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range"),
        **named("tie_word_embeddings", "embedding_dropout", "attention_dropout"),
        "rms_norm_eps": "norm_epsilon",
        "dropout": "residual_dropout",
    },
    # Settings with the one value that the stack computes; any other is refused by name.
    defaults={},
    fixed={"hidden_act": "gelu_pytorch_tanh", "use_bias": True, "sliding_window": None},
    special=("rope_theta", "rope_parameters"),
    ignored=("layer_types",),
    read=_read,
    write=_write,
    prefixes=("model.", ""),
    embedding="embed_tokens.weight",
    top=_norm("norm", "norm"),
    layer="layers.{}.",
    block={
        **_norm("attention_norm", "input_layernorm"),
        **_linear("attention.query", "self_attn.q_proj"),
        **_linear("attention.key", "self_attn.k_proj"),
        **_linear("attention.value", "self_attn.v_proj"),
        **_linear("attention.out", "self_attn.o_proj", inputs=2),  # heads and their dimensions
        **_norm("mlp_norm", "post_attention_layernorm"),
        **_linear("mlp.up", "mlp.c_fc"),
        **_linear("mlp.down", "mlp.c_proj"),
    },
)
# --8<-- [end:family]


# --8<-- [start:use]
def tiny() -> DecoderConfig:
    """A member of the family, small enough for a test."""
    return DecoderConfig(
        vocab_size=120,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        **STARCODER2.structure,
    )


def there_and_back(folder: pathlib.Path, tokens_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a decoder with random weights, and of the same one read back from its folder."""
    decoder = Decoder(tiny(), rngs=nnx.Rngs(0))
    decoder.save_pretrained(folder)
    read = Decoder.from_pretrained(folder)
    return np.asarray(decoder(tokens_BT)), np.asarray(read(tokens_BT))


# --8<-- [end:use]


def main(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """As if the family had its line in `hf_folder.FAMILIES`."""
    tokens_BT = np.random.default_rng(0).integers(3, 120, (2, 9), dtype=np.int32)
    with mock.patch.dict(hf_folder.FAMILIES, {STARCODER2.model_type: STARCODER2}):
        return there_and_back(folder, tokens_BT)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        before, after = main(pathlib.Path(made))
        print(json.loads((pathlib.Path(made) / "config.json").read_text())["architectures"])
        print("largest difference of the logits:", np.abs(before - after).max())
