"""What checks annotations while the tests run: shape and dtype of arrays at every call, and nothing else.

All other types are pyright's business. To check them here as well would forbid the tests of a user's mistakes, which
pass what no annotation allows, and would ask every protocol to be `runtime_checkable`.
"""

import contextlib
import types
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import beartype
import jax
import jaxtyping
import numpy as np


def install(rooms: Sequence[str]) -> None:
    """Checks these rooms of lvm_jax, which nothing may have imported yet."""
    # What takes JAX arrays takes NumPy's as well, under jit and outside of it, and many tests pass them. Outside of jit
    # jax.checkpoint gives constants back as NumPy scalars.
    jaxtyping.Array = jax.Array | np.ndarray | np.generic  # pyright: ignore[reportAttributeAccessIssue]
    jaxtyping.install_import_hook([f"lvm_jax.{room}" for room in rooms], f"{__name__}.checked")


def checked(function: types.FunctionType) -> Any:
    """`function`, with those of its annotations checked that name an array of jaxtyping."""
    # JAX rebuilds a dataclass that is a pytree around what is no array: shapes, shardings, None.
    if function.__name__ == "__init__":
        return function
    annotations = function.__annotations__
    function.__annotations__ = {
        name: hint for name, hint in annotations.items() if _names_an_array(hint)
    }
    return beartype.beartype(function)


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """For a test that passes a wrong array on purpose, to read what the code says of it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def _names_an_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_names_an_array(inner) for inner in get_args(hint))
