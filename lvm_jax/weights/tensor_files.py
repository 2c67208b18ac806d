"""The tensor files of a model folder, opened without reading them: `files.shapes`, then slices one by one.

One safetensors file, several with Hugging Face's index, or PyTorch's .bin files with theirs.
"""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open

from lvm_jax.errors import UserError
from lvm_jax.files import is_local
from lvm_jax.weights import torch_pickle

TENSORS_FILE = "model.safetensors"
# What a folder may hold, one file or the index of several; the first one found counts.
_LAYOUTS = (TENSORS_FILE, f"{TENSORS_FILE}.index.json")
_LAYOUTS += ("pytorch_model.bin", "pytorch_model.bin.index.json")
TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


class Tensors(Protocol):
    """Named tensors that are read slice by slice."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every tensor, by name."""
        ...

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A tensor, or the block of it that `index` cuts out."""
        ...


class Renamed:
    """Some of the tensors of open files, under other names.

    Args:
      files: the files.
      rename: a tensor's name -> its other name; None: it is left out.

    Attributes:
      shapes: of every tensor, by its other name.
    """

    def __init__(self, files: Tensors, rename: Callable[[str], str | None]) -> None:
        named = ((name, rename(name)) for name in files.shapes)
        self._names = {other: name for name, other in named if other is not None}
        self._files = files
        self.shapes = {other: files.shapes[name] for other, name in self._names.items()}

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """As in `TensorFiles.read`."""
        return self._files.read(self._names[name], index)


class TensorFiles:
    """Open tensor files: `with TensorFiles(directory) as files: files.read(name, (slice(0, 8),))`.

    Remote files are first copied to a local scratch folder, one after the other.

    Args:
      directory: of the files.
      names: of the files; default: `model.safetensors`, or the files in its index, or the same of `pytorch_model.bin`.

    Attributes:
      shapes: of every tensor, by name.

    Raises:
      UserError: a file is missing or damaged.
    """

    def __init__(self, directory: epath.PathLike, names: Sequence[str] | None = None) -> None:
        self._directory = epath.Path(directory)
        self._closing = contextlib.ExitStack()
        self._tensors: dict[str, tuple[epath.Path, Any]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        try:
            for name in self._names() if names is None else names:
                self._open(self._directory / name)
        except BaseException:  # the caller gets no object whose `with` could close them
            self._closing.close()
            raise

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """Reads a tensor, or the block of it that `index` cuts out, in the dtype of its file.

        Raises:
          UserError: the file is damaged.
        """
        path, tensor = self._tensors[name]
        try:
            return np.asarray(tensor[index])
        except SafetensorError as error:
            raise _damaged(path, error) from error

    def _names(self) -> list[str]:
        found = next((name for name in _LAYOUTS if (self._directory / name).exists()), None)
        if found is None:
            raise UserError(
                f"{self._directory / TENSORS_FILE} is missing: a model folder holds config.json, {TENSORS_FILE}"
            )
        if not found.endswith(".json"):
            return [found]
        path = self._directory / found
        try:
            # The index maps each tensor to its file: several tensors share one.
            return sorted(
                {str(name) for name in json.loads(path.read_text())["weight_map"].values()}
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not an index of tensors ({error!r}): download it again"
            ) from error

    def _open(self, path: epath.Path) -> None:
        if not path.exists():
            raise UserError(f"{path} is missing: download the folder again")
        local = pathlib.Path(os.fspath(path))
        if not is_local(path):  # safetensors maps files, which takes a local one
            scratch = self._closing.enter_context(tempfile.TemporaryDirectory())
            local = pathlib.Path(os.fspath(path.copy(epath.Path(scratch) / path.name)))
        if path.suffix in TORCH_SUFFIXES:
            tensors = torch_pickle.open_tensors(local)
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
        else:
            try:
                file = self._closing.enter_context(safe_open(local, framework="np"))
                tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                shapes = {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
            except SafetensorError as error:
                raise _damaged(path, error) from error
        self._tensors |= {name: (path, tensor) for name, tensor in tensors.items()}
        self.shapes |= shapes


def _damaged(path: epath.Path, error: SafetensorError) -> UserError:
    return UserError(f"{path} is damaged ({error}): export or download it again")
