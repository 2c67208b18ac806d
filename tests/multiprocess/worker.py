"""One of several processes: trains the linear task on its slice of every batch, in each workdir that is named.

python worker.py STEPS SIGTERM_AT WORKDIR...     SIGTERM_AT: the batch, counted from 0, at which process 1 of the last
                                                 training is told to stop; -1 for never
"""

import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "training"))

import jax
import jax.numpy as jnp
from linear_task import LinearBatches, LinearTask

from lvm_jax.evaluation.held_out_loss import held_out_loss
from lvm_jax.parallel import runtime
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.training.loop import TrainConfig, train


class SlicedBatches(LinearBatches):
    """This process's rows of each batch."""

    def __next__(self):
        rows = self.batch_size // jax.process_count()
        mine = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
        return {name: value[mine] for name, value in super().__next__().items()}


class HeldOut:
    """Two batches that no training reads."""

    def __iter__(self):
        batches = SlicedBatches()
        batches.set_state(1_000)
        return iter([next(batches), next(batches)])


def loss(params, batch):
    error = batch["x"] @ params["kernel"].get_value() - batch["y"]
    return jnp.sum(error**2), jnp.float32(error.size)


def run(workdir, steps, sigterm_at):
    def on_step(step):
        if step == sigterm_at and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        elif 0 <= sigterm_at < step:
            time.sleep(0.3)  # the others hear of it a second later: before the last step

    config = TrainConfig(steps=steps, batch_size=8, log_every=5, eval_every=10, checkpoint_every=10)
    mesh = make_mesh()
    held_out = held_out_loss(loss, HeldOut(), BatchPlacement(mesh, 8))
    batches = SlicedBatches(on_step=on_step)
    return train(LinearTask(), batches, config, mesh=mesh, workdir=workdir, evaluations=[held_out])


def main():
    steps, sigterm_at, *workdirs = sys.argv[1:]
    runtime.initialize()
    for workdir in workdirs:
        state = run(workdir, int(steps), int(sigterm_at) if workdir == workdirs[-1] else -1)
    kernel = state["params"]["kernel"].get_value()
    assert jax.process_count() == 1 or not kernel.is_fully_addressable, "the state is not split"


if __name__ == "__main__":
    main()
