"""The start and the end of a process: multi-host start-up, the compilation cache, and stop signals."""

import os
import signal
import threading
from types import FrameType, TracebackType

import jax

# Any of these says that a launcher started several processes; JAX reads the details from them itself.
_LAUNCHER_VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "COORDINATOR_ADDRESS",
    "OMPI_COMM_WORLD_SIZE",
    "MEGASCALE_COORDINATOR_ADDRESS",
)


def initialize(compile_cache: str | None = None) -> None:
    """Joins the other hosts where a launcher started several, and turns the compilation cache on.

    Call it once, before anything touches a device.

    Args:
      compile_cache: folder of compiled programs, kept between runs; default `$JAX_COMPILATION_CACHE_DIR`, else
        `~/.cache/lvm_jax/xla`.
    """
    launched = any(name in os.environ for name in _LAUNCHER_VARIABLES)
    several_tpu_hosts = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    several_slurm_tasks = int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if launched or several_tpu_hosts or several_slurm_tasks:
        jax.distributed.initialize()
    folder = compile_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or "~/.cache/lvm_jax/xla"
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class StopSignal:
    """Turns SIGINT and SIGTERM into a flag that a loop reads between two steps.

    A second SIGINT interrupts at once. Outside the main thread, where Python delivers no signals, it never fires.

    with StopSignal() as stop:
        while not stop.received: ...
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def finish(self) -> None:
        """Ends the process the way the signal asked, once everything is saved: 130 or 143 to the shell."""
        if self.received is signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
