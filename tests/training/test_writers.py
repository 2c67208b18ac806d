import sys

import pytest

from lvm_jax.errors import UserError
from lvm_jax.files import read_jsonl
from lvm_jax.training.writers import make_writers


def write(workdir, steps, resume_step=0, **options):
    writers = make_writers(workdir, resume_step, **options)
    for step in steps:
        writers.write(step, {"train/loss": 1 / step})
    writers.close()


def test_a_resumed_run_writes_a_step_once(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "tra')  # a kill in mid-line
    write(tmp_path, [3, 4, 5], resume_step=2)
    assert [line["step"] for line in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert [*(tmp_path / "tensorboard").iterdir()]


def test_wandb_is_asked_for_by_name_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb_project is 'lvm' and wandb is not installed: pip"):
        write(tmp_path, [1], wandb_project="lvm")


@pytest.mark.filterwarnings("default")  # wandb's own
def test_wandb_offline_keeps_the_run_over_a_restart(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path, [1, 2], wandb_project="lvm")
    run_id = (tmp_path / "wandb_id.txt").read_text()
    write(tmp_path, [3], resume_step=2, wandb_project="lvm")
    logs = [*(tmp_path / "wandb").glob("offline-run-*/*.wandb")]
    assert len(logs) == 2
    assert all(run_id in log.name for log in logs)
    assert b"train/loss" in logs[0].read_bytes()
