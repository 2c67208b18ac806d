"""How a process starts and ends: multi-host start-up, the compilation cache, memory on a CPU, stop signals."""

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

# Set by launchers that start several processes; JAX reads the details from them itself.
_LAUNCHER_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "MEGASCALE_COORDINATOR_ADDRESS")
# Set by hand where JAX does not know the launcher; it needs all three.
_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_TPU_CHIPS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
_GPUS = ("/dev/nvidia[0-9]*", "/dev/kfd")
# Options of mallopt(3): M_MMAP_MAX 0, no array gets its own mapping; M_TRIM_THRESHOLD -1, never return memory to the
# kernel; M_ARENA_MAX 1, all threads share one heap.
_KEEP_FREED = ((-4, 0), (-1, -1), (-8, 1))

# They gather a layer's parameters while the layer before it computes. Without the first two, a gather over all chips of
# a slice becomes a blocking all-reduce of twice the bytes (seen in programs compiled for v5p:4x4x4).
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
    """XLA's options for a training step on the current mesh; None keeps its defaults."""
    mesh = jax.sharding.get_mesh()
    on_tpu = not mesh.empty and mesh.devices.flat[0].platform == "tpu"
    return dict(_TPU_OPTIONS) if on_tpu else None


def initialize(compile_cache: str | None = None) -> None:
    """Joins the other hosts, if any, and turns on the compilation cache.

    On a host without an accelerator, the process also keeps freed memory, see `keep_freed_memory`.

    Call it once, before anything touches a device. JAX finds the hosts of a Cloud TPU slice and the processes of SLURM
    or Open MPI by itself; for others set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
      compile_cache: folder of compiled programs, kept between runs; default `$JAX_COMPILATION_CACHE_DIR`, else
        `~/.cache/lvm_jax/xla`.

    Raises:
      UserError: a coordinator is set, but not the number of processes or the number of this one.
    """
    if not (has_tpu() or any(glob.glob(pattern) for pattern in _GPUS)):
        keep_freed_memory()
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        _join_by_hand()
    elif (
        any(name in os.environ for name in _LAUNCHER_VARIABLES)
        or int(os.environ.get("SLURM_NTASKS", "1")) > 1
        or has_tpu()  # metadata, not a variable, says whether a slice has several hosts
    ):
        jax.distributed.initialize()
    folder = compile_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or "~/.cache/lvm_jax/xla"
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Makes this process reuse freed memory instead of asking for new pages; for programs that XLA runs on CPUs.

    XLA allocates a step's temporary arrays again in each step. glibc returns freed arrays above 32 MiB to the kernel
    and then gets new pages, zeroed one by one: a fifth of a tokenizer's training step. Call this before JAX starts its
    threads, which keep the arena that they start with. Afterwards the process never shrinks, and may come to hold the
    temporary arrays of all its programs side by side. C libraries without `mallopt` are left as they are.
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
    """Catches SIGINT and SIGTERM, so that a loop can ask between two steps whether to stop.

    If one of several processes gets a signal, JAX's preemption service (which needs `jax.distributed` and handles
    SIGTERM itself) tells the others, and all stop after the same step. A second SIGINT interrupts at once; a second
    SIGTERM changes nothing. Python delivers signals to the main thread only, so elsewhere this sees none.

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
        """Whether to stop after `step`. All processes get the same answer, and all must ask once per step."""
        if self._several and multihost_utils.reached_preemption_sync_point(step):
            self._received = self._received or signal.SIGTERM
            return True
        return not self._several and self._received is not None

    def finish(self) -> None:
        """Ends the process as the signal asked; call it once all is saved. The shell sees 130 or 143."""
        if self._received is signal.SIGINT:
            raise KeyboardInterrupt
        if self._received is signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
