"""The one training loop: from a task and an iterator of batches to a trained state.

Fixed order within a step: dispatch step N; then, while the device computes, read the metrics of the log window that
closed before it; then what is due at N: evaluate, checkpoint. The loop never waits for the step that it has just
dispatched, except before an evaluation or a checkpoint, which need its result.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from lvm_jax import config as configs
from lvm_jax.errors import UserError
from lvm_jax.parallel.runtime import StopSignal, compiler_options
from lvm_jax.parallel.sharding import BatchPlacement, state_shardings
from lvm_jax.tasks.base import State, Task
from lvm_jax.training.bad_steps import GuardedTask, Judge
from lvm_jax.training.checkpoint import Checkpointer
from lvm_jax.training.goodput import Ledger
from lvm_jax.training.profiler import Profiler
from lvm_jax.training.run_log import RunLog
from lvm_jax.training.throughput import peak_flops
from lvm_jax.training.watchdog import Watchdog
from lvm_jax.training.workdir import claim


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how large, and how often; periods are in steps, 0 means never.

    Checkpoints: the newest `keep_checkpoints` stay, and all whose step `keep_every_steps` divides.

    A bad step has a number that is not finite or, with a `spike_factor`, a loss above that many times its running mean.
    It stops the run, or its update is left out, up to `max_skips` times in a row.

    A batch, step, checkpoint or evaluation of more than `watchdog_seconds` ends the process (0: never), steps
    `profile_steps` (first, last) are traced, and a `wandb_project` sends the metrics there too. The configuration is
    printed whole at the start, or, without `print_config`, only where it is.
    """

    steps: int
    batch_size: int
    seed: int = 0
    log_every: int = 20
    eval_every: int = 1_000
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 2
    keep_every_steps: int = 0
    on_bad_step: Literal["stop", "skip"] = "stop"
    spike_factor: float = 0.0
    max_skips: int = 10
    watchdog_seconds: float = 1800.0
    profile_steps: tuple[int, int] = (0, 0)
    wandb_project: str = ""
    print_config: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"config.train.{name} is {getattr(self, name)}: it must be at least 1"
                )
        for name in ("spike_factor", "max_skips", "watchdog_seconds", "keep_every_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"config.train.{name} is {getattr(self, name)}: 0 or more")
        first, last = self.profile_steps
        if (first, last) != (0, 0) and not 0 < first <= last:
            raise UserError(
                f"config.train.profile_steps is {self.profile_steps}: (first, last), counted from 1, or (0, 0)"
            )


class Batches(Protocol):
    """An endless iterator of host-local rows whose whole state is the number of the next step."""

    def __next__(self) -> Mapping[str, np.ndarray]: ...
    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]: ...
    def get_state(self) -> int:
        """The step whose batch comes next."""
        ...

    def set_state(self, step: int) -> None:
        """Makes the batch of `step` the next one."""
        ...


class Evaluation(Protocol):
    """Something measured or drawn during training, such as the validation loss or a sheet of samples."""

    def __call__(self, step: int, state: State) -> Mapping[str, float]:
        """Returns the numbers to log; may write pictures of its own."""
        ...


