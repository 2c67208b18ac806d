"""Folders of decoders that no published family describes: places within images, blocks that differ, experts.

config.json holds the whole `DecoderConfig`; tensors have our own names and shapes. No other library opens them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lvm_jax.config import from_mapping, to_dict
from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.weights.model_folder import check_tensors
from lvm_jax.weights.tensor_files import TensorFiles

MODEL_TYPE = "lvm_jax"

_CONFIG = "decoder"  # where config.json holds the configuration


def config_to_json(config: DecoderConfig) -> dict[str, Any]:
    """The contents of config.json."""
    return {
        "architectures": ["lvm_jax.models.Decoder"],
        "model_type": MODEL_TYPE,
        _CONFIG: to_dict(config),
    }


def config_from_json(
    fields: Mapping[str, Any], where: str, overrides: Mapping[str, Any]
) -> DecoderConfig:
    """The configuration in a config.json.

    Args:
      fields: its contents.
      where: what messages call the file.
      overrides: fields about how to compute.

    Raises:
      UserError: no configuration in it, an unknown field, or a value that no decoder has.
    """
    if _CONFIG not in fields:
        raise UserError(
            f"{where} has no {_CONFIG!r}, the configuration of the decoder: save the model again"
        )
    config = from_mapping(DecoderConfig, fields[_CONFIG], f"{where}: {_CONFIG}")
    return dataclasses.replace(config, **overrides)


@dataclasses.dataclass(frozen=True)
class OwnReader:
    """Reads slices of parameters from open files, in which they have our names and shapes."""

    files: TensorFiles

    def check(self, parameters: Mapping[str, tuple[int, ...]], where: str) -> None:
        """Requires exactly these parameters.

        Raises:
          UserError: names every tensor that is missing, unexpected or misshapen.
        """
        check_tensors(parameters, self.files.shapes, where)

    def read(self, path: str, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        """The slice `index` of the parameter `path`."""
        del shape
        return self.files.read(path, index)
