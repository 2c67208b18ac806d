"""PyTorch's tensor files as numpy arrays, without PyTorch and without running the code that they name.

A file of `torch.save` (1.6 and later) is a zip: `NAME/data.pkl` is a pickle whose tensors refer to storages, the files
`NAME/data/KEY`. A pickle can call any function. What this reader does with the names in it:

| name | becomes |
|---|---|
| tensors, parameters, their storages, `torch.Size`, dicts of `collections` | our own, which BUILD cannot change |
| what runs code: of `os`, `subprocess`, `sys`, ..., and most of `builtins` | a refusal of the whole file |
| any other, such as `argparse.Namespace`, NumPy's scalars, `torch.dtype`, a framework's callback | a placeholder |

A placeholder swallows what it is given and calls nothing. It is skipped where it stands beside the weights; a tensor
inside one, such as a sparse or a quantised tensor, is refused by name.
"""

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import zipfile
import zlib
from collections.abc import Callable, Mapping
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
# What the unpickler raises on bytes that are no pickle, or not one of tensors.
_OF_DAMAGE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, ValueError)
_OF_DAMAGE += (OverflowError, RecursionError, MemoryError, NotImplementedError)
# Nothing of these modules has a place beside weights: whoever wrote the file meant to run something. Without this list
# the names would become placeholders, which are as harmless; but the user should hear of it.
_RUN_CODE = ("os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "importlib", "runpy")
_RUN_CODE += ("pty", "ctypes", "pickle", "_pickle", "marshal", "webbrowser")
# getattr: Python 3.11 writes members of enumerations with it.
_BUILTINS = ("object", "set", "frozenset", "complex", "bytearray", "slice", "range", "int", "float")
_BUILTINS += ("bool", "str", "bytes", "list", "tuple", "dict", "type", "getattr")
# Elements of a tensor that repeats its storage by strides of 0; a larger one would fill the memory.
_MOST_REPEATED = 1 << 24
_MOST_DIMENSIONS = 32  # NumPy's


def read_tensors(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads all tensors of `open_tensors`."""
    return {name: tensor[...] for name, tensor in open_tensors(path).items()}


def open_tensors(path: epath.PathLike) -> dict[str, "StoredTensor"]:
    """The tensors of a state dict, or of the `state_dict` in a training checkpoint; skips other values.

    Raises:
      UserError: the file is missing, damaged or of an older format, its pickle would run code, or a weight is of a kind
        that this reader lacks.
    """
    path = epath.Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            tree = _read(archive, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): check the path") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged, or older than torch 1.6 ({error}): load and save it with a newer torch"
        ) from error
    except UserError:
        raise
    except _OF_DAMAGE as error:
        raise UserError(
            f"{path} is not a file of tensors ({type(error).__name__}): download it again"
        ) from error
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict | _Placeholder):
        tree = tree["state_dict"]
    if isinstance(tree, _Placeholder):
        raise UserError(
            f"{path} holds an object of {tree.origin} in place of a state dict: save `model.state_dict()` with torch"
        )
    return _weights(tree if isinstance(tree, dict) else {}, path)


def _weights(entries: Mapping[Any, Any], path: epath.Path) -> dict[str, "StoredTensor"]:
    """The tensors among the entries.

    Raises:
      UserError: there is none, or one is inside a placeholder.
    """
    for name, value in entries.items():
        if isinstance(value, _Placeholder) and value.holds_weights:
            raise UserError(
                f"{path}: {name!s:.80} is a weight of the kind {value.origin}, which is not read: save it as a dense "
                "tensor, if possible as safetensors"
            )
    tensors = {str(k): v for k, v in entries.items() if isinstance(v, StoredTensor)}
    if not tensors:
        raise UserError(f"{path} holds no state dict: give a file of named tensors")
    return tensors


class _Sealed:
    """What a pickle may hold and call but not change: its BUILD would write any attribute, behind our checks."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes an object that was already checked")


@dataclasses.dataclass(frozen=True)
class _Storage(_Sealed):
    """A file of numbers in the archive, not yet read."""

    path: epath.Path
    entry: str
    dtype: np.dtype
    numel: int

    def read(self) -> np.ndarray:
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                content = archive.read(self.entry)
        except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
            raise UserError(f"{self.path} is damaged ({error}): download it again") from error
        if len(content) != self.numel * self.dtype.itemsize:
            raise UserError(f"{self.path}: {self.entry} is cut short; download it again")
        return np.frombuffer(content, self.dtype)


@dataclasses.dataclass(frozen=True)
class StoredTensor(_Sealed):
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
    compressed = [e.filename for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED]
    if compressed:  # torch stores; a small file could claim to unpack to any size
        raise UserError(f"{name} is compressed ({compressed[0]}): save it again with torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise UserError(f"{name} was written on a big-endian machine: save it again on another")
    return _TensorUnpickler(archive, root, name).load()


class _StorageType(_Sealed):
    """A storage's type, as the pickle names it."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class _Placeholder:
    """Stands in for an object that the weights do not need: constructing, filling and calling it does nothing.

    Attributes:
      origin: the name in the pickle.
      holds_weights: whether it was given a tensor or a storage.
    """

    origin = ""
    holds_weights = False

    def __init__(self, *args: Any, **kwargs: Any):
        self._take((args, kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> "_Placeholder":
        self._take((args, kwargs))
        return self

    def __setstate__(self, state: Any) -> None:
        self._take(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._take(value)

    def append(self, value: Any) -> None:
        """A list's, as a pickle calls it."""
        self._take(value)

    def extend(self, values: Any) -> None:
        """A list's, as a pickle calls it."""
        self._take(values)

    def add(self, value: Any) -> None:
        """A set's, as a pickle calls it."""
        self._take(value)

    def _take(self, value: Any) -> None:
        self.holds_weights = self.holds_weights or _holds_weights(value)


def _holds_weights(value: Any) -> bool:
    """Whether a tensor is somewhere in lists and dicts; looks at each once, as a pickle can refer in circles."""
    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if isinstance(item, _Storage | StoredTensor):
            return True
        if isinstance(item, _Placeholder) and item.holds_weights:
            return True
        if isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(item.values() if isinstance(item, dict) else item)
    return False


class _Function(_Sealed):
    """One of our functions, as a pickle may call it."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class _TensorUnpickler(RestrictedUnpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str, name: epath.Path):
        content = archive.read(f"{root}data.pkl")
        _check_sizes(content)
        super().__init__(io.BytesIO(content), name, _stand_in)
        self._archive, self._root, self._name = archive, root, name

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, _, numel = pid
        if kind != "storage":
            raise UserError(
                f"{self._name} refers to a {kind!s:.40}: only tensors' storages are known"
            )
        if not isinstance(storage, _StorageType):
            unknown = _placeholder(getattr(storage, "origin", "an unknown storage"))()
            unknown.holds_weights = True
            return unknown
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        if not isinstance(numel, int) or entry.file_size != numel * storage.dtype.itemsize:
            raise UserError(f"{self._name}: storage {key} is cut short; download it again")
        return _Storage(self._name, entry.filename, storage.dtype, numel)


def _check_sizes(content: bytes) -> None:
    """Refuses a pickle whose numbers claim more than it holds: the unpickler would allocate first.

    Raises:
      ValueError: it does, or it is cut short.
    """
    for operation, argument, _ in pickletools.genops(content):
        memo = operation.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if memo and argument is not None and argument > len(content):
            raise ValueError("a memo beyond the end")


def _placeholder(origin: str) -> type[_Placeholder]:
    """A class of placeholders of its own for one name."""
    return type("Placeholder", (_Placeholder,), {"origin": origin[:80]})


def _stand_in(module_name: str, global_name: str) -> Any:
    """What a name in the pickle becomes, see the module; None refuses the file."""
    found = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): _Function(lambda *factory: {}),
        ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
        ("torch._utils", "_rebuild_parameter"): _Function(_parameter),
        ("torch", "Size"): tuple,
    }.get((module_name, global_name))
    if found is not None:
        return found
    if module_name == "torch" and global_name in _DTYPES:
        return _StorageType(_DTYPES[global_name])
    if module_name in ("builtins", "__builtin__"):
        runs_code = global_name not in _BUILTINS
    else:
        runs_code = module_name.split(".")[0] in _RUN_CODE
    return None if runs_code else _placeholder(f"{module_name}.{global_name}")


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *unused: Any) -> Any:
    """torch._utils._rebuild_tensor_v2, with a check: strides of a damaged file could point outside the storage."""
    del unused
    if isinstance(storage, _Placeholder):
        return storage
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise UserError("a tensor has a size or stride that is none: the file is damaged")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if math.prod(size) and last >= storage.numel:
        raise UserError(
            f"{storage.path}: a tensor reaches beyond its storage of {storage.numel}: the file is damaged"
        )
    # Empty tensors count as if they were not: NumPy multiplies their other dimensions.
    elements = math.prod(max(n, 1) for n in size)
    if len(size) > _MOST_DIMENSIONS or elements > max(storage.numel, _MOST_REPEATED):
        raise UserError(
            f"{storage.path}: a tensor has {len(size)} dimensions and repeats a storage of {storage.numel} beyond "
            f"{_MOST_REPEATED} elements: save it as a contiguous one"
        )
    # A dimension of 1 is never stepped along, whatever its stride.
    steps = tuple(0 if n == 1 else step for n, step in zip(size, stride))
    return StoredTensor(storage, offset, tuple(size), steps)


def _parameter(tensor: Any, *unused: Any) -> Any:
    del unused
    return tensor
