import dataclasses
import json
import os
import signal
import time

import jax
import numpy as np
import pytest
from etils import epath
from linear_task import LinearBatches, LinearTask

from lvm_jax.errors import UserError
from lvm_jax.files import read_jsonl
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.training import loop
from lvm_jax.training.bad_steps import BadStep, Judge
from lvm_jax.training.goodput import Ledger
from lvm_jax.training.loop import TrainConfig, train
from lvm_jax.training.run_log import RunLog
from lvm_jax.training.step import compile_step
from lvm_jax.training.workdir import claim

CONFIG = TrainConfig(steps=12, batch_size=8, log_every=5, eval_every=6, checkpoint_every=4)
TIMES = ("time", "rows_per_second", "mfu", "goodput", "badput")


def run(workdir, config=CONFIG, task=None, batches=None, evaluations=()):
    return train(
        task or LinearTask(),
        batches or LinearBatches(),
        config,
        mesh=make_mesh(devices=jax.devices()[:1]),
        workdir=workdir,
        evaluations=evaluations,
    )


def assert_same_state(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)


def numbers(workdir):
    return [
        {name: value for name, value in line.items() if not name.startswith(TIMES)}
        for line in read_jsonl(workdir / "metrics.jsonl")
    ]


def test_it_learns_and_logs_the_mean_of_each_window(tmp_path):
    run(tmp_path)
    lines = [line for line in read_jsonl(tmp_path / "metrics.jsonl") if "train/loss" in line]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    assert all(line["rows_per_second"] > 0 and line["mfu"] > 0 for line in lines)
    assert any((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("stop_at", [3, 4, 7, 10])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, stop_at):
    whole = run(tmp_path / "whole")

    def interrupt(step):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", batches=LinearBatches(on_step=interrupt))
    resumed = run(tmp_path / "cut")
    assert_same_state(resumed, whole)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")


def test_sigterm_saves_and_exits_with_143(tmp_path):
    def terminate(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, batches=LinearBatches(on_step=terminate))
    assert stopped.value.code == 143
    assert (tmp_path / "checkpoints" / "6").is_dir()


def test_a_crash_resumes_from_the_last_checkpoint(tmp_path):
    whole = run(tmp_path / "whole")

    def crash(step):
        if step == 9:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", batches=LinearBatches(on_step=crash))
    positions = []
    resumed = run(tmp_path / "cut", batches=LinearBatches(on_step=positions.append))
    assert positions == [8, 9, 10, 11]
    assert_same_state(resumed, whole)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")


def test_one_compile_over_many_steps(tmp_path):
    task = LinearTask()
    run(tmp_path, task=task)
    assert task.traces == 1


def test_a_nan_stops_before_it_is_saved(tmp_path):
    with pytest.raises(BadStep, match="train/loss is nan at step 7"):
        run(tmp_path, batches=LinearBatches(poisoned_step=6))
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [4]
    assert run(tmp_path)["step"] == 12  # clean data: the run goes on from step 4


def test_evaluations_run_when_due_and_after_the_last_step(tmp_path):
    seen = []

    def evaluation(step, state):
        seen.append((step, int(state["step"])))
        return {"validation/loss": 1.0 / step}

    run(tmp_path, dataclasses.replace(CONFIG, steps=14), evaluations=[evaluation])
    assert seen == [(6, 6), (12, 12), (14, 14)]
    lines = read_jsonl(tmp_path / "metrics.jsonl")
    assert {"step": 14, "validation/loss": 1 / 14} in [
        {k: v for k, v in line.items() if k in ("step", "validation/loss")} for line in lines
    ]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = run(tmp_path)

    def fail(step):
        raise AssertionError(f"read batch {step} of a finished run")

    assert_same_state(run(tmp_path, batches=LinearBatches(on_step=fail)), first)


def test_the_dispatched_step_is_not_waited_for(tmp_path, monkeypatch):
    """Metrics come to the host once a window, not once a step."""
    fetched = []
    real = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: fetched.append(len(x)) or real(x))
    config = dataclasses.replace(CONFIG, eval_every=0, checkpoint_every=0, steps=20, log_every=10)
    run(tmp_path, config)
    assert [n for n in fetched if n] == [10, 10]


