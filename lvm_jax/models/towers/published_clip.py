"""Published weights of CLIP's vision tower, as transformers names them, with any prefix or none."""

import math
from collections.abc import Mapping
from typing import Any

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.models.towers.clip_config import ClipVisionConfig
from lvm_jax.models.towers.hf_fields import checked_fields, side
from lvm_jax.models.towers.places import Form, Kernel, Located, Matrix, Same

_PATCHES = "embeddings.patch_embedding.weight"
_PARTS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")

# model_type of config.json -> whether the tower's settings stand in its vision_config.
_DESCRIBED = {"clip": True, "clip_vision_model": False}
_WHOLE = "vary"  # whole models whose config.json says nothing of the tower
_HEAD_DIM = 64  # of every CLIP; no tensor has its shape
_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"),
)
_FIXED = {"attention_dropout": 0.0, "dropout": 0.0}
_IGNORED = ("initializer_range", "initializer_factor", "projection_dim")
# What transformers assumes for settings that config.json leaves out: the tower of ViT-B/32.
_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def config(
    fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str
) -> ClipVisionConfig:
    """The tower's configuration, from config.json or, in whole models of Vary, from the tensors.

    Args:
      fields: the contents of config.json; empty: there is none.
      shapes: of the tensors.
      where: what errors call the folder.

    Raises:
      UserError: it describes no CLIP tower, or a setting is not supported.
    """
    kind = fields.get("model_type")
    if kind == _WHOLE:
        return _from_shapes(find(shapes, where), shapes, where)
    if kind not in _DESCRIBED:
        raise UserError(
            f"{where} has model_type={kind!r} in its config.json: a CLIP tower's is "
            f"{' or '.join(map(repr, _DESCRIBED))}"
        )
    settings = fields.get("vision_config") or {} if _DESCRIBED[kind] else fields
    where = f"{where}/config.json"
    values = {**_DEFAULTS, **checked_fields(settings, _FIELDS, _FIXED, _IGNORED, where)}
    values["image_size"] = side(values["image_size"], "image_size", where)
    rows, columns = side(values["patch_size"], "patch_size", where)
    if rows != columns:
        raise UserError(f"{where} has patch_size={(rows, columns)}: patches must be square")
    return from_mapping(ClipVisionConfig, values | {"patch_size": rows}, where)


def _from_shapes(
    prefix: str, shapes: Mapping[str, tuple[int, ...]], where: str
) -> ClipVisionConfig:
    layer = f"{prefix}encoder.layers.{{}}.mlp.fc1.weight"
    try:
        width, channels, patch, _ = shapes[f"{prefix}{_PATCHES}"]
        positions, _ = shapes[f"{prefix}embeddings.position_embedding.weight"]
        mlp, _ = shapes[layer.format(0)]
    except (KeyError, ValueError) as error:
        raise UserError(f"{where} is no whole CLIP tower ({error}): download it again") from error
    side = patch * math.isqrt(positions - 1)
    layers = 0
    while layer.format(layers) in shapes:
        layers += 1
    return ClipVisionConfig(
        image_size=(side, side),
        patch_size=patch,
        num_channels=channels,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=width // _HEAD_DIM,
    )


def find(shapes: Mapping[str, Any], where: str) -> str:
    """The prefix of the tower's tensors: "vision_model." in released checkpoints, or longer, or nothing.

    Raises:
      UserError: there is no tower, or there are several.
    """
    found = [tensor.removesuffix(_PATCHES) for tensor in shapes if tensor.endswith(_PATCHES)]
    if len(found) != 1:
        raise UserError(
            f"{where} holds {len(found)} CLIP towers: one tensor must be named {_PATCHES}, after any prefix"
        )
    return found[0]


def belongs(prefix: str, tensor: str) -> bool:
    """Whether a tensor is a parameter of the tower. Older exports also store its numbers of positions."""
    inside = tensor.startswith(prefix) and tensor.removeprefix(prefix).startswith(_PARTS)
    return inside and not tensor.endswith("position_ids")


def places(config: ClipVisionConfig, prefix: str) -> dict[str, Located]:
    """Our parameter -> its place."""
    top: dict[str, tuple[Form, str]] = {
        "patches.kernel": (Kernel(), _PATCHES),
        "cls": (Same(), "embeddings.class_embedding"),
        "positions": (Same(), "embeddings.position_embedding.weight"),
        "pre_norm.scale": (Same(), "pre_layrnorm.weight"),
        "pre_norm.bias": (Same(), "pre_layrnorm.bias"),
        "post_norm.scale": (Same(), "post_layernorm.weight"),
        "post_norm.bias": (Same(), "post_layernorm.bias"),
    }
    located = {ours: Located(form, (prefix + name,)) for ours, (form, name) in top.items()}
    for ours, (form, name) in _block().items():
        tensors = tuple(
            f"{prefix}encoder.layers.{i}.{name}" for i in range(config.num_hidden_layers)
        )
        located[f"layers.{ours}"] = Located(form, tensors, stacked=True)
    return located


def _block() -> dict[str, tuple[Form, str]]:
    """A block's parameters."""
    block: dict[str, tuple[Form, str]] = {
        "attention_norm.scale": (Same(), "layer_norm1.weight"),
        "attention_norm.bias": (Same(), "layer_norm1.bias"),
        "attention.out.kernel": (Matrix(2), "self_attn.out_proj.weight"),
        "attention.out.bias": (Matrix(0), "self_attn.out_proj.bias"),
        "mlp_norm.scale": (Same(), "layer_norm2.weight"),
        "mlp_norm.bias": (Same(), "layer_norm2.bias"),
        "mlp.up.kernel": (Matrix(1), "mlp.fc1.weight"),
        "mlp.up.bias": (Matrix(0), "mlp.fc1.bias"),
        "mlp.down.kernel": (Matrix(1), "mlp.fc2.weight"),
        "mlp.down.bias": (Matrix(0), "mlp.fc2.bias"),
    }
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        block[f"attention.{ours}.kernel"] = (Matrix(1), f"self_attn.{theirs}.weight")
        block[f"attention.{ours}.bias"] = (Matrix(0), f"self_attn.{theirs}.bias")
    return block
