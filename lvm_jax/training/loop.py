"""The one training loop: from a task and an iterator of batches to a trained state.

Fixed order within a step: dispatch step N; then, while the device computes, read the metrics of the log window that
closed before it; then what is due at N: evaluate, checkpoint. The loop never waits for the step that it has just
dispatched, except before an evaluation or a checkpoint, which need its result.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from lvm_jax import config as configs
from lvm_jax.errors import UserError
from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.states import Mean
from lvm_jax.metrics.throughput import Stopwatch, peak_flops
from lvm_jax.metrics.writers import MetricWriter, NoWriter
from lvm_jax.parallel.runtime import StopSignal
from lvm_jax.parallel.sharding import BatchLayout, state_shardings
from lvm_jax.tasks.base import State, Task
from lvm_jax.training.checkpoint import Checkpointer


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how large, and how often; periods are in steps, 0 means never."""

    steps: int
    batch_size: int
    seed: int = 0
    log_every: int = 20
    eval_every: int = 1_000
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"config.train.{name} is {getattr(self, name)}: it must be at least 1"
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


class NonFiniteLoss(UserError):
    """A loss became NaN or infinite: training stops before such a state can reach a checkpoint."""


def train(
    task: Task,
    batches: Batches,
    config: TrainConfig,
    *,
    mesh: Mesh,
    workdir: epath.PathLike,
    evaluations: Sequence[Evaluation] = (),
    experiment: Mapping[str, Any] | None = None,
) -> State:
    """Trains to `config.steps`, resuming from the newest checkpoint of the workdir.

    Args:
      task: what a step is.
      batches: the training data; the loop sets its position.
      config: length, batch and periods.
      mesh: the devices.
      workdir: gets config.json, checkpoints/, metrics.jsonl and tensorboard/.
      evaluations: run every `eval_every` steps and after the last one.
      experiment: the complete configuration, for config.json and for the check at resume; default: `config`.

    Returns:
      The final state, sharded over the mesh.

    Raises:
      UserError: the workdir belongs to another configuration, or the batch does not divide over the mesh.
      NonFiniteLoss: the loss is NaN or infinite; earlier checkpoints are intact.
      KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once a checkpoint is on disk.
    """
    workdir = epath.Path(workdir)
    check_workdir(workdir, configs.to_dict(experiment or config))
    layout = BatchLayout(mesh, config.batch_size)
    peak_flops()  # measured before the mesh is set, where it has to be
    with jax.set_mesh(mesh), StopSignal() as stop:
        checkpoints = Checkpointer(workdir, keep=config.keep_checkpoints)
        state, start, window = _restore_or_init(task, batches, config, mesh, checkpoints)
        run = _Run(task, config, workdir, start, window)
        step_fn = compile_step(task, config.seed)
        constants = jax.device_put(task.constants, NamedSharding(mesh, PartitionSpec()))
        progress = tqdm(
            range(start, config.steps),
            initial=start,
            total=config.steps,
            desc=task.name,
            unit="step",
            mininterval=0.5,
        )
        try:
            for done in progress:
                step = done + 1
                state, metrics = step_fn(state, layout.put(next(batches)), constants)
                progress.set_postfix_str(run.read_closed_window(), refresh=False)
                if done == start:
                    run.start_clock()
                run.add(step, metrics)
                last = step == config.steps
                evaluate = last or _due(step, config.eval_every)
                save = last or stop.received is not None or _due(step, config.checkpoint_every)
                if evaluate or save:
                    jax.block_until_ready(
                        metrics
                    )  # what is still being computed is training, not a pause
                with run.watch.pause():
                    if evaluate:
                        run.evaluate(step, state, evaluations)
                    if save:
                        window = (
                            run.open_window()
                        )  # a loss that is not finite raises before it is saved
                        meta = {"task": task.name, "window": window}
                        checkpoints.save(step, state, batches.get_state(), meta)
                if stop.received is not None:
                    break
        finally:
            progress.close()
            run.close()
            checkpoints.close()
        stop.finish()
    return state


def compile_step(task: Task, seed: int) -> Any:
    """The task's step under jit: (state, batch, constants) -> (state, metrics); the state is donated.

    The key of a step is fold_in(seed, step), so no key is part of the state.
    """

    @functools.partial(jax.jit, donate_argnums=0)
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
    abstract = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        abstract,
        state_shardings(abstract, mesh),
    )


def check_workdir(workdir: epath.Path, experiment: Mapping[str, Any]) -> None:
    """Writes config.json, or holds it against this run's.

    The mesh, periods of logging and saving, and where the data lies may change between two runs of a workdir; nothing
    else may.

    Raises:
      UserError: another configuration began this workdir; the differing keys are listed.
    """
    path = workdir / "config.json"
    experiment = json.loads(json.dumps(experiment))
    if path.exists():
        changed = [
            line
            for line in configs.differences(json.loads(path.read_text()), experiment)
            if not _may_change(line.split(":")[0])
        ]
        if changed:
            raise UserError(
                f"workdir {workdir} was begun with another configuration ({'; '.join(changed[:4])}): "
                "name another --workdir, or use the same configuration"
            )
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        partial = workdir / "config.json.partial"
        partial.write_text(json.dumps(experiment, indent=2) + "\n")
        partial.replace(path)


