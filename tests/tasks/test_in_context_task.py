"""The in-context task: losses by question, the task id in the optimizer, microbatches, one batch learnt by heart."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from tiny_pairs import FORMAT, LENGTH, batch, decoder, row

from lvm_jax.data.in_context.sequences import Question, stacked
from lvm_jax.tasks.in_context import InContextTask
from lvm_jax.training.optimizer import OptimizerConfig
from lvm_jax.training.task_balance import TaskBalance, make_task_balanced_optimizer

MASKS, WORDS_ASKED = Question.SEGMENTATION, Question.CAPTIONING
DENSE = decoder(mlps=("gelu_tanh", "gelu_tanh"))


def still(config):
    return dataclasses.replace(config, dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0)


def task_of(config, tx=None, **options):
    return InContextTask(config, tx or optax.sgd(0.0), seq_len=LENGTH - 1, **options)


def step_of(task):
    return jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step)


def mixed(rows=4):
    made = [row(i, (MASKS, WORDS_ASKED)[i % 2], 1 + i % 3) for i in range(rows)]
    return stacked(made)


def test_the_loss_is_shown_for_each_question():
    task = task_of(still(DENSE), one_question=False)
    state, step = step_of(task)
    _, whole = step(state, mixed(), jax.random.key(1))
    for name, rows in (("segmentation", [0, 2]), ("captioning", [1, 3])):
        part = {key: x[rows] for key, x in mixed().items()}
        _, alone = step(state, part, jax.random.key(1))
        np.testing.assert_allclose(whole[f"loss/{name}"].total, alone["loss"].total, rtol=1e-5)
        assert whole[f"loss/{name}"].weight == alone["loss"].weight
    _, of_masks = step(state, {k: x[::2] for k, x in mixed().items()}, jax.random.key(1))
    assert of_masks["loss/captioning"].weight == 0
    assert of_masks["loss/segmentation"].total == of_masks["loss"].total


@pytest.mark.parametrize("chunk", [0, 7])
def test_microbatches_and_chunks_show_the_same_losses(chunk):
    one = task_of(still(DENSE), one_question=False)
    length = LENGTH - 1 - (LENGTH - 1) % 7
    cut = {name: x[:, : length + 1] for name, x in mixed().items()}
    many = InContextTask(
        still(DENSE), optax.sgd(0.0), seq_len=length, one_question=False, loss_chunk=chunk, accumulation=2
    )  # fmt: skip
    state, step = step_of(one)
    _, whole = step(state, cut, jax.random.key(1))
    _, pieces = jax.jit(many.step)(state, cut, jax.random.key(1))
    for name in ("loss", "loss/segmentation", "loss/captioning", "grad_norm"):
        np.testing.assert_allclose(pieces[name].compute(), whole[name].compute(), rtol=1e-5)


def test_the_optimizer_learns_what_the_batch_asks():
    balance = TaskBalance((0.9, 0.1))
    tx = make_task_balanced_optimizer(OptimizerConfig(), balance, optax.constant_schedule(0.1))
    state, step = step_of(task_of(still(DENSE), tx))
    rows, moments = batch(0), []
    for question in range(2):
        new, _ = step(state, rows | {"question": np.int32(question)}, jax.random.key(2))
        moments.append(new["opt"][1][0].mu["embedding"][...])
    np.testing.assert_allclose(moments[1], 9 * moments[0], rtol=1e-4, atol=1e-9)


def test_the_batch_is_what_the_loader_gives():
    for config in (decoder(), DENSE):
        spec = task_of(config).batch_spec(4)
        found = batch(0)
        assert {name: (x.shape, x.dtype) for name, x in spec.items()} == {
            name: (x.shape, x.dtype) for name, x in found.items()
        }
    assert "question" not in task_of(DENSE, one_question=False).batch_spec(4)


def test_a_batch_is_learnt_by_heart():
    """With experts, whose choice spans of equal attributes share; a row of padding does not disturb them."""
    config = still(decoder(moe={"dispatch": "spans", "spans": FORMAT.spans, "balance_weight": 0.0}))
    task = task_of(config, optax.adam(1e-2))
    fresh, step = step_of(task)
    for question in Question:
        state, rows, losses = fresh, batch(1, 3, question), []
        for name in ("segment_ids", "attributes", "loss_weights"):
            rows[name][0] = 0
        for number in range(50):
            state, metrics = step(state, rows, jax.random.key(number))
            losses.append(metrics["loss"].compute())
        assert losses[-1] < 0.1 < 1 < losses[0]
