"""The smallest honest task: linear regression, with noise from the step's key, on batches made from the step."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lvm_jax.metrics.states import Mean

WIDTH = 16


class LinearTask:
    name = "linear"
    constants: ClassVar[dict] = {}

    def __init__(self, learning_rate: float = 0.01, width: int = WIDTH) -> None:
        self.tx = optax.adam(learning_rate)
        self.width = width
        self.traces = 0  # how often `step` was traced, which is how often it was compiled

    def init(self, key):
        kernel = jax.random.normal(key, (self.width, 8))
        params = nnx.State({"kernel": nnx.Param(kernel, axes=("embed", "mlp"))})
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": self.tx.init(params)}

    def step(self, state, batch, key):
        self.traces += 1

        def loss_fn(params):
            noise = 0.01 * jax.random.normal(key, batch["y"].shape)
            error = batch["x"] @ params["kernel"].get_value() + noise - batch["y"]
            return jnp.sum(error**2) / error.size

        loss, grads = jax.value_and_grad(loss_fn)(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        next_state = {"step": state["step"] + 1, "params": params, "opt": opt}
        return next_state, {"loss": Mean(loss * 8.0, 8.0)}

    def batch_spec(self, global_batch):
        row = jax.ShapeDtypeStruct((global_batch, 8), jnp.float32)
        return {"x": jax.ShapeDtypeStruct((global_batch, self.width), jnp.float32), "y": row}

    def flops_per_batch(self, global_batch):
        return 6.0 * global_batch * self.width * 8

    def items_per_batch(self, global_batch):
        return "rows", global_batch


class LinearBatches:
    """Batch of a step: a pure function of the step. A poisoned step has a NaN in it."""

    def __init__(self, batch_size: int = 8, poisoned_step: int = -1, on_step=None) -> None:
        self.batch_size, self.poisoned_step, self.on_step = batch_size, poisoned_step, on_step
        self._step = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.on_step:
            self.on_step(self._step)
        rng = np.random.default_rng(self._step)
        x = rng.standard_normal((self.batch_size, WIDTH), np.float32)
        y = x[:, :8] * 2.0
        if self._step == self.poisoned_step:
            y[0, 0] = np.nan
        self._step += 1
        return {"x": x, "y": y}

    def get_state(self):
        return self._step

    def set_state(self, step):
        self._step = step
