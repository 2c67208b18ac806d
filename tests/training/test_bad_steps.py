import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import LinearBatches, LinearTask

from lvm_jax.files import read_jsonl
from lvm_jax.metrics.states import Mean
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.training import loop
from lvm_jax.training.bad_steps import BadStep, GuardedTask, Judge
from lvm_jax.training.loop import TrainConfig, train

CONFIG = TrainConfig(
    steps=12, batch_size=8, log_every=4, eval_every=0, checkpoint_every=3, on_bad_step="skip"
)


class BadBatches(LinearBatches):
    """`change(y)` is what comes instead of the labels of the steps named `bad`, counted from 0."""

    def __init__(self, bad=(), change=lambda y: y * np.nan):
        super().__init__()
        self.bad, self.change = bad, change

    def __next__(self):
        step = self._step
        batch = super().__next__()
        return {**batch, "y": self.change(batch["y"])} if step in self.bad else batch


def run(workdir, config=CONFIG, batches=None):
    mesh = make_mesh(devices=jax.devices()[:1])
    return train(LinearTask(), batches or BadBatches(), config, mesh=mesh, workdir=workdir)


class BrokenOptimizer(LinearTask):
    """Its update divides by zero in step `at`, of which that step's metrics know nothing."""

    def __init__(self, at, value=np.nan):
        super().__init__()
        self.at, self.value = at, value

    def step(self, state, batch, key):
        new, metrics = super().step(state, batch, key)
        broken = jax.tree.map(
            lambda x: jnp.where(new["step"] == self.at, self.value, x), new["params"]
        )
        return {**new, "params": broken}, metrics


def kernel(state):
    return np.asarray(state["params"]["kernel"].get_value())


def test_a_bad_step_leaves_parameters_and_optimizer_as_they_were():
    task = GuardedTask(LinearTask(), active=True)
    state = task.init(jax.random.key(0))
    step = jax.jit(task.step)
    batches = BadBatches(bad={1})
    state, _ = step(state, next(batches), jax.random.key(1))
    after, metrics = step(state, next(batches), jax.random.key(2))
    for name in ("params", "opt"):
        for a, b in zip(jax.tree.leaves(after[name]), jax.tree.leaves(state[name])):
            np.testing.assert_array_equal(a, b)
    assert (after["step"], after["guard"]["in_a_row"], metrics["skipped"].total) == (2, 1, 1)
    good, metrics = step(after, next(batches), jax.random.key(3))
    assert not np.array_equal(kernel(good), kernel(state))
    assert (good["guard"]["in_a_row"], metrics["skipped"].total) == (0, 0)


class SometimesUncounted(LinearTask):
    """A task none of whose labels counts in steps 2 and 3."""

    def step(self, state, batch, key):
        new, metrics = super().step(state, batch, key)
        counts = jnp.where((state["step"] >= 1) & (state["step"] < 3), 0.0, 1.0)
        loss = metrics["loss"]
        return new, {**metrics, "loss": Mean(loss.total * counts, loss.weight * counts)}


def test_a_step_without_counted_labels_is_no_bad_one_and_leaves_the_running_mean():
    task = GuardedTask(SometimesUncounted(), active=True, spike_factor=3.0)
    state, step, batches = task.init(jax.random.key(0)), jax.jit(task.step), LinearBatches()
    guards = []
    for _ in range(4):
        state, metrics = step(state, next(batches), jax.random.key(0))
        assert metrics["skipped"].total == 0
        guards.append(jax.device_get(state["guard"]))
    assert [guard["counted"] for guard in guards] == [1, 1, 1, 2]
    assert guards[0]["loss"] == guards[1]["loss"] == guards[2]["loss"]
    assert np.isfinite(guards[3]["loss"])


def test_the_choice_is_a_select_and_not_a_condition():
    task = GuardedTask(LinearTask(), active=True, spike_factor=3.0)
    state = task.init(jax.random.key(0))
    text = jax.jit(task.step).lower(state, next(LinearBatches()), jax.random.key(0)).as_text()
    assert "stablehlo.select" in text
    assert "stablehlo.case" not in text
    assert "stablehlo.if" not in text


def test_skipped_steps_are_counted_and_weigh_nothing_in_the_mean(tmp_path):
    state = run(tmp_path, batches=BadBatches(bad={1, 5, 6}))
    assert np.isfinite(kernel(state)).all()
    lines = [x for x in read_jsonl(tmp_path / "metrics.jsonl") if "train/skipped" in x]
    assert [line["train/skipped"] for line in lines] == [1 / 4, 2 / 4, 0]
    assert all(np.isfinite(line["train/loss"]) for line in lines)


def test_a_window_of_nothing_but_skipped_steps_has_no_loss(tmp_path):
    run(tmp_path, batches=BadBatches(bad={0, 1, 2, 3}))
    first = read_jsonl(tmp_path / "metrics.jsonl")[0]
    assert first["train/skipped"] == 1
    assert "train/loss" not in first


