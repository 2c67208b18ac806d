"""Which launchers are noticed, and what JAX is told."""

import platform
import subprocess
import sys

import pytest

from lvm_jax.errors import UserError
from lvm_jax.parallel import runtime

# 64 MiB are written to and freed, again and again; prints the page faults of the last 8 times.
_FAULTS = """
import ctypes, resource, sys
from lvm_jax.parallel import runtime
if sys.argv[1] == "keep":
    runtime.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
for turn in range(10):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = libc.malloc(ctypes.c_size_t(1 << 26))
    ctypes.memset(array, 1, 1 << 26)
    libc.free(array)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt belongs to glibc")
def test_kept_memory_is_used_again():
    faults = {}
    for how in ("keep", "give back"):
        command = [sys.executable, "-c", _FAULTS, how]
        faults[how] = int(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
    assert faults["keep"] < 16
    assert faults["give back"] >= 8 * 32  # of 2 MiB at most


@pytest.mark.parametrize("devices", [[], ["nvidia0"], ["accel0"]])
def test_memory_is_kept_only_where_no_accelerator_is(joined, kept, monkeypatch, tmp_path, devices):
    monkeypatch.setattr(runtime, "_GPUS", (f"{tmp_path}/nvidia[0-9]*",))
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    for name in devices:
        (tmp_path / name).touch()
    runtime.initialize()
    assert kept == ([] if devices else ["kept"])


@pytest.fixture
def kept(monkeypatch):
    """A word for each call of `keep_freed_memory`, which would change this process for good."""
    calls = []
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: calls.append("kept"))
    return calls


@pytest.fixture
def joined(monkeypatch, tmp_path, kept):
    """Arguments of each call of `jax.distributed.initialize`, from a clean environment."""
    calls = []
    monkeypatch.setattr(runtime.jax.distributed, "initialize", lambda *a: calls.append(a))
    monkeypatch.setattr(runtime.jax.config, "update", lambda name, value: None)
    names = (*runtime._BY_HAND, *runtime._LAUNCHER_VARIABLES, "SLURM_NTASKS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runtime, "_TPU_CHIPS", (f"{tmp_path}/accel[0-9]*",))
    return calls


def test_one_process_joins_nobody(joined, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    runtime.initialize()
    assert joined == []


def test_launchers_that_jax_knows_are_left_to_it(joined, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "16")
    runtime.initialize()
    assert joined == [()]


def test_a_host_of_a_tpu_slice_has_no_variable_that_says_so(joined, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name == "libtpu" or None)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    runtime.initialize()
    assert joined == []  # libtpu, but no chip: a machine that compiles for TPUs
    (tmp_path / "accel0").touch()
    runtime.initialize()
    assert joined == [()]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    runtime.initialize()
    assert joined == [()]


def test_processes_can_be_told_by_hand(joined, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:8476")
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES '' and JAX_PROCESS_ID ''"):
        runtime.initialize()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    runtime.initialize()
    assert joined == [("host:8476", 4, 3)]
