"""Pickles of weights, read without running the code that they name.

A pickle can call any function of any module with any arguments: loading a stranger's file with plain `pickle` runs the
stranger's program. Here the caller gives a short list of names, and any other name stops the reading before anything
is called.
"""

import pickle
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from etils import epath

from lvm_jax.errors import UserError

Resolve = Callable[[str, str], Any]  # (module, name) -> the object to use for it, or None to refuse


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that calls only what `resolve` gives it."""

    def __init__(self, file: IO[bytes], name: epath.PathLike, resolve: Resolve):
        """`name` is the file's, for messages."""
        super().__init__(file)
        self._file, self._resolve = str(name), resolve

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The object to use for a name in the pickle.

        Raises:
          UserError: the name is not on the caller's list.
        """
        found = self._resolve(module_name, global_name)
        if found is None:
            raise UserError(
                f"{self._file} asks for {module_name}.{global_name}, which is not a tensor: nothing of it was run; "
                "get the weights from a source you trust, if possible as safetensors"
            )
        return found


def read_arrays(path: epath.PathLike) -> Any:
    """Reads a pickle of NumPy arrays in lists and dicts.

    Raises:
      UserError: it asks for anything else.
    """
    with epath.Path(path).open("rb") as file:
        return RestrictedUnpickler(file, path, _numpys_own).load()


def _numpys_own(module_name: str, global_name: str) -> Any:
    if global_name == "_reconstruct" and module_name.endswith("core.multiarray"):
        # NumPy 2 moved this function to another module: an array knows the installed one.
        return np.empty(0).__reduce__()[0]
    return {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}.get(
        (module_name, global_name)
    )