def test_no_number_of_a_step_is_fetched_before_the_next_step_was_dispatched(tmp_path, monkeypatch):
    """The device never waits for Python: every wait and every copy is for a step that has a successor in the queue."""
    steps_of, dispatched, waited = {}, [], []

    def counting(task, seed):
        step_fn = compile_step(task, seed)

        def dispatch(*arguments):
            state, metrics = step_fn(*arguments)
            dispatched.append(len(dispatched) + 1)
            steps_of.update({id(x): (dispatched[-1], x) for x in jax.tree.leaves(metrics)})
            return state, metrics

        return dispatch

    def recorded(real):
        def wait(tree):
            found = [steps_of[id(x)][0] for x in jax.tree.leaves(tree) if id(x) in steps_of]
            waited.extend((step, len(dispatched)) for step in found)
            return real(tree)

        return wait

    monkeypatch.setattr(loop, "compile_step", counting)
    monkeypatch.setattr(jax, "device_get", recorded(jax.device_get))
    monkeypatch.setattr(jax, "block_until_ready", recorded(jax.block_until_ready))
    config = dataclasses.replace(CONFIG, eval_every=0, checkpoint_every=0, steps=20, log_every=5)
    run(tmp_path, config)
    assert {step for step, _ in waited} == set(range(1, 21))
    early = [(step, newest) for step, newest in waited if newest <= step]
    assert {step for step, _ in early} <= {20}, early  # the last one is saved


def test_a_workdir_of_another_configuration_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match=r"config\.seed: 0 -> 1"):
        run(tmp_path, dataclasses.replace(CONFIG, seed=1))
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    run(
        tmp_path, dataclasses.replace(CONFIG, log_every=2)
    )  # what does not change the numbers may change


