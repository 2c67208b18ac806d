"""Weights of the published PyTorch VQGANs, as numpy arrays by name, into ours. PyTorch is not needed.

Three published networks are known:
  open-muse VQGANModel       the released LVM tokenizer; the taming layout
  taming-transformers VQModel  the taming layout, pixels in [-1, 1]
  LVM torch_vqvae_model.VQVAE  the paper-era tokenizer; the maskgit layout

Kernels turn from OIHW to HWIO. Everything must be there: a missing, unexpected or misshapen tensor is
an error that names it.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.models import pretrained
from lvm_jax.models.vqgan import VQGAN
from lvm_jax.models.vqgan_config import VQGANConfig

# Fields of open-muse's config.json that ours has not: each must have the value given here.
_MUSE_FIXED = {"resample_with_conv": True, "dropout": 0.0, "_class_name": "VQGANModel"}
_MUSE_IGNORED = ("_version", "commitment_cost")  # the commitment belongs to training

# Tensors that are saved beside the tokenizer in training checkpoints and are not part of it.
_TRAINING_ONLY = ("loss.",)


def from_state_dict(config: VQGANConfig, state_dict: Mapping[str, np.ndarray]) -> VQGAN:
    """A VQGAN of `config` with the weights of a published PyTorch network.

    Args:
      config: its layout selects the names that are expected.
      state_dict: `{name: tensor}`, as `torch.load(...)["state_dict"]` with every tensor's `.numpy()`.

    Raises:
      UserError: names the missing, unexpected and misshapen tensors.
    """
    abstract = VQGAN.abstract(config)
    weights = {k: v for k, v in state_dict.items() if not k.startswith(_TRAINING_ONLY)}
    torch_names = {ours: torch_name(config, ours) for ours in pretrained.named_parameters(abstract)}
    expected = {
        torch_names[ours]: torch_shape(variable.shape)
        for ours, variable in pretrained.named_parameters(abstract).items()
    }
    pretrained.check_tensors(expected, weights, where="the PyTorch state dict")
    tensors = {ours: _to_ours(np.asarray(weights[name])) for ours, name in torch_names.items()}
    return pretrained.from_tensors(abstract, tensors, where="the PyTorch state dict")


def to_state_dict(vqgan: VQGAN) -> dict[str, np.ndarray]:
    """The weights of `vqgan` under their published PyTorch names, kernels OIHW."""
    return {
        torch_name(vqgan.config, name): np.transpose(tensor, (3, 2, 0, 1))
        if tensor.ndim == 4
        else tensor
        for name, tensor in pretrained.to_tensors(vqgan).items()
    }


def config_from_muse(config: Mapping[str, Any]) -> VQGANConfig:
    """open-muse's `config.json` as ours.

    Raises:
      UserError: a field that ours does not have, at another value than the published tokenizers use.
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
    if config.layout == "maskgit":
        name = _maskgit_name(config, name)
    elif name == "quantizer.codebook":
        return "quantize.embedding.weight"
    return re.sub(r"\.(kernel|scale)$", ".weight", name)


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The published shape of our parameter of `shape`."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape


def _maskgit_name(config: VQGANConfig, name: str) -> str:
    """The paper-era network numbers all residual blocks of a side in the order they run."""
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