def _may_change(key: str) -> bool:
    periods = (".log_every", ".eval_every", ".checkpoint_every", ".keep_checkpoints")
    places = (".data.shards", ".data.images", ".data.held_out")
    return ".mesh." in key or key.endswith(periods + places)


class _Run:
    """The numbers of one training run: metric windows, read a step late, and where they are written.

    `window` holds the sums of the window that was open at the checkpoint, so that the lines of an interrupted run equal
    those of one that never stopped.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        workdir: epath.Path,
        start: int,
        window: Mapping[str, Sequence[float]],
    ) -> None:
        self._config = config
        self._unit, self._items = task.items_per_batch(config.batch_size)
        self._flops = task.flops_per_batch(config.batch_size)
        self._peak = peak_flops()
        self._writer = MetricWriter(workdir, start) if jax.process_index() == 0 else NoWriter()
        resumed = {name: Mean(np.float32(t), np.float32(w)) for name, (t, w) in window.items()}
        self._open: list[Mapping[str, Mean]] = [resumed] if resumed else []
        self._closed: tuple[int, list[Mapping[str, Mean]]] | None = None
        self._newest: Mapping[str, Mean] = {}
        self._timed_steps = 0
        self._shown = ""
        self.watch = Stopwatch()

    def start_clock(self) -> None:
        """Throughput counts from here: after the first step was compiled and dispatched."""
        self.watch.lap()
        self._timed_steps = 0

    def add(self, step: int, metrics: Mapping[str, Mean]) -> None:
        """Adds a step's metrics (still being computed); closes the window at a multiple of `log_every`.

        Waits for the step before, so that one step is queued behind the running one and not dozens: a Ctrl-C is
        answered within two steps, and the progress bar tells the truth.
        """
        jax.block_until_ready(self._newest)
        self._newest = metrics
        self._open.append(metrics)
        self._timed_steps += 1
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._closed = (step, self._open)
            self._open = []

    def read_closed_window(self) -> str:
        """Writes the window that was closed before, if any; returns the latest numbers in a few words."""
        if self._closed is not None:
            step, window = self._closed
            self._closed = None
            self._write(step, _finite(metric_states.compute(_merge(window)), f"before step {step}"))
        return self._shown

    def open_window(self) -> dict[str, list[float]]:
        """Reads all that was added, and returns the sums of the window in progress: name -> [total, weight]."""
        self.read_closed_window()
        merged = _merge(self._open)
        _finite(metric_states.compute(merged), "since the last logged step")
        return {name: [float(mean.total), float(mean.weight)] for name, mean in merged.items()}

    def evaluate(self, step: int, state: State, evaluations: Sequence[Evaluation]) -> None:
        """Runs the evaluations and writes their numbers."""
        self.read_closed_window()
        for evaluation in evaluations:
            self._writer.write(step, evaluation(step, state))

    def close(self) -> None:
        """Flushes the writers."""
        self._writer.close()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        steps_per_second = self._timed_steps / self.watch.lap()
        self._timed_steps = 0
        rate, mfu = self._items * steps_per_second, self._flops * steps_per_second / self._peak
        train_values = {f"train/{name}": value for name, value in values.items()}
        self._writer.write(step, {**train_values, f"{self._unit}_per_second": rate, "mfu": mfu})
        self._shown = f"loss {values['loss']:.3f}, {rate:,.0f} {self._unit}/s, MFU {mfu:.0%}"


def _merge(window: Sequence[Mapping[str, Mean]]) -> dict[str, Mean]:
    return functools.reduce(metric_states.merge, jax.device_get(list(window)), None) or {}


def _finite(values: Mapping[str, float], when: str) -> Mapping[str, float]:
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"train/{name} is {value} in the steps {when}: the last checkpoint is intact; "
                "resume it with a lower learning rate"
            )
    return values


def _due(step: int, period: int) -> bool:
    return period > 0 and step % period == 0


def _restore_or_init(
    task: Task, batches: Batches, config: TrainConfig, mesh: Mesh, checkpoints: Checkpointer
) -> tuple[State, int, Mapping[str, Sequence[float]]]:
    if checkpoints.latest_step() is None:
        batches.set_state(0)
        return init_state(task, config.seed, mesh), 0, {}
    state, next_step, meta = checkpoints.restore(abstract_state(task, mesh))
    if meta["task"] != task.name:
        raise UserError(
            f"the checkpoint is of task {meta['task']!r}, not {task.name!r}: name another workdir"
        )
    batches.set_state(next_step)
    return state, int(state["step"]), meta["window"]
