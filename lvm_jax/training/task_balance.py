"""Task-balanced gradient normalisation (Li et al., arXiv 2211.09808), for batches of one task.

Each step's gradient is of one task only. It is scaled to a norm that the task's weight gives, and enters the moments as
much more as the task is rarer, so that how often a task is drawn changes its noise and not its influence. With a single
task it is AdamW, or Muon, on gradients of norm 1.

A rare task makes spikes: with shares of .99 and .01 single updates are 9 times as large as in plain AdamW, with shares
by the square root of the sizes of data sets hardly larger.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lvm_jax.errors import UserError
from lvm_jax.training.decoder_optimizer import ScheduledConfig, learning_rate, muon, split
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


def normalize_gradients(balance: TaskBalance) -> optax.GradientTransformationExtraArgs:
    """w_k * gradient / its norm over all parameters. A gradient of 0 stays 0.

    Returns:
      a transformation whose update takes `task_id`, an int32 scalar in [0, K).
    """
    weights_K = balance.weights or (1.0,) * len(balance.shares)

    def update(updates: Any, task_id: jax.Array) -> Any:
        norm = jnp.maximum(optax.tree.norm(updates), jnp.finfo(jnp.float32).tiny)
        scale = jnp.asarray(weights_K)[task_id] / norm
        return jax.tree.map(lambda x: x * scale, updates)

    return _of_task(update)


def scale_by_task_balance(
    balance: TaskBalance, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam's direction from normalised gradients g.

        m <- b1 m + (1 - b1) / s_k g        v <- b2 v + (1 - b2) / s_k g^2

    Over the draws of k the expected increments are those of sum_k g_k, whatever the shares. Note that the second moment
    is divided by s_k once. Both moments are corrected for their start at 0, as in Adam.

    Args:
      balance: s_k.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.

    Returns:
      a transformation whose update takes `task_id`, an int32 scalar in [0, K).
    """
    shares_K = _shares(balance)

    def init(params: Any) -> TaskBalanceState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return TaskBalanceState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        share = shares_K[_task_id(extra)]
        count = state.count + 1
        mu = jax.tree.map(lambda m, x: b1 * m + (1 - b1) / share * x, state.mu, updates)
        nu = jax.tree.map(lambda v, x: b2 * v + (1 - b2) / share * jnp.square(x), state.nu, updates)
        first, second = 1 - b1**count, 1 - b2**count
        direction = jax.tree.map(lambda m, v: (m / first) / (jnp.sqrt(v / second) + eps), mu, nu)
        return direction, TaskBalanceState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def make_task_balanced_muon(
    config: ScheduledConfig, balance: TaskBalance
) -> optax.GradientTransformationExtraArgs:
    """Muon with balanced gradients for the matrices of blocks, AdamW with them for the rest.

    Muon's mean of gradients takes g / s_k, as Adam's does. How long the mean is does not matter to it; how much of each
    task is in it does.

    Raises:
      UserError: as `make_task_balanced_optimizer`.
    """
    _check_clipping(config, balance)
    rate, shares_K = learning_rate(config), _shares(balance)
    rarer_more = _of_task(lambda g, task_id: jax.tree.map(lambda x: x / shares_K[task_id], g))
    return optax.chain(
        normalize_gradients(balance),
        split(
            optax.chain(rarer_more, muon(config, rate)),
            _adamw(config, balance, rate),
        ),
    )


def make_task_balanced_optimizer(
    config: OptimizerConfig, balance: TaskBalance, rate: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """AdamW with balanced gradients, at the learning rate of each update.

    `config.clip_norm` must leave gradients of the largest weight alone: clipping before the normalisation would change
    nothing, and clipping after it only the weights.

    Raises:
      UserError: it would not.
    """
    _check_clipping(config, balance)
    return optax.chain(normalize_gradients(balance), _adamw(config, balance, rate))


def _adamw(
    config: OptimizerConfig, balance: TaskBalance, rate: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        scale_by_task_balance(balance, config.b1, config.b2, config.eps),
        optax.add_decayed_weights(
            config.weight_decay, matrices if config.decay == "matrices" else None
        ),
        optax.scale_by_learning_rate(rate),
    )


def _check_clipping(config: OptimizerConfig, balance: TaskBalance) -> None:
    largest = max(balance.weights or (1.0,))
    if config.clip_norm < largest:
        raise UserError(
            f"clip_norm={config.clip_norm} with gradients of norm {largest}: normalised gradients need no clipping; "
            f"set it to {largest} or more, or lower the tasks' weights"
        )


def _shares(balance: TaskBalance) -> jax.Array:
    """s_k, which sum to 1."""
    return jnp.asarray(balance.shares) / sum(balance.shares)


def _of_task(
    function: Callable[[Any, jax.Array], Any],
) -> optax.GradientTransformationExtraArgs:
    """A transformation without a state: (updates, the batch's task) -> updates."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        return function(updates, _task_id(extra)), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _task_id(extra: Mapping[str, Any]) -> jax.Array:
    if "task_id" not in extra:
        raise UserError(
            "task-balanced gradients need the task of the batch: give DecoderTask optimizer_args=lambda batch: "
            '{"task_id": batch["task_id"][0]}'
        )
    return extra["task_id"]
