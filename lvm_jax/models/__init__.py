"""Flax NNX modules, each usable alone: `from lvm_jax.models import Llama, VQGAN, presets`.

A name is imported on first use, so a program with only a tokenizer never loads the decoder.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvm_jax.models import presets
    from lvm_jax.models.canvas.mae_vqgan import MaeVqgan
    from lvm_jax.models.canvas.mae_vqgan_config import MaeVqganConfig
    from lvm_jax.models.canvas.seggpt import SegGpt
    from lvm_jax.models.canvas.seggpt_config import SegGptConfig
    from lvm_jax.models.decoder.config import DecoderConfig, LlamaConfig
    from lvm_jax.models.decoder.decoder import Decoder
    from lvm_jax.models.decoder.llama import Llama
    from lvm_jax.models.tokenizer.vqgan import VQGAN, VQGANConfig
    from lvm_jax.models.towers.clip import ClipVision
    from lvm_jax.models.towers.clip_config import ClipVisionConfig
    from lvm_jax.models.towers.projectors import Projector, ProjectorConfig
    from lvm_jax.models.towers.vitdet import VitDet
    from lvm_jax.models.towers.vitdet_config import VitDetConfig
    from lvm_jax.models.vision_language.config import VisionLanguageConfig
    from lvm_jax.models.vision_language.model import VisionLanguage

__all__ = [
    "VQGAN",
    "ClipVision",
    "ClipVisionConfig",
    "Decoder",
    "DecoderConfig",
    "Llama",
    "LlamaConfig",
    "MaeVqgan",
    "MaeVqganConfig",
    "Projector",
    "ProjectorConfig",
    "SegGpt",
    "SegGptConfig",
    "VQGANConfig",
    "VisionLanguage",
    "VisionLanguageConfig",
    "VitDet",
    "VitDetConfig",
    "presets",
]

_HOMES = {
    "Llama": "lvm_jax.models.decoder.llama",
    "LlamaConfig": "lvm_jax.models.decoder.config",
    "Decoder": "lvm_jax.models.decoder.decoder",
    "DecoderConfig": "lvm_jax.models.decoder.config",
    "VQGAN": "lvm_jax.models.tokenizer.vqgan",
    "VQGANConfig": "lvm_jax.models.tokenizer.vqgan",
    "VitDet": "lvm_jax.models.towers.vitdet",
    "VitDetConfig": "lvm_jax.models.towers.vitdet_config",
    "ClipVision": "lvm_jax.models.towers.clip",
    "ClipVisionConfig": "lvm_jax.models.towers.clip_config",
    "Projector": "lvm_jax.models.towers.projectors",
    "ProjectorConfig": "lvm_jax.models.towers.projectors",
    "MaeVqgan": "lvm_jax.models.canvas.mae_vqgan",
    "MaeVqganConfig": "lvm_jax.models.canvas.mae_vqgan_config",
    "SegGpt": "lvm_jax.models.canvas.seggpt",
    "SegGptConfig": "lvm_jax.models.canvas.seggpt_config",
    "VisionLanguage": "lvm_jax.models.vision_language.model",
    "VisionLanguageConfig": "lvm_jax.models.vision_language.config",
}


def __getattr__(name: str) -> Any:
    if name == "presets":
        return importlib.import_module("lvm_jax.models.presets")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
