"""Real processes on one machine, joined by `jax.distributed` over loopback; collectives are gloo's."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from lvm_jax.files import read_jsonl
from lvm_jax.training import digests

HERE = pathlib.Path(__file__).parent
STEPS = 40


def launch(processes, *arguments):
    """Runs worker.py as several processes; returns their exit codes, or one code for a single process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for process in range(processes):
        env = {**os.environ, "PYTHONPATH": str(HERE.parent.parent), "JAX_PLATFORMS": "cpu"}
        env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
        if processes > 1:
            env["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
            env["JAX_NUM_PROCESSES"], env["JAX_PROCESS_ID"] = str(processes), str(process)
        command = [sys.executable, "-W", "ignore", str(HERE / "worker.py"), *map(str, arguments)]
        children.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    try:
        ends = [child.communicate(timeout=240)[0].decode() for child in children]
    finally:
        for child in children:
            child.kill()
    codes = [child.returncode for child in children]
    assert set(codes) <= {0, 143}, "\n".join(end[-3000:] for end in ends)
    return codes


def saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def arrays(workdir, step=STEPS):
    """The state of a checkpoint as saved, whatever mesh it was on."""
    import orbax.checkpoint as ocp

    folder = epath.Path(workdir) / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in tree}
        return checkpointer.restore(folder, restore_args=arguments)


def numbers(workdir):
    loud = ("train/", "validation/", "step")
    return [
        {name: value for name, value in line.items() if name.startswith(loud)}
        for line in read_jsonl(workdir / "metrics.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_training_evaluation_preemption_and_resume(tmp_path, processes):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # SIGTERM reaches one process: all stop after the same step, save, and say so.
    assert launch(processes, STEPS, 12, whole, cut) == [143] * processes
    assert saved(whole) == [30, 40]
    stopped = saved(cut)[-1]
    assert 12 <= stopped < STEPS
    assert not digests.damaged(epath.Path(cut / "checkpoints" / str(stopped)))

    assert launch(processes, STEPS, -1, cut) == [0] * processes
    expected = arrays(whole)
    for name, value in arrays(cut).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert numbers(cut) == numbers(whole)
    validation = [x["validation/loss"] for x in numbers(whole) if "validation/loss" in x]
    assert len(validation) == 4
    assert validation == sorted(validation, reverse=True)


@pytest.mark.slow
def test_another_number_of_hosts_goes_on(tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    assert launch(1, STEPS, -1, whole) == [0]
    assert launch(2, 20, -1, moved) == [0, 0]
    config = moved / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "steps": STEPS}))
    assert launch(1, STEPS, -1, moved) == [0]
    expected = arrays(whole)
    for name, value in arrays(moved).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
