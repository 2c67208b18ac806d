"""A task's training loss, measured on a split that it does not train on."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from lvm_jax.evaluation.base import Result, WhileTraining
from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.states import Mean
from lvm_jax.parallel.sharding import BatchPlacement

Loss = Callable[[Any, Mapping[str, jax.Array]], tuple[jax.Array, jax.Array]]


class HeldOutLoss:
    """The mean of a loss over one pass of a held-out split.

    Results: `loss`, in the unit of the loss; for a decoder nats a token, which counts ends of sentences.

    Args:
      loss: (params, batch) -> (sum, weight); compiled once.
      batches: host-local rows; every iteration starts from the beginning. Padding must have weight 0.
      placement: the mesh, and the shape of the batches.
    """

    name = "validation"

    def __init__(
        self, loss: Loss, batches: Iterable[Mapping[str, np.ndarray]], placement: BatchPlacement
    ) -> None:
        # (sum, weight) and not a mean: padding makes some batches weigh less than others.
        self._loss = jax.jit(lambda params, batch: Mean(*loss(params, batch)))
        self._batches, self._placement = batches, placement

    def run(self, subject: Any) -> Result:
        """The loss of parameters on the mesh; empty if the split is."""
        total: dict[str, Mean] | None = None
        for batch in self._batches:
            # Sums stay on the device until the end: reading one would block before the next batch is dispatched.
            mean = self._loss(subject, self._placement.put(batch))
            total = metric_states.merge(total, {"loss": mean})
        return dict(metric_states.compute(jax.device_get(total or {})))


def held_out_loss(
    loss: Loss,
    batches: Iterable[Mapping[str, np.ndarray]],
    placement: BatchPlacement,
    prefix: str = HeldOutLoss.name,
) -> WhileTraining[Any]:
    """`HeldOutLoss` for the training loop, which logs it as `PREFIX/loss`."""
    evaluator = HeldOutLoss(loss, batches, placement)
    return WhileTraining(prefix, evaluator, lambda state: state["params"])
