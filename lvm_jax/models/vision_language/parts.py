"""A tower's weights to begin a training from: out of a folder or file of its own, or out of a whole model.

So Vary-tiny's tower comes into Vary-base. For a decoder see `lvm_jax.models.decoder.resized`.
"""

from typing import Any

from etils import epath
from flax import nnx

from lvm_jax.config import differences, to_dict
from lvm_jax.errors import UserError
from lvm_jax.models.towers import folders
from lvm_jax.models.towers.clip import ClipVision
from lvm_jax.models.towers.clip_config import ClipVisionConfig
from lvm_jax.models.towers.vitdet import VitDet
from lvm_jax.models.towers.vitdet_config import VitDetConfig
from lvm_jax.models.vision_language import own_folder
from lvm_jax.weights.streamed import fill
from lvm_jax.weights.tensor_files import TensorFiles

_FREE = {*folders.COMPUTE, "initializer_range"}


def load_vitdet(path: epath.PathLike, config: VitDetConfig, *, seed: int) -> nnx.State:
    """A ViTDet tower's parameters, streamed into their shards.

    Args:
      path: as `VitDet.from_pretrained` takes it, or a folder of `VisionLanguage.save_pretrained`.
      config: the tower that they are for.
      seed: of new merging convolutions, which SAM's weights lack.

    Raises:
      UserError: nothing is there, or another tower.
    """
    if _is_whole(path):
        branch = own_folder.load_config(path).vitdet
        _check_same(path, branch and branch.tower, config)
        return _out_of(path, "vitdet.tower", VitDet.abstract(config))
    tower = VitDet.from_pretrained(path, rngs=nnx.Rngs(seed))
    _check_same(path, tower.config, config)
    return nnx.state(tower, nnx.Param)


def load_clip(path: epath.PathLike, config: ClipVisionConfig) -> nnx.State:
    """A CLIP tower's parameters; arguments and errors as in `load_vitdet`."""
    if _is_whole(path):
        branch = own_folder.load_config(path).clip
        _check_same(path, branch and branch.tower, config)
        return _out_of(path, "clip.tower", ClipVision.abstract(config))
    tower = ClipVision.from_pretrained(path)
    _check_same(path, tower.config, config)
    return nnx.state(tower, nnx.Param)


def _is_whole(path: epath.PathLike) -> bool:
    return folders.read_fields(path).get("model_type") == own_folder.MODEL_TYPE


def _out_of(path: epath.PathLike, prefix: str, abstract: nnx.Module) -> nnx.State:
    """A part's parameters out of one of our folders, whose configuration has been checked."""
    with TensorFiles(path) as files:
        return fill(
            nnx.state(abstract, nnx.Param),
            lambda name, shape, index: files.read(f"{prefix}.{name}", index),
        )


def _check_same(path: epath.PathLike, found: Any, wanted: Any) -> None:
    if found is None:
        raise UserError(f"{path} is a model without such a tower: choose one that has it")
    theirs, ours = (
        {name: value for name, value in to_dict(config).items() if name not in _FREE}
        for config in (found, wanted)
    )
    if different := differences(theirs, ours, "tower"):
        raise UserError(
            f"{path} holds another tower ({different[0]}): choose the size that it was trained with"
        )
