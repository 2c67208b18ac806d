"""In-context training on eight simulated devices, experts apart: the losses and parameters of one device."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny_pairs import FORMAT, LENGTH, batch, decoder

from lvm_jax.data.in_context.sequences import Question
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.in_context import InContextTask
from lvm_jax.training.optimizer import OptimizerConfig, cosine
from lvm_jax.training.step import compile_step, init_state
from lvm_jax.training.task_balance import TaskBalance, make_task_balanced_optimizer

ROWS = 8
WAYS = {
    "token": {"router": "token", "dispatch": "capacity"},
    "attribute": {"dispatch": "spans", "spans": FORMAT.spans},
}


def trained(config, mesh):
    """Metrics and state after a batch of each question."""
    # A large eps: otherwise the first steps divide gradients that are rounding alone by their own size.
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, decay_steps=10, eps=1e-2)
    balance = TaskBalance((0.7, 0.3))
    tx = make_task_balanced_optimizer(optimizer, balance, cosine(optimizer))
    task, placement = InContextTask(config, tx, seq_len=LENGTH - 1), BatchPlacement(mesh, ROWS)
    with jax.set_mesh(mesh):
        state, step, seen = init_state(task, 0, mesh), compile_step(task, 0), []
        for number, question in enumerate(Question):
            state, metrics = step(state, placement.put(batch(number, ROWS, question)), {})
            seen.append({name: mean.compute() for name, mean in metrics.items()})
    return seen, state


@pytest.mark.parametrize("way", WAYS)
def test_a_mesh_with_experts_trains_as_one_device(way):
    config = dataclasses.replace(decoder(moe=WAYS[way]), attention_dropout=0.0)
    alone, one = trained(config, make_mesh(devices=jax.devices()[:1]))
    together, many = trained(config, make_mesh(MeshConfig(fsdp=2, expert=4)))
    for ours, theirs in zip(together, alone, strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
    up = many["params"]["layers"]["places"][1]["mlp"]["up"][...]
    assert up.sharding.spec == P(None, "expert", "fsdp")
    for x, y in zip(jax.tree.leaves(many["params"]), jax.tree.leaves(one["params"]), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=1e-5)
