"""Real processes: told to stop, killed, hung, out of disk."""

import os
import random
import re
import signal
import time

import jax
import numpy as np
import pytest
from linear_task import LinearTask

from lvm_jax.files import read_jsonl
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.training import digests
from lvm_jax.training.bad_steps import GuardedTask
from lvm_jax.training.checkpoint import Checkpointer
from lvm_jax.training.step import abstract_state


def finished(workdir):
    folder = workdir / "checkpoints"
    return (
        sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []
    )


def wait_for_position(workdir, step):
    """Until the batch of `step` has been asked for."""
    path = workdir / "position"
    while not (path.exists() and int(path.read_text() or 0) >= step):
        time.sleep(0.002)


def last_state(workdir):
    mesh = make_mesh(devices=jax.devices()[:1])
    checkpoints = Checkpointer(workdir)
    restored = checkpoints.restore(abstract_state(GuardedTask(LinearTask(), active=False), mesh))
    checkpoints.close()
    return restored.state


def assert_same_end(a, b):
    a, b = last_state(a), last_state(b)
    assert int(a["step"]) == int(b["step"])
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_second_sigterm_during_the_save_harms_nothing(forker, tmp_path):
    assert forker.run(tmp_path / "whole") == 0
    cut = tmp_path / "cut"
    assert forker.run(cut, signal_at=5) == 143
    assert finished(cut) == [4, 6]
    assert not digests.damaged(cut / "checkpoints" / "6")
    assert forker.run(cut) == 0
    assert_same_end(cut, tmp_path / "whole")


def test_a_full_disk_is_one_clear_error_and_costs_no_checkpoint(forker, tmp_path):
    assert forker.run(tmp_path / "whole") == 0
    full = tmp_path / "full"
    assert forker.run(full, disk_full_at=8) == 2
    said = (full / "stderr").read_text()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert re.search(
        r"no space left for checkpoint 8 on the file system of .*full/checkpoints", line
    )
    assert "MB are free" in line
    assert "checkpoint 4 is whole" in line
    assert finished(full) == [4]
    assert forker.run(full) == 0
    assert_same_end(full, tmp_path / "whole")


def test_the_watchdog_names_what_hangs_and_ends_the_process(forker, tmp_path):
    assert forker.run(tmp_path, config={"watchdog_seconds": 5.0}, hang_at=6) == 75
    said = (tmp_path / "stderr").read_text()
    assert re.search(r"error: waiting for data has taken \d+ s, .*watchdog_seconds=5:", said)
    assert "linear_task.py" in said  # the stack of the loader that hangs
    assert forker.run(tmp_path) == 0
    assert finished(tmp_path) == [4, 8]


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_no_finished_checkpoint(forker, tmp_path):
    """20 kills, most of them in mid-save: a save takes longer here than three steps."""
    steps, rng = 300, random.Random(0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert forker.run(whole, config={"steps": steps, "checkpoint_every": 150}) == 0
    config = {"steps": steps, "checkpoint_every": 3}
    in_mid_save = 0
    for kill in range(20):
        before = finished(cut)
        (cut / "position").unlink(missing_ok=True)
        pid = forker.start(cut, config=config)
        if kill % 5:  # the others die during start-up
            wait_for_position(cut, max(before, default=0) + 3)  # where a save begins
        time.sleep(rng.uniform(0, 0.15 if kill % 5 else 0.6))
        os.kill(pid, signal.SIGKILL)
        assert forker.exit_status() == -signal.SIGKILL
        after = finished(cut)
        assert max(after, default=0) >= max(before, default=0)
        if after:  # an older one may be half removed: it was to go
            assert not digests.damaged(cut / "checkpoints" / str(max(after)))
        in_mid_save += bool([*(cut / "checkpoints").glob("*tmp*")])
    assert in_mid_save >= 5
    assert forker.run(cut, config=config) == 0
    assert_same_end(cut, whole)
    lines = read_jsonl(cut / "metrics.jsonl")
    assert [line["step"] for line in lines] == [*range(5, steps + 1, 5)]
    assert lines[-1]["badput/lost"] > 0
