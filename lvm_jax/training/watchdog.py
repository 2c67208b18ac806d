"""A watchdog: a process that hangs says where, and ends, so that a supervisor can start it again."""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from lvm_jax.cli import EXIT_HUNG

# Start-up and compilation are not watched: no limit suits every model, and JAX itself limits how long hosts join.
WATCHED = {
    "data": "waiting for data",
    "training": "a training step",
    "checkpoint": "saving a checkpoint",
    "evaluation": "an evaluation",
}


class Watchdog:
    """Ends the process with `EXIT_HUNG` once a phase takes longer than `seconds`.

    First it prints the stacks of all threads to stderr. It watches from its own thread, because the main thread may be
    blocked in a collective or a read. Nothing else can end such a thread, so nothing is saved.

    Args:
      running: returns the running phase and its seconds so far (`Ledger.running`).
      seconds: limit of a single phase; 0: no limit.
    """

    def __init__(self, running: Callable[[], tuple[str, float]], seconds: float) -> None:
        self._running, self._seconds = running, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._seconds:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(self._seconds / 4, 10.0)):
            phase, seconds = self._running()
            if phase in WATCHED and seconds > self._seconds:
                print(
                    f"error: {WATCHED[phase]} has taken {seconds:.0f} s, more than config.train.watchdog_seconds="
                    f"{self._seconds:g}: the process ends with {EXIT_HUNG}; the same command goes on from the last "
                    "checkpoint. All threads:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                os._exit(EXIT_HUNG)
