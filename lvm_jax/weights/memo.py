"""Results that depend on a module's weights, computed again only when the weights change."""

import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from flax import nnx

Result = TypeVar("Result")


class WeightsMemo(Generic[Result]):
    """Remembers one result for each module; keeps neither the module nor its weights alive.

    A training step or an assignment to a parameter puts another array into the module, and the result is computed
    anew. Arrays are compared by identity, not by contents, so asking costs next to nothing.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[
            nnx.Module, tuple[Hashable, list[weakref.ref[Any]], Result]
        ] = weakref.WeakKeyDictionary()

    def of(self, module: nnx.Module, compute: Callable[[], Result], key: Hashable = None) -> Result:
        """The result of `compute()` for the module and its current weights.

        Args:
          module: the result depends on its parameters.
          compute: makes the result; must not keep the module. Its errors pass through, and nothing is remembered.
          key: whatever else the result depends on; only a module's last key is remembered.
        """
        arrays = [variable[...] for _, variable in nnx.to_flat_state(nnx.state(module, nnx.Param))]
        known = self._known.get(module)
        if known is not None:
            old_key, references, result = known
            # Weak references, not id(): the address of a freed array may be used again.
            if old_key == key and _are(references, arrays):
                return result
        result = compute()
        self._known[module] = key, [weakref.ref(x) for x in arrays], result
        return result


def _are(references: list[weakref.ref[Any]], arrays: list[Any]) -> bool:
    """Whether the references point to these very arrays."""
    return len(references) == len(arrays) and all(
        reference() is array for reference, array in zip(references, arrays)
    )
