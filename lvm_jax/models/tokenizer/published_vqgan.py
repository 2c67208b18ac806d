"""Reads published VQGANs under our names: open-muse's folders and taming-transformers' checkpoints.

It knows three published networks:
  open-muse VQGANModel       the released LVM tokenizer; the taming architecture
  taming-transformers VQModel  the taming architecture, pixels in [-1, 1]
  LVM torch_vqvae_model.VQVAE  the paper-era tokenizer; the maskgit architecture

Kernels are transposed from OIHW to HWIO. A missing, unexpected or misshapen tensor is an error that names it.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.weights import model_folder, torch_pickle
from lvm_jax.weights.tensor_files import TORCH_SUFFIXES

# Fields of open-muse's config.json that ours lacks: each must have the value given here.
_MUSE_FIXED = {"resample_with_conv": True, "dropout": 0.0, "_class_name": "VQGANModel"}
_MUSE_IGNORED = ("_version", "commitment_cost")  # the commitment belongs to training

# Prefixes of tensors in training checkpoints that are not the tokenizer's.
_TRAINING_ONLY = ("loss.",)

_MUSE_FILES = (
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    model_folder.TENSORS_FILE,
)


def is_published(path: epath.PathLike, model_type: str) -> bool:
    """Whether `path` is a PyTorch file or a folder of open-muse, not one of ours."""
    path = epath.Path(path)
    if path.name.endswith(TORCH_SUFFIXES):
        return True
    if not (path / model_folder.CONFIG_FILE).exists():
        return False
    fields = model_folder.read_config(path)
    return fields.get("model_type") != model_type and "hidden_channels" in fields


def read_published(
    path: epath.PathLike, config: VQGANConfig | None = None
) -> tuple[VQGANConfig, dict[str, np.ndarray]]:
    """The config of a published tokenizer, and its tensors under their published names.

    Args:
      path: open-muse's folder (config.json beside pytorch_model.bin or safetensors), or a PyTorch file: a
        taming-transformers checkpoint, or any state dict with its names.
      config: for a PyTorch file; default: what its tensors' shapes imply, with pixels in [-1, 1] and 256 a side as in
        taming-transformers.

    Raises:
      UserError: there is nothing that can be read.
    """
    path = epath.Path(path)
    if path.name.endswith(TORCH_SUFFIXES):
        tensors = torch_pickle.read_tensors(path)
        return config or config_from_taming(tensors, where=str(path)), tensors
    muse = config or config_from_muse(model_folder.read_config(path))
    for name in _MUSE_FILES:
        if (path / name).exists():
            read = (
                torch_pickle.read_tensors
                if name.endswith(".bin")
                else model_folder.read_safetensors
            )
            return muse, read(path / name)
    raise UserError(
        f"{path} has no weights beside its config.json: one of {', '.join(_MUSE_FILES)}"
    )


def config_from_taming(tensors: Mapping[str, np.ndarray], where: str) -> VQGANConfig:
    """The config of a taming-transformers checkpoint, from the shapes of its tensors.

    Raises:
      UserError: they are not a VQGAN's in the taming architecture.
    """
    try:
        hidden = len(tensors["encoder.conv_in.weight"])
        codes, dim = tensors["quantize.embedding.weight"].shape
        z_channels = len(tensors["encoder.conv_out.weight"])
        levels = 1 + max(_numbers(tensors, r"encoder\.down\.(\d+)\."))
        widths = [len(tensors[f"encoder.down.{i}.block.0.conv1.weight"]) for i in range(levels)]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{where} is no taming-transformers VQGAN ({error}): expected encoder., decoder. and quantize.embedding."
        ) from error
    # No tensor's shape depends on it; taming-transformers' models are trained on 256.
    resolution = 256
    return VQGANConfig(
        resolution=resolution,
        num_channels=tensors["encoder.conv_in.weight"].shape[1],
        hidden_channels=hidden,
        channel_mult=tuple(width // hidden for width in widths),
        num_res_blocks=1 + max(_numbers(tensors, r"encoder\.down\.0\.block\.(\d+)\.")),
        attn_resolutions=tuple(
            resolution // 2**i for i in sorted(_numbers(tensors, r"encoder\.down\.(\d+)\.attn\."))
        ),
        no_attn_mid_block="encoder.mid.attn_1.q.weight" not in tensors,
        z_channels=z_channels,
        num_embeddings=codes,
        quantized_embed_dim=dim,
        pixel_range="-1_1",
    )


def _numbers(names: Mapping[str, Any], pattern: str) -> set[int]:
    return {int(found[1]) for name in names if (found := re.match(pattern, name))}


def to_ours(
    config: VQGANConfig,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, np.ndarray],
    where: str,
) -> dict[str, np.ndarray]:
    """Published tensors under our names, kernels HWIO.

    Args:
      config: its architecture decides which names are expected.
      shapes: of our parameters.
      tensors: by published name; those of a training checkpoint that are not the tokenizer's are ignored.
      where: what errors call them.

    Raises:
      UserError: tensors are missing, unexpected or misshapen; it names them.
    """
    weights = {k: v for k, v in tensors.items() if not k.startswith(_TRAINING_ONLY)}
    names = {ours: torch_name(config, ours) for ours in shapes}
    expected = {names[ours]: torch_shape(shape) for ours, shape in shapes.items()}
    model_folder.check_tensors(expected, weights, where)
    return {ours: _to_ours(np.asarray(weights[name])) for ours, name in names.items()}


def config_from_muse(config: Mapping[str, Any]) -> VQGANConfig:
    """Our config from open-muse's `config.json`.

    Raises:
      UserError: a field that ours lacks has another value than in the published tokenizers.
    """
    fields = {key: value for key, value in config.items() if key not in _MUSE_IGNORED}
    for name, required in _MUSE_FIXED.items():
        if fields.pop(name, required) != required:
            raise UserError(
                f"{name} is {config[name]!r} in this config.json: only {required!r} is supported"
            )
    return from_mapping(VQGANConfig, fields, where="config.json")


def torch_name(config: VQGANConfig, name: str) -> str:
    """The published name of our parameter `name`."""
    if config.architecture == "maskgit":
        name = _maskgit_name(config, name)
    elif name == "quantizer.codebook":
        return "quantize.embedding.weight"
    return re.sub(r"\.(kernel|scale)$", ".weight", name)


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The published shape of our parameter with shape `shape`."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape


def _maskgit_name(config: VQGANConfig, name: str) -> str:
    """The name in the paper-era network, which numbers a side's residual blocks in the order that they run."""
    if name == "quantizer.codebook":
        return "quantizer.embedding.weight"
    side, rest = name.split(".", 1)
    last = "conv2" if side == "encoder" else "conv6"
    for ours, theirs in {"conv_in": "conv1", "norm_out": "norm1", "conv_out": last}.items():
        if rest.startswith(f"{ours}."):
            return f"{side}.{theirs}.{rest.removeprefix(f'{ours}.')}"
    levels, blocks = len(config.channel_mult), config.num_res_blocks
    if found := re.fullmatch(r"up\.(\d+)\.upsample\.conv\.(\w+)", rest):
        return f"decoder.up_convs.{levels - 1 - int(found[1])}.{found[2]}"
    if found := re.fullmatch(r"mid\.block_(\d)\.(.+)", rest):
        index = int(found[1]) - 1 + (levels * blocks if side == "encoder" else 0)
    else:
        found = re.fullmatch(r"(?:down|up)\.(\d+)\.block\.(\d+)\.(.+)", rest)
        if found is None:
            raise UserError(
                f"{name} has no counterpart in the paper-era network: it has no attention"
            )
        level = int(found[1])
        stage = level * blocks if side == "encoder" else 2 + (levels - 1 - level) * blocks
        index = stage + int(found[2])
    return (
        f"{side}.blocks.{index}.{found[found.lastindex or 0].replace('nin_shortcut', 'conv_out')}"
    )


def _to_ours(tensor: np.ndarray) -> np.ndarray:
    return np.transpose(tensor, (2, 3, 1, 0)) if tensor.ndim == 4 else tensor
