"""Writes a ViTDet tower as the peers in PyTorch read it: benchmarks/peers/torch_sam.py."""

import json
import pathlib

from safetensors.numpy import save_file

from lvm_jax.config import to_dict
from lvm_jax.models.towers.places import to_published
from lvm_jax.models.towers.published_vitdet import TRANSFORMERS, Format
from lvm_jax.models.towers.vitdet import VitDet
from lvm_jax.weights.model_folder import to_tensors


def save_tower(tower: VitDet, folder: pathlib.Path) -> None:
    """Writes FOLDER/tower.json, our configuration, and tower.safetensors, by the names of transformers."""
    (folder / "tower.json").write_text(json.dumps(to_dict(tower.config)))
    places = Format(TRANSFORMERS, "").places(tower.config)
    tensors = to_published(places, to_tensors(tower))
    save_file(
        {name: tensor.copy() for name, tensor in tensors.items()}, folder / "tower.safetensors"
    )
