"""Which launchers are noticed, and what JAX is told."""

import pytest

from lvm_jax.errors import UserError
from lvm_jax.parallel import runtime


@pytest.fixture
def joined(monkeypatch, tmp_path):
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
