"""Folders of vision-language models in our format: the whole configuration in config.json, tensors with our names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from lvm_jax.config import differences, from_mapping, to_dict
from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import LoRAConfig
from lvm_jax.models.decoder.hf_config import COMPUTE, TOKENIZER
from lvm_jax.models.towers import folders
from lvm_jax.models.vision_language.config import VisionLanguageConfig
from lvm_jax.weights.model_folder import CONFIG_FILE, read_config, save_folder

MODEL_TYPE = "vision_language"

_CONFIG = "model"  # where config.json holds the configuration
# Settings that weights do not depend on: how to compute, and how to begin.
_FREE = {*COMPUTE, *folders.COMPUTE, "initializer_range", "lora"}


def save(
    directory: epath.PathLike,
    config: VisionLanguageConfig,
    tensors: Mapping[str, np.ndarray],
    fingerprint: str,
) -> None:
    """Writes the folder.

    Args:
      directory: made if missing.
      config: the model, without adapters.
      tensors: its parameters by dotted path.
      fingerprint: of its text tokenizer; "": unknown.
    """
    fields: dict[str, Any] = {"model_type": MODEL_TYPE, _CONFIG: to_dict(config)}
    if fingerprint:
        fields[TOKENIZER] = fingerprint
    save_folder(directory, fields, tensors)


def load_config(directory: epath.PathLike, **overrides: Any) -> VisionLanguageConfig:
    """The configuration of a folder.

    Args:
      directory: holds config.json.
      **overrides: dtype, remat, scan_layers, attention, of decoder and towers alike.

    Raises:
      UserError: no such file, another kind of model, or an unknown override.
    """
    fields, where = read_config(directory), f"{directory}/{CONFIG_FILE}"
    if fields.get("model_type") != MODEL_TYPE or _CONFIG not in fields:
        raise UserError(
            f"{where} has model_type={fields.get('model_type')!r}: expected {MODEL_TYPE!r}, a folder of "
            "VisionLanguage.save_pretrained"
        )
    return computed(from_mapping(VisionLanguageConfig, fields[_CONFIG], where), overrides)


def computed(config: VisionLanguageConfig, overrides: Mapping[str, Any]) -> VisionLanguageConfig:
    """The same model, computed in another way.

    Raises:
      UserError: an override is not about how to compute, or wrong.
    """
    branches = {
        name: branch
        and dataclasses.replace(branch, tower=folders.overridden(branch.tower, overrides))
        for name, branch in (("vitdet", config.vitdet), ("clip", config.clip))
    }
    decoder = from_mapping(type(config.decoder), vars(config.decoder) | dict(overrides))
    return dataclasses.replace(config, decoder=decoder, **branches)


def load_fingerprint(directory: epath.PathLike) -> str:
    """The fingerprint of the text tokenizer that a folder's model was trained with; "": unknown."""
    return str(read_config(directory).get(TOKENIZER) or "")


def check_fits(directory: epath.PathLike, config: VisionLanguageConfig) -> None:
    """Requires a folder to hold weights of the model `config`.

    Raises:
      UserError: it names the first setting that differs; or see `load_config`.
    """
    theirs, ours = (_kept(to_dict(each)) for each in (load_config(directory), config))
    if found := differences(theirs, ours, "config.model"):
        raise UserError(
            f"{directory} holds another model ({found[0]}): choose the size that it was trained with"
        )


def without_adapters(config: VisionLanguageConfig) -> VisionLanguageConfig:
    """The model without adapters of its decoder."""
    decoder = dataclasses.replace(config.decoder, lora=LoRAConfig())
    return dataclasses.replace(config, decoder=decoder)


def _kept(fields: Any) -> Any:
    if not isinstance(fields, Mapping):
        return fields
    return {name: _kept(value) for name, value in fields.items() if name not in _FREE}
