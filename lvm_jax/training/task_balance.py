"""Task-balanced gradient normalisation over AdamW (Li et al., arXiv 2211.09808), for batches of one task.

Each step's gradient is of one task only. It is scaled to a norm that the task's weight gives, and enters the moments as
much more as the task is rarer, so that how often a task is drawn changes its noise and not its influence. With a single
task it is AdamW on gradients of norm 1.

A rare task makes spikes: with shares of .99 and .01 single updates are 9 times as large as in plain AdamW, with shares
by the square root of the sizes of data sets hardly larger.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lvm_jax.errors import UserError
from lvm_jax.training.optimizer import OptimizerConfig, matrices


@dataclasses.dataclass(frozen=True)
class TaskBalance:
    """How tasks share an optimizer.

    Attributes:
      shares: s_k, how often each task is drawn; only their ratios matter.
      weights: w_k, the norm of each task's gradients; (): 1 each.
    """

    shares: tuple[float, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        weights = self.weights or (1.0,) * len(self.shares)
        good = all(0 < value < math.inf for value in (*self.shares, *weights))
        if not self.shares or len(weights) != len(self.shares) or not good:
            raise UserError(
                f"shares={self.shares}, weights={self.weights}: give each task a share above 0 and, if any, a weight "
                "above 0"
            )

    @classmethod
    def by_root_of_size(cls, sizes: tuple[int, ...]) -> "TaskBalance":
        """Shares proportional to the square roots of the sizes of the tasks' data sets, as published."""
        return cls(tuple(math.sqrt(size) for size in sizes))


class TaskBalanceState(NamedTuple):
    """Moments, in the tree of the parameters, and the number of updates."""

    count: jax.Array
    mu: Any
    nu: Any


def scale_by_task_balance(
    balance: TaskBalance, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam's direction from balanced gradients.

    With g = w_k * gradient / its norm over all parameters,

        m <- b1 m + (1 - b1) / s_k g        v <- b2 v + (1 - b2) / s_k g^2

    Over the draws of k the expected increments are those of sum_k w_k g_k, whatever the shares. Note that the second
    moment is divided by s_k once. Both moments are corrected for their start at 0, as in Adam.

    Args:
      balance: s_k and w_k.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.

    Returns:
      a transformation whose update takes `task_id`, an int32 scalar in [0, K).
    """
    total = sum(balance.shares)
    shares_K = [share / total for share in balance.shares]
    weights_K = balance.weights or (1.0,) * len(shares_K)

    def init(params: Any) -> TaskBalanceState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return TaskBalanceState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        if "task_id" not in extra:
            raise UserError(
                "task-balanced gradients need the task of the batch: give DecoderTask optimizer_args=lambda batch: "
                '{"task_id": batch["task_id"][0]}'
            )
        task_id = extra["task_id"]
        share, weight = jnp.asarray(shares_K)[task_id], jnp.asarray(weights_K)[task_id]
        # A gradient of 0 stays 0.
        norm = jnp.maximum(optax.tree.norm(updates), jnp.finfo(jnp.float32).tiny)
        g = jax.tree.map(lambda x: x * (weight / norm), updates)
        count = state.count + 1
        mu = jax.tree.map(lambda m, x: b1 * m + (1 - b1) / share * x, state.mu, g)
        nu = jax.tree.map(lambda v, x: b2 * v + (1 - b2) / share * jnp.square(x), state.nu, g)
        first, second = 1 - b1**count, 1 - b2**count
        direction = jax.tree.map(lambda m, v: (m / first) / (jnp.sqrt(v / second) + eps), mu, nu)
        return direction, TaskBalanceState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def make_task_balanced_optimizer(
    config: OptimizerConfig, balance: TaskBalance, rate: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """AdamW with balanced gradients, at the learning rate of each update.

    `config.clip_norm` must leave gradients of the largest weight alone: clipping before the normalisation would change
    nothing, and clipping after it only the weights.

    Raises:
      UserError: it would not.
    """
    largest = max(balance.weights or (1.0,))
    if config.clip_norm < largest:
        raise UserError(
            f"clip_norm={config.clip_norm} with gradients of norm {largest}: normalised gradients need no clipping; "
            f"set it to {largest} or more, or lower the tasks' weights"
        )
    return optax.chain(
        scale_by_task_balance(balance, config.b1, config.b2, config.eps),
        optax.add_decayed_weights(
            config.weight_decay, matrices if config.decay == "matrices" else None
        ),
        optax.scale_by_learning_rate(rate),
    )
