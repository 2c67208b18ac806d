"""Bad steps: if the loss spikes or a number is not finite, the run stops or the update is skipped.

The compiled step chooses by `where` over the state, not by a condition: XLA's CPU backend runs the inside of a
condition on one core, and a select costs nothing beside an optimizer's update.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lvm_jax.errors import UserError
from lvm_jax.metrics.states import Mean
from lvm_jax.tasks.base import Batch, State, Task, leaf_name

_DECAY = 0.95  # of the running mean of the loss: about the last 20 steps
_COUNTED_FIRST = 20  # good steps before a loss can count as a spike: the mean must settle first

SKIPPED = "skipped"  # metric of a guarded task: 1 where the update was skipped


class BadStep(UserError):
    """A number was not finite, or too many bad steps came in a row. No checkpoint holds such a state."""


_NAMED = 3  # tensors of a bad state that the message names


def check_state(state: State, what: str, fix: str) -> None:
    """Requires every number of a state to be finite. A step's metrics do not tell: they come before its update.

    Args:
      state: on the mesh; all processes call this together.
      what: the message's name for it, such as "the state after step 3".
      fix: what the message advises.

    Raises:
      BadStep: names the first tensors with NaN or infinity.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    good, finite = _finite({leaf_name(path): leaf for path, leaf in leaves})
    if not good:
        bad = [name for name, fine in jax.device_get(finite).items() if not fine]
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise BadStep(f"{what} has NaN or infinity in {', '.join(bad[:_NAMED])}{more}: {fix}")


@jax.jit
def _finite(leaves: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether all leaves are finite, and whether each is: the first costs one copy to the host."""
    finite = {name: jnp.isfinite(leaf).all() for name, leaf in leaves.items()}
    return jnp.stack([*finite.values()]).all(), finite


class GuardedTask:
    """A task that skips bad updates: parameters and optimizer stay, but the step counts, and data and keys go on.

    The state gets `guard`: how many steps in a row were skipped, and the running mean of the loss. So a resumed run
    decides like one that never stopped.

    Args:
      task: its metrics must contain `loss`.
      active: whether to judge steps. If not, the step is the task's own, but the state has the same structure.
      spike_factor: a loss above this many times its running mean is bad; 0: only numbers that are not finite are.
    """

    def __init__(self, task: Task, active: bool, spike_factor: float = 0.0) -> None:
        self._task, self._active, self._spike_factor = task, active, spike_factor
        self.name = task.name

    @property
    def constants(self) -> Mapping[str, Any]:
        """The task's."""
        return self._task.constants

    def init(self, key: jax.Array) -> State:
        """The task's state with an empty guard."""
        guard = {
            "in_a_row": jnp.zeros((), jnp.int32),
            "counted": jnp.zeros((), jnp.int32),
            "loss": jnp.zeros((), jnp.float32),
        }
        return {**self._task.init(key), "guard": guard}

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """The task's step; if it is bad, the old state with only the step advanced."""
        guard = state["guard"]
        old = {name: part for name, part in state.items() if name != "guard"}
        new, metrics = self._task.step(old, batch, key)
        if not self._active:
            return {**new, "guard": guard}, {**metrics, SKIPPED: Mean(jnp.zeros(()), jnp.ones(()))}
        weight = metrics["loss"].weight
        # A batch in which nothing counts has no loss: it is neither a spike nor a part of the running mean.
        counts = jnp.asarray(weight) > 0
        loss = metrics["loss"].total / jnp.where(counts, weight, 1.0)
        # A sum is finite only if every summand is: one reduction per array, of metrics and of the new state, whose
        # parameters or moments can overflow although the loss is still finite.
        numbers = [mean.total for mean in metrics.values()]
        numbers += [
            jnp.sum(x) for x in jax.tree.leaves(new) if jnp.issubdtype(x.dtype, jnp.inexact)
        ]
        good = jnp.all(jnp.isfinite(jnp.stack([jnp.asarray(x, jnp.float32) for x in numbers])))
        if self._spike_factor:
            # Divided by the weights so far, as Adam does: the running mean starts from 0.
            mean = guard["loss"] / (1 - _DECAY ** jnp.maximum(guard["counted"], 1))
            usual = loss <= self._spike_factor * mean
            good &= usual | (guard["counted"] < _COUNTED_FIRST) | ~counts
        kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
        entered = good & counts
        mixed = _DECAY * guard["loss"] + (1 - _DECAY) * loss
        next_guard = {
            "in_a_row": jnp.where(good, 0, guard["in_a_row"] + 1),
            "counted": guard["counted"] + entered,
            "loss": jnp.where(entered, mixed, guard["loss"]),
        }
        metrics = {**metrics, SKIPPED: Mean(1.0 - good, jnp.ones(()))}
        return {**kept, "step": new["step"], "guard": next_guard}, metrics

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The task's."""
        return self._task.batch_spec(global_batch)

    def flops_per_batch(self, global_batch: int) -> float:
        """The task's."""
        return self._task.flops_per_batch(global_batch)

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """The task's."""
        return self._task.items_per_batch(global_batch)


class Judge:
    """Reads the metrics of steps on the host, in order, and raises when training must stop.

    Args:
      max_skips: how many steps in a row may be skipped.
      in_a_row: how many were already skipped when the run was resumed.
    """

    def __init__(self, max_skips: int, in_a_row: int = 0) -> None:
        self._max_skips, self._in_a_row = max_skips, in_a_row

    def counted(self, steps: Sequence[tuple[int, Mapping[str, Mean]]]) -> list[Mapping[str, Mean]]:
        """The metrics that count: those of a skipped step get weight 0, except `skipped` itself.

        Args:
          steps: (step, metrics) on the host.

        Raises:
          BadStep: a number is not finite, or more than `max_skips` steps in a row were skipped.
        """
        return [self._judge(step, metrics) for step, metrics in steps]

    def _judge(self, step: int, metrics: Mapping[str, Mean]) -> Mapping[str, Mean]:
        if not (SKIPPED in metrics and metrics[SKIPPED].total):
            self._in_a_row = 0
            for name, mean in metrics.items():
                if not math.isfinite(mean.total):
                    raise BadStep(
                        f"train/{name} is {float(mean.total)} at step {step}: the last checkpoint is intact; resume it "
                        "with --config.train.on_bad_step=skip, or begin another workdir with a lower learning rate"
                    )
            return metrics
        self._in_a_row += 1
        if self._in_a_row > self._max_skips:
            loss = metrics["loss"].compute()
            more = (
                "a larger config.train.max_skips"
                if self._max_skips
                else "--config.train.on_bad_step=skip, config.train.max_skips above 0,"
            )
            raise BadStep(
                f"train/loss is {loss:.4g} at step {step}, not finite or a spike, and {self._in_a_row} steps in a row "
                f"were bad (limit {self._max_skips}): the last checkpoint is intact; resume it with {more} or a larger "
                "spike_factor, or begin another workdir with a lower learning rate"
            )
        return {name: m if name == SKIPPED else Mean(0.0, 0.0) for name, m in metrics.items()}
