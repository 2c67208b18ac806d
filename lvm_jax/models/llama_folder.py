"""The decoder's folder: Hugging Face's LLaMA layout, so transformers and vLLM open what is saved here.

Projections are stored (out, in), layer by layer, and the vocabulary tables without their padding. Query and key columns
need no permutation: `rope` pairs dimensions as Hugging Face does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.models.llama_config import LlamaConfig
from lvm_jax.models.pretrained import (
    CONFIG_FILE,
    check_tensors,
    read_config,
    read_tensors,
    save_folder,
)

# Parameter of a block -> tensor of a layer `model.layers.{i}.`, and how many of its dimensions are inputs.
_BLOCK = {
    "attention_norm.scale": ("input_layernorm", 0),
    "attention.query": ("self_attn.q_proj", 1),
    "attention.key": ("self_attn.k_proj", 1),
    "attention.value": ("self_attn.v_proj", 1),
    "attention.out": ("self_attn.o_proj", 2),
    "mlp_norm.scale": ("post_attention_layernorm", 0),
    "mlp.gate": ("mlp.gate_proj", 1),
    "mlp.up": ("mlp.up_proj", 1),
    "mlp.down": ("mlp.down_proj", 1),
}
_EMBEDDING, _NORM, _HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"

# Fields that config.json has under the same name.
_SHARED = (
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
_COMPUTE = ("dtype", "scan_layers", "remat", "attention")


def save(
    directory: epath.PathLike,
    config: LlamaConfig,
    tensors: Mapping[str, np.ndarray],
    dtype: str = "float32",
) -> None:
    """Writes the folder.

    Args:
      directory: made if missing.
      config: the decoder.
      tensors: its parameters by dotted path, block parameters stacked over layers.
      dtype: of the tensors.
    """
    fields = config_to_json(config) | {"torch_dtype": dtype}
    save_folder(directory, fields, to_hugging_face(config, tensors))


def load_config(directory: epath.PathLike, **overrides: Any) -> LlamaConfig:
    """The configuration of a LLaMA folder.

    Args:
      directory: holds config.json.
      **overrides: fields about how to compute: dtype, scan_layers, remat, attention; they are not stored.

    Raises:
      UserError: no such file, another kind of model, or a variant of LLaMA that the decoder does not have.
    """
    return config_from_json(read_config(directory), f"{directory}/{CONFIG_FILE}", **overrides)


def load_tensors(directory: epath.PathLike, config: LlamaConfig) -> dict[str, np.ndarray]:
    """The parameters of a LLaMA folder by this project's paths, stacked and padded.

    Raises:
      UserError: a file is missing or damaged; names every tensor that is missing, extra or misshapen.
    """
    return from_hugging_face(config, read_tensors(directory), str(directory))


def config_to_json(config: LlamaConfig) -> dict[str, Any]:
    """The contents of config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: getattr(config, name) for name in _SHARED},
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "rope_theta": config.rope_theta,
        "torch_dtype": "float32",
    }


def config_from_json(fields: Mapping[str, Any], where: str, **overrides: Any) -> LlamaConfig:
    """A configuration from the contents of a config.json; see `load_config`."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    required = {
        "model_type": (fields.get("model_type"), "llama"),
        "hidden_act": (fields.get("hidden_act", "silu"), "silu"),
        "attention_bias": (fields.get("attention_bias", False), False),
        "mlp_bias": (fields.get("mlp_bias", False), False),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
    }
    for name, (value, supported) in required.items():
        if value != supported:
            raise UserError(f"{where} has {name}={value!r}: Llama supports {supported!r} only")
    unknown = sorted(set(overrides) - set(_COMPUTE))
    if unknown:
        raise UserError(
            f"{unknown[0]!r} cannot be changed on loading: only {', '.join(_COMPUTE)} can"
        )
    values = {name: fields[name] for name in _SHARED if fields.get(name) is not None}
    values.setdefault("num_key_value_heads", values.get("num_attention_heads"))
    values.setdefault(
        "pad_token_id", values.get("eos_token_id")
    )  # transformers' own convention for a model without
    for name in _SHARED[:9]:
        if not isinstance(values.get(name), int):
            raise UserError(f"{where} has {name}={values.get(name)!r}: it must be an integer")
    values["rope_theta"] = float(rope.get("rope_theta", fields.get("rope_theta", 10000.0)))
    config = LlamaConfig(**values, **overrides)
    if fields.get("head_dim") not in (None, config.head_dim):
        raise UserError(
            f"{where} has head_dim={fields['head_dim']}: Llama supports hidden_size / num_attention_heads = "
            f"{config.head_dim} only"
        )
    return config


def to_hugging_face(
    config: LlamaConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Renames, unstacks, transposes and cuts; the values stay as they are."""
    rows = config.vocab_size
    named = {_EMBEDDING: tensors["embedding"][:rows], _NORM: tensors["norm.scale"]}
    if not config.tie_word_embeddings:
        named[_HEAD] = tensors["head"][:, :rows].T
    for path, (name, inputs) in _BLOCK.items():
        for layer, tensor in enumerate(tensors[f"layers.{path}"]):
            if inputs:
                tensor = tensor.reshape(int(np.prod(tensor.shape[:inputs])), -1).T
            named[f"model.layers.{layer}.{name}.weight"] = tensor
    return named


def from_hugging_face(
    config: LlamaConfig, tensors: Mapping[str, np.ndarray], where: str
) -> dict[str, np.ndarray]:
    """The inverse of `to_hugging_face`.

    Raises:
      UserError: see `check_tensors`.
    """
    # Older exports carry each layer's rotary frequencies, which follow from rope_theta, and the head of a tied model.
    derived = {name for name in tensors if name.endswith(".rotary_emb.inv_freq")}
    derived |= {_HEAD} if config.tie_word_embeddings else set()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in derived}
    check_tensors(_shapes(config), tensors, where)
    padding = ((0, config.padded_vocab_size - config.vocab_size), (0, 0))
    paths = {"embedding": np.pad(tensors[_EMBEDDING], padding), "norm.scale": tensors[_NORM]}
    if not config.tie_word_embeddings:
        paths["head"] = np.pad(tensors[_HEAD], padding).T
    for path, (name, inputs) in _BLOCK.items():
        layers = [
            tensors[f"model.layers.{i}.{name}.weight"] for i in range(config.num_hidden_layers)
        ]
        paths[f"layers.{path}"] = (
            np.stack(layers)
            if not inputs
            else np.stack([layer.T.reshape(_block_shapes(config)[path]) for layer in layers])
        )
    return paths


def _block_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    D, F, H = config.hidden_size, config.intermediate_size, config.head_dim
    N, K = config.num_attention_heads, config.num_key_value_heads
    return {
        "attention_norm.scale": (D,),
        "attention.query": (D, N, H),
        "attention.key": (D, K, H),
        "attention.value": (D, K, H),
        "attention.out": (N, H, D),
        "mlp_norm.scale": (D,),
        "mlp.gate": (D, F),
        "mlp.up": (D, F),
        "mlp.down": (F, D),
    }


def _shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the folder."""
    table = (config.vocab_size, config.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {_EMBEDDING: table, _NORM: (config.hidden_size,)}
    if not config.tie_word_embeddings:
        shapes[_HEAD] = table
    block = _block_shapes(config)
    for path, (name, inputs) in _BLOCK.items():
        shape = block[path]
        if inputs:
            shape = (int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs])))
        shapes |= {
            f"model.layers.{i}.{name}.weight": shape for i in range(config.num_hidden_layers)
        }
    return shapes
