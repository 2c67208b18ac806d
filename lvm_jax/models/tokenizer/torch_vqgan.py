"""Converts weights of the published PyTorch VQGANs, as numpy arrays by name, to ours and back, without PyTorch.

`VQGAN.from_pretrained` reads published folders and files; use this module if you already have a state dict.
`lvm_jax.models.tokenizer.published_vqgan` knows the networks and their names.
"""

from collections.abc import Mapping

import numpy as np

from lvm_jax.models.tokenizer.published_vqgan import (
    config_from_muse,
    to_ours,
    torch_name,
    torch_shape,
)
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.weights import model_folder

__all__ = ["config_from_muse", "from_state_dict", "to_state_dict", "torch_name", "torch_shape"]


def from_state_dict(config: VQGANConfig, state_dict: Mapping[str, np.ndarray]) -> VQGAN:
    """A VQGAN of `config` with the weights of a published PyTorch network.

    Args:
      config: its architecture decides which names are expected.
      state_dict: `{name: tensor}`: `torch.load(...)["state_dict"]` with each tensor's `.numpy()`.

    Raises:
      UserError: tensors are missing, unexpected or misshapen; it names them.
    """
    abstract, where = VQGAN.abstract(config), "the PyTorch state dict"
    shapes = {k: tuple(v.shape) for k, v in model_folder.named_parameters(abstract).items()}
    return model_folder.from_tensors(abstract, to_ours(config, shapes, state_dict, where), where)


def to_state_dict(vqgan: VQGAN) -> dict[str, np.ndarray]:
    """The weights of `vqgan` under their published PyTorch names, kernels OIHW."""
    return {
        torch_name(vqgan.config, name): np.transpose(tensor, (3, 2, 0, 1))
        if tensor.ndim == 4
        else tensor
        for name, tensor in model_folder.to_tensors(vqgan).items()
    }
