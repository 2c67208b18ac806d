"""The Task protocol: all that the training loop knows about what it trains."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from lvm_jax.metrics.states import Mean

# A dict pytree: "step" (int32 scalar), "params" (an nnx.State, or several by name), "opt" (optax states). Every array
# that the mesh may split sits in an `nnx.Variable` with its logical `axes`. Optimizers build their moments by mapping
# over the parameters, so moments carry the axes too.
State = dict[str, Any]
Batch = Mapping[str, jax.Array]


def leaf_name(path: tuple[Any, ...]) -> str:
    """The readable name of a state's leaf, `params/layers/attention/query`, from its path in the tree."""
    parts = (jax.tree_util.keystr((key,), simple=True) for key in path)
    # Variables wrap their array in `value`, which says nothing.
    return "/".join(part for part in parts if part not in ("", "value"))


class Task(Protocol):
    """What the loop trains.

    Attributes:
      name: shown in the progress bar and saved in checkpoints; a checkpoint of another task is refused.
    """

    name: str

    @property
    def constants(self) -> Mapping[str, Any]:
        """Arrays that a step reads as `batch["constants"]` but does not train; may be empty.

        The compiled step takes them as arguments; as closures, it would embed a copy.
        """
        ...

    def init(self, key: jax.Array) -> State:
        """The state at step 0: a pure function of the key. The loop traces it under jit, so it is born sharded."""
        ...

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update. Pure: the loop jits it and donates `state`; `key` is fold_in(seed, step).

        Returns the next state, and the step's metrics as sums with weights.
        """
        ...

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a global batch."""
        ...

    def flops_per_batch(self, global_batch: int) -> float:
        """Model FLOPs of one step (forward and backward, no recomputation): the numerator of MFU."""
        ...

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """The unit of throughput and how many a batch has, such as ("tokens", 32768) or ("images", 128)."""
        ...