def test_a_run_that_ends_before_its_first_step_leaves_its_workdir_to_another(tmp_path):
    class Refusing(LinearTask):
        def step(self, state, batch, key):
            raise UserError("a batch of 8 does not divide into 3 parts")

    with pytest.raises(UserError, match="3 parts"):
        run(tmp_path, task=Refusing())
    run(tmp_path, dataclasses.replace(CONFIG, seed=1))
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="3 parts"):  # nor does it take the workdir from a run
        run(tmp_path, dataclasses.replace(CONFIG, seed=1), task=Refusing())
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_a_workdir_from_before_a_key_existed_goes_on(tmp_path):
    """Keys of a tokenizer's training that were added or renamed: the run itself has not changed."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": {"layout": "maskgit"}, "seed": 0}))
    model = {"architecture": "maskgit", "encoder_blocks": 0}
    today = {"recipe": "x", "model": model, "frozen": (), "seed": 0}
    added = {"recipe": "x", "frozen": (), "model": {"encoder_blocks": 0, "unread": 3}, "unread": 4}
    claim(tmp_path, today, defaults=added)
    assert json.loads(path.read_text()) == today | {"frozen": []}
    path.write_text(json.dumps({"model": {"layout": "maskgit"}, "seed": 0}))
    for changed, said in (
        ({"frozen": ("embedding",)}, r"config\.frozen: \[\] -> \['embedding'\]"),
        ({"model": {**model, "architecture": "taming"}}, r"architecture: 'maskgit' -> 'taming'"),
        ({"model": {**model, "encoder_blocks": 2}}, r"config\.model\.encoder_blocks: 0 -> 2"),
    ):
        with pytest.raises(UserError, match=said):
            claim(tmp_path, today | changed, defaults=added)


def test_a_tokenizer_may_move_and_not_change(tmp_path):
    """The record of a recipe has its place and its fingerprint."""
    begun = {"data": {"tokenizer": "/a", "text_tokenizer": "/b"}, "tokenizer": "0123"}
    moved = begun | {"data": {"tokenizer": "/c", "text_tokenizer": "/d"}}
    claim(tmp_path, begun)
    claim(tmp_path, moved)
    with pytest.raises(UserError, match=r"config\.tokenizer: '0123' -> '4567'"):
        claim(tmp_path, moved | {"tokenizer": "4567"})


def test_a_checkpoint_of_another_model_names_the_tensors(tmp_path):
    run(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(
        UserError, match=r"params/kernel: \(16, 8\) in the checkpoint, \(32, 8\) here"
    ):
        run(tmp_path, task=LinearTask(width=32))


def test_only_the_place_of_the_configuration_is_printed_where_asked(tmp_path, capsys):
    run(tmp_path, dataclasses.replace(CONFIG, print_config=False))
    assert capsys.readouterr().out == f"the configuration is in {tmp_path}/config.json\n"
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == CONFIG.steps
    run(tmp_path, CONFIG)
    assert capsys.readouterr().out == "config.print_config: False -> True\n"


def test_the_configuration_is_printed_and_then_what_changed(tmp_path, capsys):
    run(tmp_path)
    assert json.loads(capsys.readouterr().out) == dataclasses.asdict(CONFIG) | {
        "profile_steps": [0, 0]
    }
    run(tmp_path, dataclasses.replace(CONFIG, log_every=2, max_skips=3))
    assert capsys.readouterr().out.splitlines() == [
        "config.log_every: 5 -> 2",
        "config.max_skips: 10 -> 3",
    ]


def test_old_checkpoints_go_but_for_every_nth_step(tmp_path):
    run(tmp_path, dataclasses.replace(CONFIG, steps=16, checkpoint_every=2, keep_every_steps=8))
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [8, 14, 16]


def test_the_steps_asked_for_are_traced(tmp_path):
    run(tmp_path, dataclasses.replace(CONFIG, profile_steps=(3, 4)))
    assert [*(tmp_path / "profile").rglob("*.xplane.pb")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"profile_steps": (4, 3)},
        {"spike_factor": -1.0},
        {"steps": 0},
        {"max_skips": -1},
        {"eval_every": -1},
        {"checkpoint_every": -1},
        {"seed": -1},
        {"seed": 1 << 32},  # would begin with the weights of seed 0
    ],
)
def test_a_wrong_setting_is_named(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=rf"config\.train\.{name} is"):
        dataclasses.replace(CONFIG, **wrong)


def test_goodput_accounts_for_every_second_over_restarts(tmp_path):
    def crash(step):
        if step == 9:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, batches=LinearBatches(on_step=crash))
    before = json.loads((tmp_path / "goodput.json").read_text())
    run(tmp_path, evaluations=[lambda step, state: {}])
    after = json.loads((tmp_path / "goodput.json").read_text())
    assert before["lost"] == 0 < after["lost"] < before["training"]
    for cause in ("startup", "compile", "checkpoint"):
        assert after[cause] > before[cause] > 0, cause
    assert after["evaluation"] > 0
    line = [x for x in read_jsonl(tmp_path / "metrics.jsonl") if "goodput" in x][-1]
    shares = [value for name, value in line.items() if name.startswith(("goodput", "badput/"))]
    assert sum(shares) == pytest.approx(1)


def test_data_is_waited_for_only_where_the_devices_had_run_out_of_work(tmp_path):
    slow = LinearBatches(on_step=lambda step: time.sleep(0.05))
    run(tmp_path / "slow", batches=slow)
    seconds = json.loads((tmp_path / "slow" / "goodput.json").read_text())
    assert seconds["data"] > 0.05 * 10


def test_a_wait_for_data_beside_a_running_step_is_training(tmp_path):
    class Running:
        def is_ready(self):
            return False

    now = [0.0]
    ledger = Ledger(lambda: now[0])
    log = RunLog(LinearTask(), CONFIG, epath.Path(tmp_path), 0, {}, ledger, Judge(0))
    ledger.enter("training")
    for metrics in ({}, {"loss": Running()}):
        log.add(1, metrics)
        with log.waiting_for_data():
            now[0] += 3
    assert (ledger.seconds()["data"], ledger.seconds()["training"]) == (3, 3)
    log.close()


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    run(tmp_path, dataclasses.replace(CONFIG, keep_checkpoints=2))
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [8, 12]
