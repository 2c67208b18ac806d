"""The start and the end of a process: multi-host start-up, the compilation cache, memory on a CPU, and stop signals."""

import ctypes
import glob
import importlib.util
import os
import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from lvm_jax.errors import UserError

# Any of these says that a launcher started several processes; JAX reads the details from them itself.
_LAUNCHER_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "MEGASCALE_COORDINATOR_ADDRESS")
# Where no launcher that JAX knows started the processes, all three say how they find each other.
_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_TPU_CHIPS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
_GPUS = ("/dev/nvidia[0-9]*", "/dev/kfd")
# Of mallopt(3): M_MMAP_MAX 0, no array in a mapping of its own; M_TRIM_THRESHOLD -1, never give back; M_ARENA_MAX 1.
_KEEP_FREED = ((-4, 0), (-1, -1), (-8, 1))

# Parameters are gathered while the layer before computes. Without the first two, a gather over all chips of a slice
# becomes an all-reduce of twice the bytes, for which everything waits (seen in programs compiled for v5p:4x4x4).
_TPU_OPTIONS: dict[str, str] = dict.fromkeys(
    (
        "xla_tpu_prefer_async_allgather_to_allreduce",
        "xla_enable_async_all_gather",
        "xla_tpu_enable_async_collective_fusion",
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
        "xla_tpu_enable_async_collective_fusion_multiple_steps",
        "xla_tpu_overlap_compute_collective_tc",
    ),
    "true",
)


def compiler_options() -> dict[str, str] | None:
    """Options of XLA for a training step on the mesh that is set; None: its defaults."""
    mesh = jax.sharding.get_mesh()
    on_tpu = not mesh.empty and mesh.devices.flat[0].platform == "tpu"
    return dict(_TPU_OPTIONS) if on_tpu else None


def initialize(compile_cache: str | None = None) -> None:
    """Joins the other hosts where there are several, and turns the compilation cache on.

    On a host without an accelerator, freed memory stays with the process: see `keep_freed_memory`.

    Call it once, before anything touches a device. Hosts of a Cloud TPU slice, and processes that SLURM or Open MPI
    started, are found by JAX; others are told by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
      compile_cache: folder of compiled programs, kept between runs; default `$JAX_COMPILATION_CACHE_DIR`, else
        `~/.cache/lvm_jax/xla`.

    Raises:
      UserError: a coordinator, but not how many processes there are and which this is.
    """
    if not (has_tpu() or any(glob.glob(pattern) for pattern in _GPUS)):
        keep_freed_memory()
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        _join_by_hand()
    elif (
        any(name in os.environ for name in _LAUNCHER_VARIABLES)
        or int(os.environ.get("SLURM_NTASKS", "1")) > 1
        or has_tpu()  # a slice of several hosts is told by their metadata, not by a variable
    ):
        jax.distributed.initialize()
    folder = compile_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or "~/.cache/lvm_jax/xla"
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Lets this process use freed memory again in place of new pages, for programs that XLA runs on CPUs.

    XLA allocates a step's temporary arrays anew for each step. glibc, which `mallopt` belongs to, hands arrays of more
    than 32 MiB back to the kernel when they are freed, and gets them as new pages, zeroed one by one: a fifth of a
    tokenizer's training step. Call it before JAX starts its threads, which keep the arena they began with. The process
    then never shrinks, and may come to hold the temporary arrays of all its programs side by side. Other C libraries
    have no `mallopt`, and are left as they are.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in _KEEP_FREED:
            libc.mallopt(parameter, value)


def has_tpu() -> bool:
    """Whether this is a TPU host on which JAX may use the TPU."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    wanted = not platforms or "tpu" in platforms.split(",")
    chips = any(glob.glob(pattern) for pattern in _TPU_CHIPS)
    return wanted and chips and importlib.util.find_spec("libtpu") is not None


def _join_by_hand() -> None:
    address, count, index = (os.environ.get(name, "") for name in _BY_HAND)
    if not (count.isdigit() and index.isdigit()):
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS is {address}, JAX_NUM_PROCESSES {count!r} and JAX_PROCESS_ID {index!r}: "
            "set all three, the last two to numbers"
        )
    jax.distributed.initialize(address, int(count), int(index))


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
