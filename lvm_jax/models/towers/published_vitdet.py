"""Published weights of ViTDet towers: SAM's, Vary's, GOT-OCR2's, as their authors or transformers name them.

A checkpoint may hold more than the tower: what stands before the name of the patch embedding is the tower's prefix, and
tensors with another prefix are left alone. Sizes follow from config.json where it describes the tower, and from shapes
elsewhere.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.models.towers.hf_fields import checked_fields, side
from lvm_jax.models.towers.places import Form, Kernel, Located, Matrix, OneOf, Same
from lvm_jax.models.towers.vitdet_config import VitDetConfig

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Names:
    """How one publisher names a tower's tensors.

    Attributes:
      patches: of the patch embedding.
      layer: of a block, with {} for its number.
      norms: of a block's two norms.
      neck: of the neck's two convolutions and two norms.
      merge: of the merging convolutions.
      merge_beside: what takes the place of the prefix's last part before those; None: they have the tower's prefix.
    """

    patches: str
    layer: str
    norms: tuple[str, str]
    neck: tuple[str, str, str, str]
    merge: tuple[str, ...]
    merge_beside: str | None


AUTHORS = Names(
    patches="patch_embed.proj",
    layer="blocks.{}.",
    norms=("norm1", "norm2"),
    neck=("neck.0", "neck.2", "neck.1", "neck.3"),
    merge=("net_2", "net_3"),
    merge_beside=None,
)
TRANSFORMERS = Names(
    patches="patch_embed.projection",
    layer="layers.{}.",
    norms=("layer_norm1", "layer_norm2"),
    neck=("neck.conv1", "neck.conv2", "neck.layer_norm1", "neck.layer_norm2"),
    merge=("conv_upsampler1", "conv_upsampler2"),
    merge_beside="multi_modal_projector.",
)

# model_type of config.json -> whether the tower's settings stand in its vision_config.
_DESCRIBED = {"sam": True, "sam_vision_model": False, "got_ocr2": True, "got_ocr2_vision": False}
_FIELDS = (
    *("hidden_size", "output_channels", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "layer_norm_eps", "window_size"),
    *("global_attn_indexes", "mlp_dim"),
)
_FIXED = {
    "hidden_act": "gelu",
    "qkv_bias": True,
    "use_abs_pos": True,
    "use_rel_pos": True,
    "attention_dropout": 0.0,
}
# Ours has a default of its own; the others are not used by the network, or follow from other settings.
_IGNORED = ("initializer_range", "num_pos_feats", "mlp_ratio", "scale")


@dataclasses.dataclass(frozen=True)
class Format:
    """The names of a checkpoint's tower, and its prefix."""

    names: Names
    prefix: str

    @property
    def merge_prefix(self) -> str:
        """What stands before the merging convolutions."""
        if self.names.merge_beside is None:
            return self.prefix
        outer = self.prefix.rstrip(".").rpartition(".")[0]
        return (f"{outer}." if outer else "") + self.names.merge_beside

    @property
    def merge_tensors(self) -> tuple[str, ...]:
        """The merging convolutions' tensors."""
        return tuple(f"{self.merge_prefix}{name}.weight" for name in self.names.merge)

    def belongs(self, tensor: str) -> bool:
        """Whether a tensor is the tower's."""
        if tensor in self.merge_tensors:
            return True
        first = {name.split(".")[0] for name in (self.names.patches, self.names.layer, "neck")}
        top = tensor.removeprefix(self.prefix).split(".")[0]
        inside = tensor.startswith(self.prefix)
        # Without a prefix, another model's tensors can only be told by their names.
        return inside and (bool(self.prefix) or top in {*first, "pos_embed"})

    def places(self, config: VitDetConfig) -> dict[str, Located]:
        """Our parameter -> its place."""
        names, prefix = self.names, self.prefix
        conv1, conv2, norm1, norm2 = names.neck
        top: dict[str, tuple[Form, str]] = {
            "patches.kernel": (Kernel(), f"{names.patches}.weight"),
            "patches.bias": (Same(), f"{names.patches}.bias"),
            "positions": (OneOf(), "pos_embed"),
            "neck.conv1.kernel": (Kernel(), f"{conv1}.weight"),
            "neck.norm1.scale": (Same(), f"{norm1}.weight"),
            "neck.norm1.bias": (Same(), f"{norm1}.bias"),
            "neck.conv2.kernel": (Kernel(), f"{conv2}.weight"),
            "neck.norm2.scale": (Same(), f"{norm2}.weight"),
            "neck.norm2.bias": (Same(), f"{norm2}.bias"),
        }
        places = {ours: Located(form, (prefix + name,)) for ours, (form, name) in top.items()}
        for index, tensor in enumerate(self.merge_tensors[: len(config.merge_channels)]):
            places[f"merge.convs.{index}.kernel"] = Located(Kernel(), (tensor,))
        for place in range(config.period):
            layers = range(place, config.num_hidden_layers, config.period)
            for ours, (form, name) in grid_block(names.norms, "attn").items():
                tensors = tuple(prefix + names.layer.format(i) + name for i in layers)
                places[f"layers.places.{place}.{ours}"] = Located(form, tensors, stacked=True)
        return places


