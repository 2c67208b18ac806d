"""PyTorch's tensor files as numpy arrays, without PyTorch and without running the code that they name.

A file of `torch.save` (1.6 and later) is a zip: `NAME/data.pkl` is a pickle whose tensors refer to storages, the files
`NAME/data/KEY`. A pickle can call any function. This reader has its own functions for a short list of names, gives the
classes of training frameworks an inert stand-in, and refuses every other name.
"""

import collections
import dataclasses
import io
import math
import pickle
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.weights.restricted_pickle import RestrictedUnpickler

_DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Training checkpoints also hold callbacks and configurations of these packages, which the weights do not need.
_INERT = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "taming", "muse")


def read_tensors(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads all tensors of `open_tensors`."""
    return {name: tensor[...] for name, tensor in open_tensors(path).items()}


def open_tensors(path: epath.PathLike) -> dict[str, "StoredTensor"]:
    """The tensors of a state dict, or of the `state_dict` in a training checkpoint; skips other values.

    Raises:
      UserError: the file is missing, damaged or of an older format, or its pickle asks for anything but tensors.
    """
    path = epath.Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            tree = _read(archive, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): check the path") from error
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is damaged, or older than torch 1.6 ({error}): load and save it with a newer torch"
        ) from error
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is not a file of tensors ({e!r}): download it again") from e
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    tensors = tree if isinstance(tree, dict) else {}
    tensors = {str(k): v for k, v in tensors.items() if isinstance(v, StoredTensor)}
    if not tensors:
        raise UserError(f"{path} holds no state dict: give a file of named tensors")
    return tensors


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A file of numbers in the archive, not yet read."""

    path: epath.Path
    entry: str
    dtype: np.dtype
    numel: int

    def read(self) -> np.ndarray:
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                content = archive.read(self.entry)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path} is damaged ({error}): download it again") from error
        if len(content) != self.numel * self.dtype.itemsize:
            raise UserError(f"{self.path}: {self.entry} is cut short; download it again")
        return np.frombuffer(content, self.dtype)


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in its file: `tensor[index]` reads the whole storage but keeps only a copy of the block."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads the block into an array of its own."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.storage.dtype)[index]
        steps = tuple(step * self.storage.dtype.itemsize for step in self.stride)
        numbers = self.storage.read()[self.offset :]
        view = np.lib.stride_tricks.as_strided(numbers, self.shape, steps, writeable=False)
        return np.array(view[index])  # a copy: a view would keep the whole storage in memory


def _read(archive: zipfile.ZipFile, name: epath.Path) -> Any:
    pickles = [entry for entry in archive.namelist() if entry.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{name} is a zip without one data.pkl: it was not written by torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise UserError(f"{name} was written on a big-endian machine: save it again on another")
    return _TensorUnpickler(archive, root, name).load()


class _StorageType:
    """A storage's type, as the pickle names it."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class _Inert:
    """Stands in for an object of a training framework: constructing and filling it does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        del state


class _TensorUnpickler(RestrictedUnpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str, name: epath.Path):
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")), name, _stand_in)
        self._archive, self._root, self._name = archive, root, name

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _, numel = pid
        if kind != "storage" or not isinstance(storage, _StorageType):
            raise UserError(f"{self._name} refers to a {kind!r}: only tensors' storages are known")
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        if entry.file_size != numel * storage.dtype.itemsize:
            raise UserError(f"{self._name}: storage {key} is cut short; download it again")
        return _Storage(self._name, entry.filename, storage.dtype, numel)


def _stand_in(module_name: str, global_name: str) -> Any:
    """Our own function or class for PyTorch's names, an inert class for a training framework's; None for others."""
    found = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch", "Size"): tuple,
    }.get((module_name, global_name))
    if found is None and module_name == "torch" and global_name in _DTYPES:
        return _StorageType(_DTYPES[global_name])
    if found is None and module_name.split(".")[0] in _INERT:
        return _Inert
    return found


def _tensor(
    storage: _Storage, offset: int, size: tuple, stride: tuple, *unused: Any
) -> StoredTensor:
    """torch._utils._rebuild_tensor_v2, with a check: strides of a damaged file could point outside the storage."""
    del unused
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise UserError(f"a tensor has size {size} and stride {stride}: the file is damaged")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if math.prod(size) and last >= storage.numel:
        raise UserError(
            f"a tensor reaches beyond its storage of {storage.numel}: the file is damaged"
        )
    return StoredTensor(storage, offset, tuple(size), tuple(stride))


def _parameter(tensor: StoredTensor, *unused: Any) -> StoredTensor:
    del unused
    return tensor
