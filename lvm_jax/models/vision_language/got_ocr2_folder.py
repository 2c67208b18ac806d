"""Writes a model of one ViTDet branch as transformers' GotOcr2ForConditionalGeneration opens it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.models.decoder import hf_config
from lvm_jax.models.decoder.hf_llama import QWEN2
from lvm_jax.models.decoder.hf_tensors import to_hugging_face
from lvm_jax.models.towers.places import Located, Matrix, to_published
from lvm_jax.models.towers.published_vitdet import TRANSFORMERS, Format
from lvm_jax.models.vision_language.config import VisionLanguageConfig
from lvm_jax.weights.model_folder import save_folder

_PROJECTOR = "multi_modal_projector.multimodal_projector."


def save(
    directory: epath.PathLike, config: VisionLanguageConfig, tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes the folder.

    Args:
      directory: made if missing.
      config: the model, without adapters.
      tensors: its parameters by dotted path.

    Raises:
      UserError: GotOcr2 has no such model.
    """
    fields = config_to_json(config)
    tower = _below("vitdet.tower.", tensors)
    assert config.vitdet is not None  # `config_to_json` has checked it
    places = Format(TRANSFORMERS, "vision_tower.").places(config.vitdet.tower)
    linear = {
        "kernel": Located(Matrix(1), (f"{_PROJECTOR}weight",)),
        "bias": Located(Matrix(0), (f"{_PROJECTOR}bias",)),
    }
    decoder = to_hugging_face(QWEN2, config.decoder, _below("decoder.", tensors))
    save_folder(
        directory,
        fields,
        to_published(places, tower)
        | to_published(linear, _below("vitdet.projector.linear.", tensors))
        | {f"language_model.{name}": tensor for name, tensor in decoder.items()},
    )


def config_to_json(config: VisionLanguageConfig) -> dict[str, Any]:
    """The contents of config.json.

    Raises:
      UserError: GotOcr2 has no such model.
    """
    if config.vitdet is None or config.clip is not None:
        raise UserError("GotOcr2 has one branch, ViTDet's: save other models in our own format")
    tower, decoder = config.vitdet.tower, config.decoder
    if not QWEN2.describes(decoder):
        raise UserError("GotOcr2's decoder is a Qwen2: save this model in our own format")
    merged = (2 * tower.output_channels, decoder.hidden_size)
    if tower.merge_channels != merged or tower.merge_strides != ((2, 2), (2, 2)):
        raise UserError(
            f"the tower has merge_channels={tower.merge_channels}, merge_strides={tower.merge_strides}: GotOcr2's are "
            f"{merged} and two of (2, 2); save this model in our own format"
        )
    height, width = tower.image_size
    if height != width:
        raise UserError(f"images are {height} x {width}: GotOcr2's are square")
    return {
        "architectures": ["GotOcr2ForConditionalGeneration"],
        "model_type": "got_ocr2",
        "image_token_index": config.image_patch_id,
        "image_seq_length": config.image_tokens,
        "tie_word_embeddings": decoder.tie_word_embeddings,
        "text_config": hf_config.config_to_json(QWEN2, decoder),
        "vision_config": {
            "model_type": "got_ocr2_vision",
            "hidden_size": tower.hidden_size,
            "output_channels": tower.output_channels,
            "num_hidden_layers": tower.num_hidden_layers,
            "num_attention_heads": tower.num_attention_heads,
            "num_channels": tower.num_channels,
            "image_size": height,
            "patch_size": tower.patch_size,
            "layer_norm_eps": tower.layer_norm_eps,
            "window_size": tower.window_size,
            "global_attn_indexes": list(tower.global_attn_indexes),
            "mlp_dim": tower.mlp_dim,
        },
    }


def _below(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
