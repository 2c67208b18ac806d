"""A task's step and state as the loop uses them: judged, jitted and born sharded."""

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from lvm_jax.parallel.runtime import compiler_options
from lvm_jax.parallel.sharding import state_shardings
from lvm_jax.tasks.base import State, Task
from lvm_jax.training.bad_steps import GuardedTask
from lvm_jax.training.train_config import TrainConfig


def guarded(task: Task, config: TrainConfig) -> GuardedTask:
    """The task as the loop trains it: its updates are judged, if so configured."""
    active = config.on_bad_step == "skip" or config.spike_factor > 0
    return GuardedTask(task, active, config.spike_factor)


def compile_step(task: Task, seed: int) -> Any:
    """The task's step under jit: (state, batch, constants) -> (state, metrics); the state is donated.

    A step's key is fold_in(seed, step), so the state holds no key.
    """

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=compiler_options())
    def step_fn(state: State, batch: Any, constants: Any) -> tuple[State, Any]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        return task.step(state, {**batch, "constants": constants}, key)

    return step_fn


def init_state(task: Task, seed: int, mesh: Mesh) -> State:
    """The state at step 0, born sharded: each device computes only its own shards."""
    abstract = jax.eval_shape(task.init, jax.random.key(seed))
    shardings = state_shardings(abstract, mesh)
    return jax.jit(task.init, out_shardings=shardings)(jax.random.key(seed))


def abstract_state(task: Task, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of the state, without computing it: a restore needs them."""
    abstract = jax.eval_shape(lambda: task.init(jax.random.key(0)))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        abstract,
        state_shardings(abstract, mesh),
    )
