"""The Task protocol: all that the training loop knows about what it trains."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from lvm_jax.metrics.states import Mean

# A dict pytree: "step" (int32 scalar), "params" (an nnx.State, or several by name), "opt" (optax states). Every array
# that the mesh may split is inside an `nnx.Variable` that carries its logical `axes`. Optimizers make their moments by
# mapping over the parameters, so the moments carry the axes too.
State = dict[str, Any]
Batch = Mapping[str, jax.Array]


class Task(Protocol):
    """What the loop trains.

    Attributes:
      name: of the progress bar and of checkpoints; a checkpoint of another task is refused.
    """

    name: str

    @property
    def constants(self) -> Mapping[str, Any]:
        """Arrays that a step reads as `batch["constants"]` and nothing trains; may be empty.

        They are arguments of the compiled step, which would otherwise embed a copy of them.
        """
        ...

    def init(self, key: jax.Array) -> State:
        """The state at step 0: a pure function of the key, traced under jit so that it is born sharded."""
        ...

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update: pure, jitted by the loop, which donates `state`; `key` is fold_in(seed, step).

        Returns the next state and the step's metrics as sums with weights.
        """
        ...

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a global batch."""
        ...

    def flops_per_batch(self, global_batch: int) -> float:
        """Model FLOPs of one step (forward and backward, no recomputation): the numerator of MFU."""
        ...

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """What throughput is counted in, such as ("tokens", 32768) or ("images", 128)."""
        ...
