"""Traces a few steps of a run into WORKDIR/profile, on demand."""

from typing import Any

import jax
from etils import epath


class Profiler:
    """Traces steps `first` to `last`, both included and counted from 1; (0, 0) traces nothing.

    Open the folder with TensorBoard's profile plugin or with xprof.
    """

    def __init__(self, workdir: epath.Path, first: int, last: int) -> None:
        self._folder, self._first, self._last = str(workdir / "profile"), first, last
        self._tracing = False

    def before(self, step: int) -> None:
        """Starts the trace at the first step."""
        if step == self._first:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def after(self, step: int, metrics: Any) -> None:
        """Stops the trace once the device has finished the last step."""
        if self._tracing and step == self._last:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Writes the trace, also when a run ends early."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
