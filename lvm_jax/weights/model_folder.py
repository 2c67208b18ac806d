"""Models as folders: `config.json` beside `model.safetensors`, Hugging Face's format.

Two levels. The folder level (`save_folder`, `read_config`, `read_tensors`) moves named numpy arrays and knows no model.
The state level (`to_tensors`, `from_tensors`) names the parameters of an NNX module by their path,
`encoder.down.0.block.1.conv1.kernel`, and fills an abstract module, so loading never initialises weights first. A model
that is published under other names, such as LLaMA's, translates between the two levels.

Files are written under a temporary name and renamed, the configuration last: a folder with a `config.json` is complete.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from safetensors.numpy import save_file

from lvm_jax.errors import UserError
from lvm_jax.files import is_local
from lvm_jax.weights.memo import WeightsMemo
from lvm_jax.weights.tensor_files import TENSORS_FILE, TensorFiles

CONFIG_FILE = "config.json"

STORED_DTYPES = ("float32", "bfloat16", "float16")

Module = TypeVar("Module", bound=nnx.Module)

# Modules that have passed: a generator, a scorer and a pair of models all ask about the same weights.
_FINITE: WeightsMemo[None] = WeightsMemo()


def save_folder(
    directory: epath.PathLike, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes `config` and `tensors` into `directory` (made if missing), each file atomically.

    Equal arguments give equal bytes.
    """
    directory = epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory(dir=_staging(directory)) as staging:
        config_path = epath.Path(staging) / CONFIG_FILE
        tensors_path = epath.Path(staging) / TENSORS_FILE
        config_path.write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
        # transformers refuses files whose metadata does not name the framework that wrote them.
        save_file(whole, tensors_path, metadata={"format": "pt"})
        # safetensors makes its files private to the user.
        shutil.copymode(config_path, tensors_path)
        for path in (tensors_path, config_path):
            _publish(path, directory / path.name)


def read_config(directory: epath.PathLike) -> dict[str, Any]:
    """The contents of `directory/config.json`.

    Raises:
      UserError: no such file, or it is not a JSON object.
    """
    path = epath.Path(directory) / CONFIG_FILE
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error}): a model folder holds {CONFIG_FILE}, {TENSORS_FILE}"
        ) from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path} is not JSON ({error}): export the model again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a {type(config).__name__}: it must be an object of fields")
    return config


def read_tensors(directory: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads all tensors of a model folder at once; see `TensorFiles`.

    Raises:
      UserError: a file is missing or damaged.
    """
    with TensorFiles(directory) as files:
        return {name: files.read(name) for name in files.shapes}


def read_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
    """Reads all tensors of one safetensors file.

    Raises:
      UserError: it is missing or damaged.
    """
    with TensorFiles(path.parent, [path.name]) as files:
        return {name: files.read(name) for name in files.shapes}


def check_tensors(
    expected: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, np.ndarray | tuple[int, ...]],
    where: str,
) -> None:
    """Checks that `tensors`, arrays or their shapes, have exactly the names and shapes of `expected`.

    Raises:
      UserError: names the missing, the unexpected and the misshapen tensors of `where`.
    """
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    found = {name: tuple(getattr(tensor, "shape", tensor)) for name, tensor in tensors.items()}
    misshapen = [
        f"{name} {found[name]} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != tuple(shape)
    ]
    wrong = {"missing": missing, "not part of the model": extra, "misshapen": misshapen}
    problems = [f"{what}: {_some(names)}" for what, names in wrong.items() if names]
    if problems:
        raise UserError(f"{where} does not fit the model's config; {'; '.join(problems)}")


def to_tensors(module: nnx.Module) -> dict[str, np.ndarray]:
    """Copies the parameters of `module` to the host, by dotted path, sorted by name."""
    flat = named_parameters(module)
    values = jax.device_get({name: variable[...] for name, variable in flat.items()})
    return {name: np.asarray(values[name]) for name in sorted(values)}


def rounded(tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Rounds tensors to the type that a file stores.

    Args:
      tensors: by name.
      dtype: one of `STORED_DTYPES`.

    Raises:
      UserError: another type, or a value that is not finite or beyond its range, which would become infinite.
    """
    if dtype not in STORED_DTYPES:
        raise UserError(f"dtype is {dtype!r}: weights are stored as {', '.join(STORED_DTYPES)}")
    largest = float(jnp.finfo(dtype).max)
    result = {}
    for name, tensor in tensors.items():
        found = float(np.abs(tensor).max(initial=0))
        if not math.isfinite(found):
            raise UserError(
                f"{name} has a weight of {found}: save the model of an earlier checkpoint"
            )
        if found > largest:
            raise UserError(
                f"{name} has a weight of {found:.3g}: {dtype} holds at most {largest:.3g}; store "
                "bfloat16 or float32"
            )
        result[name] = tensor.astype(jnp.dtype(dtype))
    return result


def from_tensors(abstract: Module, tensors: Mapping[str, np.ndarray], where: str) -> Module:
    """Fills a copy of `abstract` (from `nnx.eval_shape`) with `tensors`, cast to its parameters' dtypes.

    Raises:
      UserError: see `check_tensors`.
    """
    flat = named_parameters(abstract)
    check_tensors({name: variable.shape for name, variable in flat.items()}, tensors, where)
    graphdef, state = nnx.split(abstract)
    filled = [
        (path, variable.replace(jnp.asarray(tensors[_name(path)], dtype=variable.dtype)))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def check_finite(module: nnx.Module, what: str) -> None:
    """Checks that every parameter is finite, on its device, and again only after the weights have changed.

    Args:
      module: the model.
      what: what the message calls the model.

    Raises:
      UserError: names the first tensors with NaN or infinity.
    """
    _FINITE.of(module, lambda: _check_finite(module, what))


def _check_finite(module: nnx.Module, what: str) -> None:
    parameters = {name: variable[...] for name, variable in named_parameters(module).items()}
    finite = jax.device_get(_all_finite(parameters))
    bad = sorted(name for name, fine in finite.items() if not fine)
    if bad:
        raise UserError(
            f"{what} has NaN or infinite weights in {_some(bad)}: use an earlier checkpoint, or export it again"
        )


@jax.jit
def _all_finite(parameters: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.isfinite(value).all() for name, value in parameters.items()}


def named_parameters(module: nnx.Module) -> dict[str, nnx.Variable]:
    """Dotted path -> parameter, for concrete and abstract modules alike."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {_name(path): variable for path, variable in flat}


def parameter_count(module: nnx.Module) -> int:
    """The number of a module's parameters."""
    return sum(variable.size for variable in named_parameters(module).values())


def _name(path: Iterable[Any]) -> str:
    return ".".join(str(part) for part in path)


def _some(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _staging(directory: epath.Path) -> str | None:
    """Where temporary files go: inside a local target, because a rename works only within one file system."""
    return os.fspath(directory) if is_local(directory) else None


def _publish(source: epath.Path, target: epath.Path) -> None:
    if not is_local(target):
        source.copy(target, overwrite=True)  # object stores show an object only when it is complete
        return
    with open(source, "rb") as file:
        # Before the rename: else a power cut may leave the name on an empty file.
        os.fsync(file.fileno())
    os.replace(source, target)
