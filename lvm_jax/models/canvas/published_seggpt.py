"""Folders of transformers' SegGptForImageSegmentation, such as BAAI/seggpt-vit-large."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.models.canvas.seggpt_config import SegGptConfig
from lvm_jax.models.towers.hf_fields import checked_fields, side
from lvm_jax.models.towers.places import Form, Kernel, Located, Matrix, OneOf, Same
from lvm_jax.models.towers.published_vitdet import grid_block

_FIELDS = (
    *("hidden_size", "mlp_dim", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("image_size", "patch_size", "pretrain_image_size", "layer_norm_eps", "beta"),
    *("merge_index", "intermediate_hidden_state_indices", "decoder_hidden_size"),
)
_FIXED = {
    "hidden_act": "gelu",
    "qkv_bias": True,
    "use_relative_position_embeddings": True,
    "num_channels": 3,  # the head paints three, whatever goes in
}
_IGNORED = ("initializer_range", "drop_path_rate", "hidden_dropout_prob")  # of training


def config(fields: Mapping[str, Any], where: str) -> SegGptConfig:
    """The configuration of a folder.

    Args:
      fields: of config.json.
      where: what errors call the folder.

    Raises:
      UserError: another kind of model, or a setting that is not supported.
    """
    if fields.get("model_type") != "seggpt":
        raise UserError(
            f"{where}/config.json has model_type={fields.get('model_type')!r}: expected 'lvm_seggpt' or 'seggpt'"
        )
    where = f"{where}/config.json"
    values = checked_fields(fields, _FIELDS, _FIXED, _IGNORED, where)
    if "image_size" in values:
        values["image_size"] = side(values["image_size"], "image_size", where)
    for name in ("patch_size", "pretrain_image_size"):
        if name not in values:
            continue
        rows, columns = side(values[name], name, where)
        if rows != columns:
            raise UserError(f"{where} has {name}={(rows, columns)}: it must be square")
        values[name] = rows
    if isinstance(width := values.get("hidden_size"), int):
        values.setdefault("mlp_dim", 4 * width)
    return from_mapping(SegGptConfig, values, where)


def places(config: SegGptConfig) -> dict[str, Located]:
    """Our parameter -> its place."""
    inside, head = "model.embeddings", "decoder.decoder_pred"
    top: dict[str, tuple[Form, str]] = {
        "patches.kernel": (Kernel(), f"{inside}.patch_embeddings.projection.weight"),
        "patches.bias": (Same(), f"{inside}.patch_embeddings.projection.bias"),
        "hidden": (OneOf(3), f"{inside}.mask_token"),
        "of_pictures": (OneOf(3), f"{inside}.segment_token_input"),
        "of_masks": (OneOf(3), f"{inside}.segment_token_prompt"),
        "semantic": (OneOf(3), f"{inside}.type_token_semantic"),
        "instance": (OneOf(3), f"{inside}.type_token_instance"),
        "positions": (OneOf(), f"{inside}.position_embeddings"),
        "norm.scale": (Same(), "model.encoder.layernorm.weight"),
        "norm.bias": (Same(), "model.encoder.layernorm.bias"),
        "head.spread.kernel": (Matrix(1), "decoder.decoder_embed.weight"),
        "head.spread.bias": (Matrix(0), "decoder.decoder_embed.bias"),
        "head.conv.kernel": (Kernel(), f"{head}.conv.weight"),
        "head.conv.bias": (Same(), f"{head}.conv.bias"),
        "head.norm.scale": (Same(), f"{head}.layernorm.weight"),
        "head.norm.bias": (Same(), f"{head}.layernorm.bias"),
        "head.out.kernel": (Kernel(), f"{head}.head.weight"),
        "head.out.bias": (Same(), f"{head}.head.bias"),
    }
    found = {ours: Located(form, (name,)) for ours, (form, name) in top.items()}
    block = grid_block(("layernorm_before", "layernorm_after"), "attention")
    for ours, (form, name) in block.items():
        layers = range(config.num_hidden_layers)
        tensors = tuple(f"model.encoder.layers.{i}.{name}" for i in layers)
        found[f"layers.{ours}"] = Located(form, tensors, stacked=True)
    return found
