"""Folders of transformers' ViTMAEForPreTraining: masked autoencoders, here with a head over codes."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.models.canvas.mae_vqgan_config import MaeVqganConfig
from lvm_jax.models.towers.hf_fields import checked_fields, side
from lvm_jax.models.towers.places import Form, Kernel, Located, Matrix, OneOf, Same

Shapes = Mapping[str, tuple[int, ...]]

_HEAD = "decoder.decoder_pred"
_OF_BLOCKS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_FIELDS = (
    *_OF_BLOCKS,
    *(f"decoder_{name}" for name in _OF_BLOCKS),
    *("image_size", "patch_size", "num_channels", "layer_norm_eps"),
)
_FIXED = {"hidden_act": "gelu", "qkv_bias": True}
# What transformers assumes for settings that config.json leaves out: the encoder of ViT-B/16.
_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "decoder_hidden_size": 512,
    "decoder_intermediate_size": 2048,
    "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "layer_norm_eps": 1e-12,
}
# Of training: what is dropped, which share is hidden, and how pixels are scaled, of which there are none.
_IGNORED = (
    *("initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("mask_ratio", "norm_pix_loss"),
)


def config(fields: Mapping[str, Any], shapes: Shapes, where: str) -> MaeVqganConfig:
    """The configuration of a folder.

    Args:
      fields: of config.json.
      shapes: of the tensors; they tell the number of codes.
      where: what errors call the folder.

    Raises:
      UserError: another kind of model, a setting that is not supported, or a head over pixels.
    """
    if fields.get("model_type") != "vit_mae":
        raise UserError(
            f"{where}/config.json has model_type={fields.get('model_type')!r}: expected 'mae_vqgan' or 'vit_mae'"
        )
    described = f"{where}/config.json"
    values = {**_DEFAULTS, **checked_fields(fields, _FIELDS, _FIXED, _IGNORED, described)}
    values["image_size"] = side(values["image_size"], "image_size", described)
    if (weight := shapes.get(f"{_HEAD}.weight")) is None:
        raise UserError(f"{where} has no tensor {_HEAD}.weight: it must hold a decoder too")
    values["codes"] = weight[0]
    found = from_mapping(MaeVqganConfig, values, described)
    if found.codes == found.patch_size**2 * found.num_channels:
        raise UserError(
            f"{where}: {_HEAD} has {found.codes} outputs, the pixels of a patch: MAE-VQGAN needs a head over codes"
        )
    return found


def belongs(tensor: str) -> bool:
    """Whether a tensor is a parameter; positions follow from a formula."""
    return not tensor.endswith(("position_embeddings", "decoder_pos_embed"))


def places(config: MaeVqganConfig) -> dict[str, Located]:
    """Our parameter -> its place."""
    top: dict[str, tuple[Form, str]] = {
        "patches.kernel": (Kernel(), "vit.embeddings.patch_embeddings.projection.weight"),
        "patches.bias": (Same(), "vit.embeddings.patch_embeddings.projection.bias"),
        "cls": (OneOf(2), "vit.embeddings.cls_token"),
        "norm.scale": (Same(), "vit.layernorm.weight"),
        "norm.bias": (Same(), "vit.layernorm.bias"),
        "narrow.kernel": (Matrix(1), "decoder.decoder_embed.weight"),
        "narrow.bias": (Matrix(0), "decoder.decoder_embed.bias"),
        "hidden": (OneOf(2), "decoder.mask_token"),
        "decoder_norm.scale": (Same(), "decoder.decoder_norm.weight"),
        "decoder_norm.bias": (Same(), "decoder.decoder_norm.bias"),
        "head.kernel": (Matrix(1), f"{_HEAD}.weight"),
        "head.bias": (Matrix(0), f"{_HEAD}.bias"),
    }
    found = {ours: Located(form, (name,)) for ours, (form, name) in top.items()}
    stacks = (
        ("layers", "vit.encoder.layer", config.num_hidden_layers),
        ("decoder_layers", "decoder.decoder_encoder.layer", config.decoder_num_hidden_layers),
    )
    for ours, theirs, count in stacks:
        for name, (form, tensor) in _block().items():
            tensors = tuple(f"{theirs}.{i}.{tensor}" for i in range(count))
            found[f"{ours}.{name}"] = Located(form, tensors, stacked=True)
    return found


def _block() -> dict[str, tuple[Form, str]]:
    """A block's parameters."""
    norms = {"attention_norm": "layernorm_before", "mlp_norm": "layernorm_after"}
    matrices = {
        **{
            f"attention.{name}": f"attention.attention.{name}" for name in ("query", "key", "value")
        },
        "attention.out": "attention.output.dense",
        "mlp.up": "intermediate.dense",
        "mlp.down": "output.dense",
    }
    places: dict[str, tuple[Form, str]] = {}
    for ours, theirs in norms.items():
        places |= {f"{ours}.scale": (Same(), f"{theirs}.weight")}
        places |= {f"{ours}.bias": (Same(), f"{theirs}.bias")}
    for ours, theirs in matrices.items():
        inputs = 2 if ours == "attention.out" else 1
        places |= {f"{ours}.kernel": (Matrix(inputs), f"{theirs}.weight")}
        places |= {f"{ours}.bias": (Matrix(0), f"{theirs}.bias")}
    return places
