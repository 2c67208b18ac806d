"""The one training loop: from a task and an iterator of batches to a trained state.

The order within step N is fixed: fetch its batch; dispatch it; while the device computes, read the metrics of the log
window that closed before; then do what is due at N: evaluate, checkpoint. The loop never waits for the step that it has
just dispatched, except before an evaluation or a checkpoint, which need its result.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lvm_jax import config as configs
from lvm_jax.errors import UserError
from lvm_jax.parallel.runtime import StopSignal
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.base import State, Task
from lvm_jax.training.bad_steps import Judge, check_state
from lvm_jax.training.checkpoint import Checkpointer
from lvm_jax.training.goodput import Ledger
from lvm_jax.training.profiler import Profiler
from lvm_jax.training.run_log import RunLog
from lvm_jax.training.step import abstract_state, compile_step, guarded, init_state
from lvm_jax.training.throughput import peak_flops
from lvm_jax.training.train_config import TrainConfig
from lvm_jax.training.watchdog import Watchdog
from lvm_jax.training.workdir import claim, leave

_AFTER_A_STEP = (
    "it is not saved, and earlier checkpoints are intact; resume with --config.train.on_bad_step=skip, or begin "
    "another workdir with a lower learning rate or a larger eps of the optimizer"
)


class Batches(Protocol):
    """An endless iterator over host-local rows; its whole state is the number of the next step."""

    def __next__(self) -> Mapping[str, np.ndarray]: ...
    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]: ...
    def get_state(self) -> int:
        """The step whose batch comes next."""
        ...

    def set_state(self, step: int) -> None:
        """Makes the batch of `step` the next one."""
        ...


class Evaluation(Protocol):
    """Measures or draws something during training, such as the validation loss or a sheet of samples."""

    def __call__(self, step: int, state: State) -> Mapping[str, float]:
        """Returns the numbers to log; it may also write pictures."""
        ...


@dataclasses.dataclass(frozen=True)
class Every:
    """An evaluation with its own period: every `steps` steps and after the last one; 0: only after the last."""

    steps: int
    evaluation: Evaluation


def train(
    task: Task,
    batches: Batches,
    config: TrainConfig,
    *,
    mesh: Mesh,
    workdir: epath.PathLike,
    evaluations: Sequence[Evaluation | Every] = (),
    experiment: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    warm_start: Callable[[State], State] | None = None,
) -> State:
    """Trains to `config.steps`, resuming from the newest undamaged checkpoint of the workdir.

    Args:
      task: computes a step.
      batches: the training data; the loop sets its position.
      config: length, batch and periods.
      mesh: the devices.
      workdir: gets config.json, checkpoints/, metrics.jsonl, goodput.json, tensorboard/ and profile/.
      evaluations: run every `eval_every` steps, or with their own period (`Every`), and after the last step.
      experiment: the complete configuration, for config.json and for the check at resume; default: `config`.
      defaults: of the keys of `experiment`: what a run did that began before such a key existed.
      warm_start: changes a fresh state on the mesh before the first step, for example to import weights.

    Returns:
      The final state, sharded over the mesh; its entry `guard` belongs to the loop.

    Raises:
      UserError: the workdir belongs to another configuration, all its checkpoints are damaged, the disk is full, or the
        batch does not divide over the mesh.
      BadStep: a number is not finite, or the loss spiked, and the configuration says to stop; earlier checkpoints are
        intact.
      KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once a checkpoint is on disk.
    """
    ledger, workdir = Ledger(), epath.Path(workdir)
    placement = BatchPlacement(mesh, config.batch_size)
    is_new = claim(workdir, configs.to_dict(experiment or config), config.print_config, defaults)
    task = guarded(task, config)
    # On a CPU it times a product, which must not run under the mesh; the result is cached.
    peak_flops()
    with (
        contextlib.ExitStack() as leaving,
        jax.set_mesh(mesh),
        StopSignal() as stop,
        Watchdog(ledger.running, config.watchdog_seconds),
        contextlib.ExitStack() as closing,
    ):
        checkpoints = Checkpointer(workdir, config.keep_checkpoints, config.keep_every_steps)
        closing.callback(checkpoints.close)
        if is_new and checkpoints.latest_step() is None:
            leaving.callback(leave, workdir)
        state, start, meta = _restore_or_init(task, batches, config, mesh, checkpoints, warm_start)
        max_skips = config.max_skips if config.on_bad_step == "skip" else 0
        judge = Judge(max_skips, int(state["guard"]["in_a_row"]))
        log = RunLog(task, config, workdir, start, meta, ledger, judge)
        closing.callback(log.close)
        profiler = Profiler(workdir, *config.profile_steps)
        closing.callback(profiler.close)
        step_fn = compile_step(task, config.seed)
        # Whole on every device, and put there once: an argument left on the host would be copied in every step.
        constants = jax.device_put(task.constants, NamedSharding(mesh, PartitionSpec()))

        for step in log.steps():
            with log.waiting_for_data():
                rows = next(batches)
            batch = placement.put(rows)

            profiler.before(step)
            with log.dispatching(step):
                state, metrics = step_fn(state, batch, constants)
            leaving.pop_all()  # it has begun: only the same configuration goes on
            log.add(step, metrics)
            profiler.after(step, metrics)

            stopping = stop.reached(step)  # all hosts ask in each step, and all get one answer
            due = _due_evaluations(evaluations, step, config)
            save = stopping or _is_due(step, config.checkpoint_every, config.steps)
            if due or save:
                # Book the rest of this step as training, not as a pause.
                jax.block_until_ready(metrics)
                log.judge()  # the metrics first: they lie nearer to the cause
                check_state(state, f"the state after step {step}", _AFTER_A_STEP)
            # Evaluations come before the checkpoint: a run killed during one repeats it, because it resumes earlier.
            if due:
                log.evaluate(step, state, due)
            if save:
                with ledger.phase("checkpoint"):
                    checkpoints.save(step, state, batches.get_state(), log.meta())
            if stopping:
                break

        with ledger.phase("checkpoint"):
            checkpoints.wait()
        closing.close()  # writes everything to disk before `finish` may end the process
        stop.finish()
    return state


def _is_due(step: int, period: int, last: int) -> bool:
    return step == last or (period > 0 and step % period == 0)


def _due_evaluations(
    evaluations: Sequence[Evaluation | Every], step: int, config: TrainConfig
) -> list[Evaluation]:
    timed = [e if isinstance(e, Every) else Every(config.eval_every, e) for e in evaluations]
    return [e.evaluation for e in timed if _is_due(step, e.steps, config.steps)]


def _restore_or_init(
    task: Task,
    batches: Batches,
    config: TrainConfig,
    mesh: Mesh,
    checkpoints: Checkpointer,
    warm_start: Callable[[State], State] | None,
) -> tuple[State, int, Mapping[str, Any]]:
    """(state, steps done, the checkpoint's meta); also sets `batches` to the next step."""
    if checkpoints.latest_step() is None:
        batches.set_state(0)
        state = init_state(task, config.seed, mesh)
        if warm_start:
            state = warm_start(state)
            check_state(state, "the model to start from", "export it again, or use another one")
        return state, 0, {}
    state, next_step, meta, rejected = checkpoints.restore(abstract_state(task, mesh))
    if meta["task"] != task.name:
        raise UserError(
            f"the checkpoint is of task {meta['task']!r}, not {task.name!r}: name another workdir"
        )
    check_state(
        state,
        f"checkpoint {int(state['step'])}",
        "move it out of the workdir to resume from the one before, or begin another workdir",
    )
    batches.set_state(next_step)
    return state, int(state["step"]), {**meta, "rejected": rejected}
