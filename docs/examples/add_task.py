"""A task of your own, trained by the loop: a linear map is fitted to noisy products.

python docs/examples/add_task.py
"""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lvm_jax.metrics.states import Mean
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.training.loop import TrainConfig, train

WIDTH = 8


# --8<-- [start:task]
class LinearTask:
    """Fits y = x A. The loop knows a task by these members and by nothing else."""

    name = "linear"  # checkpoints carry it: another task's checkpoint is refused
    constants: Mapping[str, Any] = {}  # arrays that a step reads and nothing trains; none here

    def __init__(self, learning_rate: float) -> None:
        self.tx = optax.adam(learning_rate)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """The state at step 0. `axes` name what dimensions mean; the loop puts them on the mesh."""
        matrix = 0.1 * jax.random.normal(key, (WIDTH, WIDTH))
        params = nnx.State({"matrix": nnx.Param(matrix, axes=("embed", "mlp"))})
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": self.tx.init(params)}

    def step(
        self, state: dict[str, Any], batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[dict[str, Any], dict[str, Mean]]:
        """One update. The loop compiles it and donates `state`; `key` is fold_in(seed, step)."""

        def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
            noise = 0.01 * jax.random.normal(key, batch["y"].shape)
            errors = (batch["x"] @ params["matrix"].get_value() + noise - batch["y"]) ** 2
            return jnp.mean(errors), jnp.sum(errors)

        grads, total = jax.grad(loss, has_aux=True)(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        # A sum with its weight, so that means over steps and hosts weigh every number alike.
        metrics = {"loss": Mean(total, jnp.asarray(batch["y"].size, jnp.float32))}
        return {"step": state["step"] + 1, "params": params, "opt": opt}, metrics

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a batch."""
        row = jax.ShapeDtypeStruct((global_batch, WIDTH), jnp.float32)
        return {"x": row, "y": row}

    def flops_per_batch(self, global_batch: int) -> float:
        """Two for each weight forward, four backward."""
        return 6.0 * global_batch * WIDTH * WIDTH

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """What throughput is counted in."""
        return "rows", global_batch


# --8<-- [end:task]


# --8<-- [start:batches]
class LinearBatches:
    """The batch of a step is a pure function of the step: that alone makes resuming exact."""

    def __init__(self, rows: int) -> None:
        self._rows, self._step = rows, 0

    def __iter__(self) -> "LinearBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        x = np.random.default_rng(self._step).standard_normal((self._rows, WIDTH), np.float32)
        self._step += 1
        return {"x": x, "y": 2 * x}

    def get_state(self) -> int:
        """The step whose batch comes next."""
        return self._step

    def set_state(self, step: int) -> None:
        """Makes the batch of `step` the next one."""
        self._step = step


# --8<-- [end:batches]


# --8<-- [start:train]
def run(workdir: pathlib.Path) -> dict[str, Any]:
    """Trains, or goes on from the newest checkpoint in the workdir."""
    config = TrainConfig(steps=80, batch_size=16, log_every=10, checkpoint_every=20)
    mesh = make_mesh(MeshConfig())  # all devices
    return train(LinearTask(0.05), LinearBatches(16), config, mesh=mesh, workdir=workdir)


# --8<-- [end:train]


def main(folder: pathlib.Path) -> np.ndarray:
    """The second call finds the run finished, and returns what it restored."""
    run(folder)
    state = run(folder)
    return np.asarray(state["params"]["matrix"].get_value())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print(main(pathlib.Path(made)).round(2))
