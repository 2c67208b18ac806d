"""Task-balanced gradient normalisation: its formula, AdamW for one task, and no influence of scale or share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.decoder_optimizer import ScheduledConfig
from lvm_jax.training.optimizer import OptimizerConfig
from lvm_jax.training.task_balance import (
    TaskBalance,
    make_task_balanced_muon,
    make_task_balanced_optimizer,
    normalize_gradients,
    scale_by_task_balance,
)

PARAMS = {"a": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.ones(4)}


def gradients(steps, seed=0):
    rng = np.random.default_rng(seed)
    return [{k: rng.normal(size=v.shape) for k, v in PARAMS.items()} for _ in range(steps)]


def norm(grads):
    return np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))


def test_the_formula():
    balance = TaskBalance((3.0, 1.0), weights=(1.0, 2.0))
    adam = scale_by_task_balance(balance, b1=0.8, b2=0.9, eps=1e-3)
    tx = optax.chain(normalize_gradients(balance), adam)
    state = tx.init(PARAMS)
    m = {k: np.zeros(v.shape) for k, v in PARAMS.items()}
    v = {k: np.zeros(x.shape) for k, x in PARAMS.items()}
    update = jax.jit(tx.update)
    for t, (grads, task) in enumerate(zip(gradients(5), (0, 1, 1, 0, 1)), start=1):
        found, state = update(grads, state, task_id=jnp.int32(task))
        s, w = ((0.75, 1.0), (0.25, 2.0))[task]
        for name, grad in grads.items():
            g = w * grad / norm(grads)
            m[name] = 0.8 * m[name] + 0.2 / s * g
            v[name] = 0.9 * v[name] + 0.1 / s * g**2
            root = np.sqrt(v[name] / (1 - 0.9**t)) + 1e-3
            np.testing.assert_allclose(found[name], m[name] / (1 - 0.8**t) / root, rtol=1e-5)


def test_one_task_is_adamw_on_gradients_of_norm_one():
    config = OptimizerConfig(decay="all")
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.01, 2, 50)
    ours = make_task_balanced_optimizer(config, TaskBalance((7.0,)), rate)
    theirs = optax.adamw(rate, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1)
    one, two = PARAMS, PARAMS
    states = [ours.init(PARAMS), theirs.init(PARAMS)]
    for grads in gradients(20):
        scaled = {k: g / norm(grads) for k, g in grads.items()}
        big = {k: 1e3 * g for k, g in grads.items()}  # a loss of another scale
        updates, states[0] = ours.update(big, states[0], one, task_id=jnp.int32(0))
        one = optax.apply_updates(one, updates)
        updates, states[1] = theirs.update(scaled, states[1], two)
        two = optax.apply_updates(two, updates)
    for name in PARAMS:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5)


def test_the_expected_increment_does_not_depend_on_the_shares():
    grads = gradients(3)
    expected = {k: sum(g[k] / norm(g) for g in grads) for k in PARAMS}
    for shares in ((1.0, 1.0, 1.0), (0.7, 0.2, 0.1)):
        balance = TaskBalance(shares)
        tx = optax.chain(normalize_gradients(balance), scale_by_task_balance(balance, b1=0.9))
        total = {k: np.zeros(v.shape) for k, v in PARAMS.items()}
        for task, (share, grad) in enumerate(zip(shares, grads)):
            _, state = tx.update(grad, tx.init(PARAMS), task_id=jnp.int32(task))
            for name in total:
                total[name] += share / sum(shares) * state[1].mu[name] / 0.1
        for name in total:
            np.testing.assert_allclose(total[name], expected[name], rtol=1e-5)


def test_a_gradient_of_zero_moves_nothing():
    balance = TaskBalance((1.0,))
    tx = optax.chain(normalize_gradients(balance), scale_by_task_balance(balance))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS), task_id=0)
    assert all((u == 0).all() for u in updates.values())


def test_a_decoder_hands_over_the_task_of_its_batch():
    config = presets.llama(
        "debug", vocab_size=140, hidden_size=8, intermediate_size=12, num_hidden_layers=1
    )
    balance, rate = TaskBalance((0.9, 0.1)), optax.constant_schedule(0.1)
    tx = make_task_balanced_optimizer(OptimizerConfig(), balance, rate)
    task = DecoderTask(
        config, tx, seq_len=6, optimizer_args=lambda batch: {"task_id": batch["task_id"][0]}
    )
    state, step = jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step)
    tokens = jax.random.randint(jax.random.key(1), (2, 7), 0, 40)
    batch = {"tokens": tokens, "loss_weights": jnp.ones((2, 7))}
    moved = []
    for number in (0, 1):
        ids = jnp.full((2,), number, jnp.int32)
        new, _ = step(state, batch | {"task_id": ids}, jax.random.key(2))
        moved.append(new["opt"][1][0].mu["head"][...])
    np.testing.assert_allclose(moved[1], 9 * moved[0], rtol=1e-4)


def test_muon_takes_as_much_of_each_task_as_of_another():
    """Whatever the scale of a task's loss, and however often it is drawn."""
    config = presets.llama(
        "debug", vocab_size=140, hidden_size=8, intermediate_size=12, num_hidden_layers=1
    )
    settings = ScheduledConfig(learning_rate=0.1, warmup_steps=0, decay_steps=10)
    task = DecoderTask(config, optax.identity(), seq_len=6)
    params = jax.jit(task.init)(jax.random.key(0))["params"]
    keys = iter(jax.random.split(jax.random.key(1), 2 * len(jax.tree.leaves(params))))
    one, two = (
        jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params) for _ in range(2)
    )

    @functools.cache
    def made(shares):
        tx = make_task_balanced_muon(settings, TaskBalance(shares))
        return jax.jit(tx.init), jax.jit(tx.update)

    def moved(scale, shares):
        """After a step of each task."""
        init, update = made(shares)
        state = init(params)
        for task, grads in enumerate((one, jax.tree.map(lambda x: scale * x, two))):
            updates, state = update(grads, state, params, task_id=jnp.int32(task))
        return updates

    even = moved(1.0, (1.0, 1.0))
    for other in (moved(1e3, (1.0, 1.0)), moved(1.0, (2.0, 2.0))):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6),
            even,
            other,
        )
    # A rarer task enters as much more.
    momentum = jax.tree.leaves(moved(1.0, (0.9, 0.1)))
    assert not np.allclose(momentum[-1], jax.tree.leaves(moved(1.0, (0.5, 0.5)))[-1], rtol=1e-2)
    with pytest.raises(UserError, match=r"clip_norm=0.5 with gradients of norm 1.0"):
        make_task_balanced_muon(dataclasses.replace(settings, clip_norm=0.5), TaskBalance((1.0,)))


def test_shares_by_the_root_of_sizes():
    assert TaskBalance.by_root_of_size((350_000, 460_000)).shares == pytest.approx(
        (591.6, 678.2), abs=0.1
    )


@pytest.mark.parametrize(
    "fields", [{"shares": ()}, {"shares": (1.0, 0.0)}, {"shares": (1.0,), "weights": (1.0, 1.0)}]
)
def test_impossible_balances_are_refused(fields):
    with pytest.raises(UserError, match="give each task a share above 0"):
        TaskBalance(**fields)


def test_clipping_normalised_gradients_is_refused():
    config = dataclasses.replace(OptimizerConfig(), clip_norm=0.5)
    with pytest.raises(UserError, match=r"clip_norm=0.5 with gradients of norm 1.0"):
        make_task_balanced_optimizer(config, TaskBalance((1.0, 1.0)), optax.constant_schedule(1.0))


def test_a_batch_without_its_task_is_refused():
    tx = scale_by_task_balance(TaskBalance((1.0,)))
    with pytest.raises(
        UserError, match="need the task of the batch: give DecoderTask optimizer_args"
    ):
        tx.update(PARAMS, tx.init(PARAMS))