@dataclasses.dataclass(frozen=True)
class Every:
    """An evaluation with a period of its own: every `steps` steps, and after the last one; 0: only then."""

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
    warm_start: Callable[[State], State] | None = None,
) -> State:
    """Trains to `config.steps`, resuming from the newest whole checkpoint of the workdir.

    Args:
      task: what a step is.
      batches: the training data; the loop sets its position.
      config: length, batch and periods.
      mesh: the devices.
      workdir: gets config.json, checkpoints/, metrics.jsonl, goodput.json, tensorboard/ and profile/.
      evaluations: run every `eval_every` steps, or in a period of their own (`Every`), and after the last one.
      experiment: the complete configuration, for config.json and for the check at resume; default: `config`.
      warm_start: what a fresh state becomes before the first step, such as one with imported weights, on the mesh.

    Returns:
      The final state, sharded over the mesh; `guard` is the loop's own part of it.

    Raises:
      UserError: the workdir belongs to another configuration, no checkpoint in it is whole, the disk is full, or the
        batch does not divide over the mesh.
      BadStep: a number is not finite, or the loss spiked, and the configuration says to stop; earlier checkpoints are
        intact.
      KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once a checkpoint is on disk.
    """
    ledger = Ledger()
    workdir = epath.Path(workdir)
    claim(workdir, configs.to_dict(experiment or config), config.print_config)
    placement = BatchPlacement(mesh, config.batch_size)
    skip = config.on_bad_step == "skip"
    task = guarded(task, config)
    scheduled = [e if isinstance(e, Every) else Every(config.eval_every, e) for e in evaluations]
    peak_flops()  # measured before the mesh is set, where it has to be
    with (
        jax.set_mesh(mesh),
        StopSignal() as stop,
        Watchdog(ledger.running, config.watchdog_seconds),
        contextlib.ExitStack() as closing,
    ):
        checkpoints = Checkpointer(workdir, config.keep_checkpoints, config.keep_every_steps)
        closing.callback(checkpoints.close)
        state, start, meta = _restore_or_init(
            task, batches, config, mesh, checkpoints, warm_start or (lambda state: state)
        )
        judge = Judge(config.max_skips if skip else 0, int(state["guard"]["in_a_row"]))
        log = RunLog(
            task,
            config.batch_size,
            workdir,
            start,
            meta,
            ledger,
            judge,
            log_every=config.log_every,
            last_step=config.steps,
            wandb_project=config.wandb_project,
        )
        closing.callback(log.close)
        profiler = Profiler(workdir, *config.profile_steps)
        closing.callback(profiler.close)
        step_fn = compile_step(task, config.seed)
        constants = jax.device_put(task.constants, NamedSharding(mesh, PartitionSpec()))
        progress = closing.enter_context(_progress(task.name, start, config.steps))
        ledger.enter("training")
        for done in progress:
            step = done + 1
            ledger.enter("training")  # the watchdog counts a step from here
            batch = placement.put(log.next_batch(batches))
            profiler.before(step)
            with ledger.phase("compile") if done == start else contextlib.nullcontext():
                state, metrics = step_fn(state, batch, constants)
            progress.set_postfix_str(log.read_closed_window(), refresh=False)
            if done == start:
                log.start_clock()
            log.add(step, metrics)
            profiler.after(step, metrics)
            last = step == config.steps
            stopping = stop.reached(step)
            evaluate = [e.evaluation for e in scheduled if last or _due(step, e.steps)]
            save = last or stopping or _due(step, config.checkpoint_every)
            if evaluate or save:
                # What is still being computed is training, not a pause.
                jax.block_until_ready(metrics)
            if evaluate:
                log.evaluate(step, state, evaluate)
            if save:
                with ledger.phase("checkpoint"):
                    meta = log.meta()  # a bad step raises before it is saved
                    checkpoints.save(step, state, batches.get_state(), meta)
            if stopping:
                break
        with ledger.phase("checkpoint"):
            checkpoints.wait()
        closing.close()
        stop.finish()
    return state


def _progress(name: str, start: int, steps: int) -> Any:
    return tqdm(
        range(start, steps), initial=start, total=steps, desc=name, unit="step", mininterval=0.5
    )


def guarded(task: Task, config: TrainConfig) -> GuardedTask:
    """The task as the loop trains it: with its updates judged, as configured."""
    active = config.on_bad_step == "skip" or config.spike_factor > 0
    return GuardedTask(task, active, config.spike_factor)


def compile_step(task: Task, seed: int) -> Any:
    """The task's step under jit: (state, batch, constants) -> (state, metrics); the state is donated.

    The key of a step is fold_in(seed, step), so no key is part of the state.
    """

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=compiler_options())
    def step_fn(state: State, batch: Any, constants: Any) -> tuple[State, Any]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        return task.step(state, {**batch, "constants": constants}, key)

    return step_fn


def init_state(task: Task, seed: int, mesh: Mesh) -> State:
    """The state at step 0, born sharded: each device computes only its own part."""
    abstract = jax.eval_shape(task.init, jax.random.key(seed))
    shardings = state_shardings(abstract, mesh)
    return jax.jit(task.init, out_shardings=shardings)(jax.random.key(seed))


def abstract_state(task: Task, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of the state, without computing it: what a restore needs."""
    abstract = jax.eval_shape(lambda: task.init(jax.random.key(0)))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        abstract,
        state_shardings(abstract, mesh),
    )


def _due(step: int, period: int) -> bool:
    return period > 0 and step % period == 0


def _restore_or_init(
    task: Task,
    batches: Batches,
    config: TrainConfig,
    mesh: Mesh,
    checkpoints: Checkpointer,
    warm_start: Callable[[State], State],
) -> tuple[State, int, Mapping[str, Any]]:
    if checkpoints.latest_step() is None:
        batches.set_state(0)
        return warm_start(init_state(task, config.seed, mesh)), 0, {}
    state, next_step, meta, rejected = checkpoints.restore(abstract_state(task, mesh))
    if meta["task"] != task.name:
        raise UserError(
            f"the checkpoint is of task {meta['task']!r}, not {task.name!r}: name another workdir"
        )
    batches.set_state(next_step)
    return state, int(state["step"]), {**meta, "rejected": rejected}
