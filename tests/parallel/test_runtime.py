import os
import signal

import jax
import pytest

from lvm_jax.parallel import runtime
from lvm_jax.parallel.runtime import StopSignal


def test_compiled_programs_are_kept_by_default(monkeypatch, tmp_path):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_COMPILATION_CACHE_DIR", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    # It would change this process for good.
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: None)
    before = jax.config.jax_compilation_cache_dir
    try:
        runtime.initialize()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / ".cache" / "lvm_jax" / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


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
