"""The start and the end of a process: multi-host start-up, the compilation cache, and stop signals."""

import os
import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

# Any of these says that a launcher started several processes; JAX reads the details from them itself.
_LAUNCHER_VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "COORDINATOR_ADDRESS",
    "OMPI_COMM_WORLD_SIZE",
    "MEGASCALE_COORDINATOR_ADDRESS",
)


def initialize(compile_cache: str | None = None) -> None:
    """Joins the other hosts where a launcher started several, and turns the compilation cache on.

    Call it once, before anything touches a device. TPU pods, SLURM, Open MPI and multislice are recognised; any other
    launcher sets `JAX_COORDINATOR_ADDRESS` (host:port of the first process), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Args:
      compile_cache: folder of compiled programs, kept between runs; default `$JAX_COMPILATION_CACHE_DIR`, else
        `~/.cache/lvm_jax/xla`.
    """
    launched = any(name in os.environ for name in _LAUNCHER_VARIABLES)
    several_tpu_hosts = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    several_slurm_tasks = int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if launched or several_tpu_hosts or several_slurm_tasks:
        count, index = (os.environ.get(f"JAX_{x}") for x in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(index) if index else None
        )
    folder = compile_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or "~/.cache/lvm_jax/xla"
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class StopSignal:
    """Turns SIGINT and SIGTERM into an answer that a loop asks for between two steps.

    Of several processes, one that is told to stop tells the others, through JAX's preemption service (which needs
    `jax.distributed` and takes SIGTERM itself): all stop after the same step. A second SIGINT interrupts at once, a
    second SIGTERM changes nothing. Outside the main thread, where Python delivers no signals, none is seen.

    with StopSignal() as stop:
        while not stop.reached(step): ...
        stop.finish()
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._several = jax.process_count() > 1
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM):
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
        if self._received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = self._received or signal.Signals(number)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's preemption service passes it on

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer on all processes, which must all ask for each step once."""
        if self._several and multihost_utils.reached_preemption_sync_point(step):
            self._received = self._received or signal.SIGTERM
            return True
        return not self._several and self._received is not None

    def finish(self) -> None:
        """Ends the process the way the signal asked, once everything is saved: 130 or 143 to the shell."""
        if self._received is signal.SIGINT:
            raise KeyboardInterrupt
        if self._received is signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
