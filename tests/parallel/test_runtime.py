import os
import signal

import jax
import pytest

from lvm_jax.parallel import runtime
from lvm_jax.parallel.runtime import StopSignal


@pytest.fixture
def joined(monkeypatch):
    """The arguments with which the other hosts were joined; no launcher has left its variables."""
    calls = []
    for name in (*runtime._LAUNCHER_VARIABLES, "SLURM_NTASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: calls.append(given))
    return calls


@pytest.fixture(autouse=True)
def cache():
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_programs_are_kept_by_default(joined, monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    runtime.initialize()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / ".cache" / "lvm_jax" / "xla")
    assert joined == []


def test_a_plain_launcher_says_who_is_who_in_the_environment(joined, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host0:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    runtime.initialize(str(tmp_path))
    assert joined == [{"num_processes": 4, "process_id": 0}]


def test_slurm_is_left_to_jax(joined, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_NTASKS", "8")
    runtime.initialize(str(tmp_path))
    assert joined == [{"num_processes": None, "process_id": None}]


@pytest.mark.parametrize(
    ("number", "end", "code"),
    [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, None)],
)
def test_a_signal_is_read_between_two_steps(number, end, code):
    with StopSignal() as stop:
        assert not stop.reached(1)
        os.kill(os.getpid(), number)
        assert stop.reached(2)
        with pytest.raises(end) as ended:
            stop.finish()
    assert getattr(ended.value, "code", None) == code


def test_a_second_sigint_interrupts_at_once_and_a_second_sigterm_does_not():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reached(1)
    with StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
