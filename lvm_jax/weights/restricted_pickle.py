"""Pickles of weights, read without running what they ask for.

A pickle may name any function of any module and have it called with any arguments: whoever loads a stranger's file with
plain `pickle` runs the stranger's program. Here every name is looked up in a short list that the caller gives, and a
name that is not on it ends the reading before anything was called.
"""

import pickle
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from etils import epath

from lvm_jax.errors import UserError

Resolve = Callable[[str, str], Any]  # (module, name) -> what stands for it, or None to refuse


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that calls only what `resolve` gives it."""

    def __init__(self, file: IO[bytes], name: epath.PathLike, resolve: Resolve):
        """`name` is that of the file, for messages."""
        super().__init__(file)
        self._file, self._resolve = str(name), resolve

    def find_class(self, module_name: str, global_name: str) -> Any:
        """What stands for a name in the pickle.

        Raises:
          UserError: the name is not on the caller's list.
        """
        found = self._resolve(module_name, global_name)
        if found is None:
            raise UserError(
                f"{self._file} asks for {module_name}.{global_name}, which is no tensor: nothing of it was run; "
                "get the weights from a source you trust, as safetensors if there are any"
            )
        return found


def read_arrays(path: epath.PathLike) -> Any:
    """The contents of a pickle of NumPy arrays in lists and dicts.

    Raises:
      UserError: it asks for anything else.
    """
    with epath.Path(path).open("rb") as file:
        return RestrictedUnpickler(file, path, _numpys_own).load()


def _numpys_own(module_name: str, global_name: str) -> Any:
    if global_name == "_reconstruct" and module_name.endswith("core.multiarray"):
        # NumPy has moved this function between modules: taken from an array, it is this NumPy's.
        return np.empty(0).__reduce__()[0]
    return {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}.get(
        (module_name, global_name)
    )
