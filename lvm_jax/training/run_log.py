"""The numbers of a training run: metric windows, read one step late, and seconds by cause; writes both."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.states import Mean
from lvm_jax.tasks.base import State, Task
from lvm_jax.training import goodput
from lvm_jax.training.bad_steps import Judge
from lvm_jax.training.goodput import Ledger
from lvm_jax.training.throughput import peak_flops
from lvm_jax.training.train_config import TrainConfig
from lvm_jax.training.writers import MetricWriters, make_writers

_Window = list[tuple[int, Mapping[str, Mean]]]


class RunLog:
    """Collects a run's metrics and writes one line per window of `log_every` steps.

    Args:
      task: gives the name, the FLOPs and the unit of throughput.
      config: gives the batch, the window and the last step.
      workdir: gets metrics.jsonl, tensorboard/ and goodput.json.
      start: the step from which training goes on.
      meta: the result of `meta()` at the checkpoint, {} for a new run. Its `window` holds the sums of the window that
        was open then, so an interrupted run writes the same lines as one that never stopped.
      ledger: the run's ledger; the seconds of earlier processes are added to it.
      judge: judges bad steps.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        workdir: epath.Path,
        start: int,
        meta: Mapping[str, Any],
        ledger: Ledger,
        judge: Judge,
    ) -> None:
        self._task, self._config, self._ledger, self._judge = task.name, config, ledger, judge
        self._unit, self._items = task.items_per_batch(config.batch_size)
        self._flops, self._peak = task.flops_per_batch(config.batch_size), peak_flops()
        # Metrics are global, so one process writes them for all.
        first = jax.process_index() == 0
        self._writer = (
            make_writers(workdir, start, config.wandb_project) if first else MetricWriters([])
        )
        self._ledger_path = workdir / "goodput.json" if first else None
        ledger.resume(goodput.load(workdir / "goodput.json"), meta.get("seconds", {}))
        self._carried = {
            name: Mean(np.float32(t), np.float32(w))
            for name, (t, w) in meta.get("window", {}).items()
        }
        self._open: _Window = []
        self._closed: tuple[int, _Window] | None = None
        self._newest: Mapping[str, Mean] = {}
        self._timed_steps, self._timed_from = 0, 0.0
        self._first_step = start + 1
        self._bar = tqdm(
            initial=start, total=config.steps, desc=task.name, unit="step", mininterval=0.5
        )
        if meta.get("rejected"):
            self._writer.write(start, {"damaged_checkpoints": meta["rejected"]})

    def steps(self) -> Iterator[int]:
        """The numbers of the remaining steps, counted from 1, with a progress bar."""
        for step in range(self._first_step, self._config.steps + 1):
            self._ledger.enter("training")  # the watchdog counts a step from here
            yield step
            self._bar.update()

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Time inside counts as `data` if the devices have run out of work by its end, else as `training`."""
        before = self._ledger.seconds()["data"]
        with self._ledger.phase("data"):
            yield
        # The step dispatched last is still running: waiting for data cost nothing.
        if not all(x.is_ready() for x in jax.tree.leaves(self._newest)):
            self._ledger.move(self._ledger.seconds()["data"] - before, "data", "training")

    def dispatching(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Time inside counts as `compile` at this process's first step, which builds the program."""
        first = step == self._first_step
        return self._ledger.phase("compile") if first else contextlib.nullcontext()

    def add(self, step: int, metrics: Mapping[str, Mean]) -> None:
        """Adds a step's metrics, which are still being computed; closes the window at multiples of `log_every`.

        First it reads the window that closed before, while the device works on this step. Then it waits for the
        previous step, so that at most one step is queued behind the running one: a Ctrl-C takes effect within two
        steps, and the progress bar tells the truth.
        """
        self._read_closed_window()
        if step == self._first_step:
            self._start_clock()  # throughput counts from here, when the program is built
        jax.block_until_ready(self._newest)
        self._newest = metrics
        self._open.append((step, metrics))
        self._timed_steps += 1
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._closed = (step, self._open)
            self._open = []

    def judge(self) -> None:
        """Reads all metrics so far, those of the open window too.

        Raises:
          BadStep: training must stop, and this state must not be saved.
        """
        self._read_closed_window()
        self._carried = self._merge(self._open)
        self._open = []

    def meta(self) -> dict[str, Any]:
        """What a checkpoint keeps of the steps judged so far: task, sums of the open window, seconds by cause."""
        window = {name: [float(m.total), float(m.weight)] for name, m in self._carried.items()}
        return {"task": self._task, "window": window, "seconds": self._ledger.seconds()}

    def evaluate(
        self, step: int, state: State, evaluations: Sequence[Callable[..., Mapping[str, float]]]
    ) -> None:
        """Runs the evaluations and writes their numbers."""
        self._read_closed_window()
        for evaluation in evaluations:
            with self._ledger.phase("evaluation"):
                values = evaluation(step, state)
            self._writer.write(step, values)

    def close(self) -> None:
        """Ends the progress bar, flushes the writers and saves the ledger."""
        self._bar.close()
        self._writer.close()
        self._save_ledger()

    def _read_closed_window(self) -> None:
        """Writes the closed window, if there is one."""
        if self._closed is not None:
            step, window = self._closed
            self._closed = None
            merged = self._merge(window)
            self._carried = {}
            self._write(step, merged)

    def _merge(self, window: _Window) -> dict[str, Mean]:
        counted = self._judge.counted(jax.device_get(window))
        return functools.reduce(metric_states.merge, counted, self._carried or None) or {}

    def _start_clock(self) -> None:
        self._timed_steps, self._timed_from = 0, self._busy_seconds()

    def _busy_seconds(self) -> float:
        seconds = self._ledger.seconds()
        return seconds["training"] + seconds["data"]

    def _save_ledger(self) -> None:
        if self._ledger_path is not None:
            self._ledger.save(self._ledger_path)

    def _write(self, step: int, merged: Mapping[str, Mean]) -> None:
        seconds = max(self._busy_seconds() - self._timed_from, 1e-9)
        steps_per_second = self._timed_steps / seconds
        self._start_clock()
        rate, mfu = self._items * steps_per_second, self._flops * steps_per_second / self._peak
        # If all steps of a window were skipped, there is no loss to write.
        values = {name: mean.compute() for name, mean in merged.items() if mean.weight}
        line = {f"train/{name}": value for name, value in values.items()}
        line |= {f"{self._unit}_per_second": rate, "mfu": mfu, **self._ledger.fractions()}
        self._writer.write(step, line)
        self._save_ledger()
        loss = f"loss {values['loss']:.3f}, " if "loss" in values else ""
        self._bar.set_postfix_str(f"{loss}{rate:,.0f} {self._unit}/s, MFU {mfu:.0%}", refresh=False)
