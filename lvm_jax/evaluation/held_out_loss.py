"""The loss that a task trains, over a split that it does not train on."""

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
    """The mean of a loss over a held-out split, which is read once, in order.

    Results: `loss`, in the loss's own unit; for a decoder nats a token, ends of sentences included.

    Args:
      loss: (params, batch) -> (sum, weight); compiled once.
      batches: host-local rows; iterating again starts again. Padding must weigh nothing.
      placement: the mesh, and the batch that `batches` yields.
    """

    name = "validation"

    def __init__(
        self, loss: Loss, batches: Iterable[Mapping[str, np.ndarray]], placement: BatchPlacement
    ) -> None:
        self._loss = jax.jit(lambda params, batch: Mean(*loss(params, batch)))
        self._batches, self._placement = batches, placement

    def run(self, subject: Any) -> Result:
        """The loss of parameters on the mesh; nothing where the split is empty."""
        total: dict[str, Mean] | None = None
        for batch in self._batches:
            # Sums stay on the device until the end: reading each would wait for it before the next is dispatched.
            mean = self._loss(subject, self._placement.put(batch))
            total = metric_states.merge(total, {"loss": mean})
        return dict(metric_states.compute(jax.device_get(total or {})))


def held_out_loss(
    loss: Loss, batches: Iterable[Mapping[str, np.ndarray]], placement: BatchPlacement
) -> WhileTraining[Any]:
    """`validation/loss` of the parameters in a training's state; for the arguments see `HeldOutLoss`."""
    evaluator = HeldOutLoss(loss, batches, placement)
    return WhileTraining(evaluator.name, evaluator, lambda state: state["params"])