def test_a_spike_is_skipped_once_the_mean_is_known(tmp_path):
    config = dataclasses.replace(CONFIG, steps=30, spike_factor=3.0, checkpoint_every=0)
    batches = BadBatches(bad={5, 25}, change=lambda y: y * 100)
    run(tmp_path, config, batches)
    lines = [x for x in read_jsonl(tmp_path / "metrics.jsonl") if "train/skipped" in x]
    assert [x["step"] for x in lines if x["train/skipped"]] == [28]  # step 6 came too early to tell


def test_a_spike_stops_where_bad_steps_stop(tmp_path):
    config = dataclasses.replace(CONFIG, steps=30, spike_factor=3.0, on_bad_step="stop")
    fix = r"at step 26, not finite or a spike.* resume it with --config.train.on_bad_step=skip"
    with pytest.raises(BadStep, match=rf"train/loss is \d.* {fix}"):
        run(tmp_path, config, BadBatches(bad={25}, change=lambda y: y * 100))
    assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == 24


def test_too_many_in_a_row_stop_and_the_count_survives_a_restart(tmp_path):
    config = dataclasses.replace(CONFIG, max_skips=4)
    always = {5, 6, 7, 8, 9, 10, 11}  # steps 6 to 12
    fix = r"5 steps in a row were bad .* with a larger config.train.max_skips or"
    with pytest.raises(BadStep, match=rf"step 10, .* {fix}"):
        run(tmp_path, config, BadBatches(bad=always))
    assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == 9  # 4 in a row by then
    with pytest.raises(BadStep, match=r"step 10, .* 5 steps in a row were bad"):
        run(tmp_path, config, BadBatches(bad=always))
    assert run(tmp_path, config)["step"] == 12  # healed data


def test_a_run_that_skips_resumes_bit_for_bit(tmp_path):
    batches = {"bad": {2, 3, 4, 8}}
    config = dataclasses.replace(CONFIG, spike_factor=3.0)
    whole = run(tmp_path / "whole", config, BadBatches(**batches))

    def crash(y):
        raise RuntimeError("power cut")

    class Cut(BadBatches):
        def __next__(self):
            return crash(0) if self._step == 4 else super().__next__()

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", config, Cut(**batches))
    resumed = run(tmp_path / "cut", config, BadBatches(**batches))
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_stopped_goes_on_by_skipping(tmp_path):
    stop = dataclasses.replace(CONFIG, on_bad_step="stop")
    with pytest.raises(BadStep, match="train/loss is nan at step 5"):
        run(tmp_path, stop, BadBatches(bad={4}))
    assert run(tmp_path, CONFIG, BadBatches(bad={4}))["step"] == 12


def test_the_judge_names_step_and_metric():
    good = {"loss": Mean(1.0), "grad_norm": Mean(np.float32("inf"))}
    with pytest.raises(BadStep, match="train/grad_norm is inf at step 7"):
        Judge(max_skips=0).counted([(7, good)])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [1, 6, 12])
def test_no_checkpoint_holds_a_state_that_its_update_broke(tmp_path, at, value):
    """With a checkpoint after each step, so also of the step whose metrics are still good; 12 is the last one."""
    config = dataclasses.replace(CONFIG, on_bad_step="stop", checkpoint_every=1)
    mesh = make_mesh(devices=jax.devices()[:1])
    message = rf"the state after step {at} has NaN or infinity in params/kernel: it is not saved"
    with pytest.raises(BadStep, match=message):
        train(BrokenOptimizer(at, value), BadBatches(), config, mesh=mesh, workdir=tmp_path)
    saved = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
    assert max(saved, default=0) == at - 1
    assert run(tmp_path, config)["step"] == 12  # goes on from the checkpoint before


def test_an_evaluation_never_sees_a_broken_state(tmp_path):
    config = dataclasses.replace(CONFIG, on_bad_step="stop", checkpoint_every=0, eval_every=5)
    seen = []
    with pytest.raises(BadStep, match="the state after step 5"):
        train(
            BrokenOptimizer(5),
            BadBatches(),
            config,
            mesh=make_mesh(devices=jax.devices()[:1]),
            workdir=tmp_path,
            evaluations=[lambda step, state: seen.append(step) or {}],
        )
    assert seen == []


def test_a_checkpoint_that_already_holds_nan_is_not_gone_on_from(tmp_path, monkeypatch):
    with monkeypatch.context() as older:  # a version that did not judge states
        older.setattr(loop, "check_state", lambda *args: None)
        config = dataclasses.replace(CONFIG, on_bad_step="stop")
        train(
            BrokenOptimizer(12),
            BadBatches(),
            config,
            mesh=make_mesh(devices=jax.devices()[:1]),
            workdir=tmp_path,
        )
    with pytest.raises(BadStep, match="checkpoint 12 has NaN or infinity in params/kernel: move"):
        run(tmp_path)


def test_a_model_to_start_from_must_be_finite(tmp_path):
    def broken(state):
        return {**state, "params": jax.tree.map(lambda x: x * np.nan, state["params"])}

    with pytest.raises(BadStep, match="the model to start from has NaN or infinity in params/"):
        train(
            LinearTask(),
            BadBatches(),
            CONFIG,
            mesh=make_mesh(devices=jax.devices()[:1]),
            workdir=tmp_path,
            warm_start=broken,
        )