def grid_block(norms: tuple[str, str], attention: str) -> dict[str, tuple[Form, str]]:
    """The parameters of a block whose attention is over a grid, and the names of their tensors.

    Args:
      norms: what its norms are called, that of attention first.
      attention: what its attention is called.
    """
    norm1, norm2 = norms
    places: dict[str, tuple[Form, str]] = {
        "attention_norm.scale": (Same(), f"{norm1}.weight"),
        "attention_norm.bias": (Same(), f"{norm1}.bias"),
        "attention.inner.out.kernel": (Matrix(2), f"{attention}.proj.weight"),
        "attention.inner.out.bias": (Matrix(0), f"{attention}.proj.bias"),
        "attention.positions.rows": (Same(), f"{attention}.rel_pos_h"),
        "attention.positions.columns": (Same(), f"{attention}.rel_pos_w"),
        "mlp_norm.scale": (Same(), f"{norm2}.weight"),
        "mlp_norm.bias": (Same(), f"{norm2}.bias"),
        "mlp.up.kernel": (Matrix(1), "mlp.lin1.weight"),
        "mlp.up.bias": (Matrix(0), "mlp.lin1.bias"),
        "mlp.down.kernel": (Matrix(1), "mlp.lin2.weight"),
        "mlp.down.bias": (Matrix(0), "mlp.lin2.bias"),
    }
    for piece, ours in enumerate(("query", "key", "value")):
        kernel, bias = Matrix(1, piece, 3), Matrix(0, piece, 3)
        places[f"attention.inner.{ours}.kernel"] = (kernel, f"{attention}.qkv.weight")
        places[f"attention.inner.{ours}.bias"] = (bias, f"{attention}.qkv.bias")
    return places


def find(shapes: Shapes, where: str) -> Format:
    """The tower in a checkpoint.

    Args:
      shapes: of all its tensors.
      where: what errors call it.

    Raises:
      UserError: there is none, or there are several.
    """
    found = [
        Format(names, tensor.removesuffix(f"{names.patches}.weight"))
        for names in (AUTHORS, TRANSFORMERS)
        for tensor in shapes
        if tensor.endswith(f"{names.patches}.weight")
    ]
    if not found:
        raise UserError(
            f"{where} holds no ViTDet tower: no tensor is named {AUTHORS.patches}.weight or "
            f"{TRANSFORMERS.patches}.weight"
        )
    if len(found) > 1:
        prefixes = ", ".join(repr(format.prefix) for format in found)
        raise UserError(
            f"{where} holds {len(found)} towers, {prefixes}: keep one of them in a file"
        )
    return found[0]


def config(format: Format, fields: Mapping[str, Any], shapes: Shapes, where: str) -> VitDetConfig:
    """The tower's configuration.

    Args:
      format: of the checkpoint.
      fields: of config.json; empty: none.
      shapes: of the tensors.
      where: what errors call the checkpoint.

    Raises:
      UserError: a setting is not supported, or shapes are not those of a tower.
    """
    kind = fields.get("model_type")
    if kind in _DESCRIBED:
        settings = fields.get("vision_config") or {} if _DESCRIBED[kind] else fields
        values = _from_json(settings, where)
    else:
        values = _from_shapes(format, shapes, where)
    merge = _merge(format, shapes, values["output_channels"])
    return from_mapping(VitDetConfig, values | merge, where)


def _merge(format: Format, shapes: Shapes, channels: int) -> dict[str, Any]:
    """The merging convolutions' sizes; by default each doubles the channels."""
    found = [shapes[tensor][0] for tensor in format.merge_tensors if tensor in shapes]
    return {"merge_channels": tuple(found) or (2 * channels, 4 * channels)}


def _from_json(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    where = f"{where}/config.json"
    values = checked_fields(settings, _FIELDS, _FIXED, _IGNORED, where)
    defaults = {name: vars(VitDetConfig())[name] for name in _FIELDS}
    ratio, hidden = settings.get("mlp_ratio"), (defaults | values)["hidden_size"]
    if (
        settings.get("mlp_dim") is None
        and isinstance(ratio, int | float)
        and isinstance(hidden, int)
    ):
        values["mlp_dim"] = int(hidden * ratio)
    values = defaults | values
    height, width = side(values["image_size"], "image_size", where)
    values["image_size"] = (height, width)
    rows, columns = side(values["patch_size"], "patch_size", where)
    if rows != columns:
        raise UserError(f"{where} has patch_size={(rows, columns)}: patches must be square")
    return values | {"patch_size": rows}


def _from_shapes(format: Format, shapes: Shapes, where: str) -> dict[str, Any]:
    """Sizes of a tower whose checkpoint describes it by its tensors only."""
    names, prefix = format.names, format.prefix
    layers = 0
    while f"{prefix}{names.layer.format(layers)}attn.qkv.weight" in shapes:
        layers += 1
    try:
        width, channels, patch, _ = shapes[f"{prefix}{names.patches}.weight"]
        _, rows, columns, _ = shapes[f"{prefix}pos_embed"]
        relative = [
            shapes[f"{prefix}{names.layer.format(i)}attn.rel_pos_{axis}"]
            for axis in "hw"
            for i in range(layers)
        ]
        mlp_dim = shapes[f"{prefix}{names.layer.format(0)}mlp.lin1.weight"][0]
        output_channels = shapes[f"{prefix}{names.neck[0]}.weight"][0]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{where} is no ViTDet tower with relative positions ({error}): give its folder with config.json"
        ) from error
    whole = [
        relative[i][0] == 2 * rows - 1 and relative[layers + i][0] == 2 * columns - 1
        for i in range(layers)
    ]
    windows = {(relative[i][0] + 1) // 2 for i in range(layers) if not whole[i]}
    if len(windows) > 1:
        raise UserError(
            f"{where} has windows of {', '.join(map(str, sorted(windows)))}: a tower has one size of windows"
        )
    return {
        "image_size": (rows * patch, columns * patch),
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": width,
        "mlp_dim": mlp_dim,
        "num_hidden_layers": layers,
        "num_attention_heads": width // relative[0][1],
        "window_size": next(iter(windows), VitDetConfig.window_size),
        "global_attn_indexes": tuple(i for i in range(layers) if whole[i]),
        "output_channels": output_channels,
    }
