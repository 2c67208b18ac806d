"""An evaluator in the training loop: its numbers, under the names that metrics.jsonl has for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.evaluation.base import WhileTraining
from lvm_jax.evaluation.held_out_loss import HeldOutLoss, held_out_loss
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.parallel.sharding import BatchPlacement


class Doubling:
    name = "doubling"

    def run(self, subject):
        return {"value": 2 * subject, "half/value": subject / 2, "lpips": "not installed"}


def test_numbers_get_the_prefix_and_strings_are_dropped():
    evaluation = WhileTraining("evaluation/doubling", Doubling(), lambda state: state["params"])
    assert evaluation(7, {"params": 3.0}) == {
        "evaluation/doubling/value": 6.0,
        "evaluation/doubling/half/value": 1.5,
    }


def test_only_what_is_named_is_logged():
    evaluation = WhileTraining(
        "validation", Doubling(), lambda state: state, {"value": "twice", "lpips": "lpips"}
    )
    assert evaluation(7, 3.0) == {"validation/twice": 6.0}


def test_the_held_out_loss_weighs_what_is_not_padding():
    def loss(params, batch):
        error = jnp.square(batch["x"] - params)
        return jnp.sum(error * batch["weight"]), jnp.sum(batch["weight"])

    batches = [
        {"x": np.array([1.0, 5.0], np.float32), "weight": np.array([1.0, 1.0], np.float32)},
        {"x": np.array([3.0, 99.0], np.float32), "weight": np.array([1.0, 0.0], np.float32)},
    ]
    layout = BatchPlacement(make_mesh(devices=jax.devices()[:1]), 2)
    assert HeldOutLoss(loss, batches, layout).run(jnp.float32(1.0)) == {
        "loss": pytest.approx((0 + 16 + 4) / 3)
    }
    evaluation = held_out_loss(loss, batches, layout)
    for step in (1, 2):  # the batches are read again
        logged = evaluation(step, {"params": jnp.float32(1.0), "opt": None})
        assert logged == {"validation/loss": pytest.approx(20 / 3)}
    assert HeldOutLoss(loss, [], layout).run(jnp.float32(1.0)) == {}
