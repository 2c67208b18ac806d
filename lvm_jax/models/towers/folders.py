"""Folders of towers: this project's own, and what reading published ones has in common."""

import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from etils import epath
from flax import nnx

from lvm_jax.config import from_mapping, to_dict
from lvm_jax.errors import UserError
from lvm_jax.models.towers.places import Located
from lvm_jax.weights import model_folder
from lvm_jax.weights.streamed import fill
from lvm_jax.weights.tensor_files import TORCH_SUFFIXES, TensorFiles

Module = TypeVar("Module", bound=nnx.Module)
Config = TypeVar("Config")

# Settings about how to compute, which a caller chooses on loading.
COMPUTE = ("dtype", "scan_layers", "remat", "attention")

_FILES = (".safetensors", *TORCH_SUFFIXES)


def save(
    module: nnx.Module,
    config: Any,
    model_type: str,
    directory: epath.PathLike,
    dtype: str,
    beside: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Writes a tower's config.json, what stands `beside` its settings included, and tensors by their paths."""
    tensors = model_folder.rounded(model_folder.to_tensors(module), dtype)
    fields = {"model_type": model_type, **to_dict(config), **beside}
    model_folder.save_folder(directory, fields, tensors)


def read_fields(path: epath.PathLike) -> dict[str, Any]:
    """The contents of config.json; nothing for a single file, or a folder without one."""
    path = epath.Path(path)
    if path.suffix in _FILES or not (path / model_folder.CONFIG_FILE).exists():
        return {}
    return model_folder.read_config(path)


def read_own_fields(path: epath.PathLike, model_type: str) -> dict[str, Any]:
    """The contents of config.json in one of our folders.

    Raises:
      UserError: it is missing, or of another kind of model.
    """
    fields = model_folder.read_config(path)
    if fields.get("model_type") != model_type:
        raise UserError(
            f"{path}/{model_folder.CONFIG_FILE} has model_type={fields.get('model_type')!r}: expected {model_type!r}"
        )
    return fields


def shape_of(files: TensorFiles, name: str, dimensions: int, where: str) -> tuple[int, ...]:
    """The shape of a tensor.

    Raises:
      UserError: it is not in the files, or has another number of dimensions.
    """
    shape = files.shapes.get(name)
    if shape is None or len(shape) != dimensions:
        found = "no such tensor" if shape is None else f"shape {shape}"
        raise UserError(f"{where}: {name} must have {dimensions} dimensions, and it has {found}")
    return shape


def read_config(
    cls: type[Config],
    fields: Mapping[str, Any],
    path: epath.PathLike,
    overrides: Mapping[str, Any],
) -> Config:
    """The configuration in one of our folders.

    Raises:
      UserError: a setting is unknown or wrong.
    """
    fields = {name: value for name, value in fields.items() if name != "model_type"}
    config = from_mapping(cls, fields, f"{path}/{model_folder.CONFIG_FILE}")
    return overridden(config, overrides)


def overridden(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration, computed in another way.

    Raises:
      UserError: an override is not about how to compute, or wrong.
    """
    known = [name for name in COMPUTE if name in vars(config)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise UserError(f"{unknown[0]!r} cannot be changed on loading: only {', '.join(known)} can")
    return from_mapping(type(config), vars(config) | dict(overrides), "config")


def load(abstract: Module, path: epath.PathLike) -> Module:
    """Fills a module with the tensors of one of our folders, streamed as `fill` does.

    Raises:
      UserError: names every tensor that is missing, unexpected or misshapen.
    """
    graphdef, state = nnx.split(abstract)
    expected = {n: v.shape for n, v in model_folder.named_parameters(abstract).items()}
    with TensorFiles(path) as files:
        model_folder.check_tensors(expected, files.shapes, str(path))
        return nnx.merge(graphdef, fill(state, lambda name, _, index: files.read(name, index)))


def open_files(path: epath.PathLike) -> TensorFiles:
    """The tensors of a folder, or of one file of safetensors or PyTorch.

    Raises:
      UserError: a file is missing or damaged.
    """
    path = epath.Path(path)
    return TensorFiles(path.parent, [path.name]) if path.suffix in _FILES else TensorFiles(path)


def load_published(
    abstract: Module,
    files: TensorFiles,
    places: Mapping[str, Located],
    belongs: Callable[[str], bool],
    where: str,
    fresh: Mapping[str, nnx.Module | None],
) -> Module:
    """Fills a module with published tensors, streamed as `fill` does.

    Args:
      abstract: the module.
      files: hold the tensors.
      places: our parameter -> where it lies.
      belongs: whether a tensor of the files is the tower's; others are left alone.
      where: what errors call the files.
      fresh: attribute of the module -> a module to take its parameters from if the files have none of them; None: they
        must be in the files.

    Raises:
      UserError: names every tensor that is missing, unexpected or misshapen.
    """
    graphdef, state = nnx.split(abstract)
    shapes = {name: v.shape for name, v in model_folder.named_parameters(abstract).items()}
    own: dict[str, np.ndarray] = {}
    for attribute, module in fresh.items():
        names = [name for name in shapes if name.startswith(f"{attribute}.")]
        absent = not any(t in files.shapes for name in names for t in places[name].tensors)
        if module is not None and absent:
            own |= {f"{attribute}.{n}": t for n, t in model_folder.to_tensors(module).items()}
    located = {name: place for name, place in places.items() if name not in own}
    expected = {
        tensor: shape
        for name, place in located.items()
        for tensor, shape in place.shapes(shapes[name]).items()
    }
    stored = {name: shape for name, shape in files.shapes.items() if belongs(name)}
    try:
        model_folder.check_tensors(expected, stored, where)
    except UserError as error:
        hint = _missing_hint(fresh, located, files)
        raise UserError(f"{error}{hint}") from error

    def read(name: str, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        return own[name][index] if name in own else located[name].read(files, shape, index)

    return nnx.merge(graphdef, fill(state, read))


def _missing_hint(
    fresh: Mapping[str, nnx.Module | None],
    located: Mapping[str, Located],
    files: TensorFiles,
) -> str:
    """What to do if the files lack a part of the tower that can be made new."""
    for attribute, module in fresh.items():
        tensors = [
            tensor
            for name, place in located.items()
            if name.startswith(f"{attribute}.")
            for tensor in place.tensors
        ]
        if module is None and tensors and not any(tensor in files.shapes for tensor in tensors):
            return f"; pass rngs=nnx.Rngs(SEED) to begin with a new {attribute!r}"
    return ""
