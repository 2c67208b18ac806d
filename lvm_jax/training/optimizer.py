"""The configured optimizer: AdamW with global-norm clipping, linear warm-up and cosine decay."""

import dataclasses
from typing import Any, Literal

import jax
import optax
from flax import nnx

from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and cosine decay; the defaults are the published run's (arXiv 2312.00785, section 4).

    Attributes:
      learning_rate: at the end of the warm-up.
      end_learning_rate: from `decay_steps` on; at most `learning_rate`.
      warmup_steps: updates of linear rise from 0.
      decay_steps: updates until the end rate is reached, warm-up included.
      b1: decay of the running mean of gradients.
      b2: decay of the running mean of their squares.
      eps: added to the root of the second mean.
      weight_decay: multiplied by the learning rate.
      decay: what weight decay applies to: "matrices" spares norms and biases; "all" is the published choice.
      clip_norm: maximum norm of the gradient of all trained parameters together; 1e9 clips nothing.
    """

    learning_rate: float = 1.5e-4
    end_learning_rate: float = 3e-5
    warmup_steps: int = 8_000
    decay_steps: int = 288_000
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    decay: Literal["matrices", "all"] = "matrices"
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if not self.clip_norm > 0:
            raise UserError(
                f"clip_norm is {self.clip_norm}: every gradient would be 0; give the longest one, above 0, or 1e9 to "
                "clip none"
            )
        for name in ("learning_rate", "end_learning_rate", "warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}: it must not be negative")
        if self.end_learning_rate > self.learning_rate:
            raise UserError(
                f"learning_rate is {self.learning_rate}, end_learning_rate {self.end_learning_rate}: the rate would "
                "rise at the end; lower end_learning_rate too"
            )
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 0, below 1")
        if not self.eps > 0 or self.decay_steps < 1:
            raise UserError(
                f"eps is {self.eps}, decay_steps {self.decay_steps}: eps must be above 0, decay_steps at least 1"
            )


def cosine(config: OptimizerConfig) -> optax.Schedule:
    """The learning rate of each update: linear from 0, then a cosine to the end rate.

    Raises:
      UserError: the rate would have to fall before it has risen.
    """
    if config.decay_steps <= config.warmup_steps:
        raise UserError(
            f"decay_steps is {config.decay_steps}, warmup_steps {config.warmup_steps}: the rate rises, then falls; "
            "give more decay_steps or fewer warmup_steps"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.decay_steps,
        end_value=config.end_learning_rate,
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW under the cosine; moments in the parameters' dtype (fp32)."""
    return clipped(config, adamw(config, cosine(config)))


def clipped(
    config: OptimizerConfig, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The optimizer on gradients clipped by their global norm."""
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def adamw(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW at the learning rate of each update, without clipping."""
    return optax.adamw(
        rate,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=matrices if config.decay == "matrices" else None,
    )


def matrices(params: Any) -> Any:
    """True for parameters of at least two dimensions, not counting stacked layers; in the tree of `params`."""

    def is_matrix(leaf: Any) -> Any:
        if isinstance(leaf, nnx.Variable):
            axes = leaf.get_metadata()["axes"]
            # A stack of norm scales has two dimensions too, but it is no matrix.
            return leaf.replace(len([a for a in axes if a != "layers"]) >= 2)
        return leaf.ndim >= 2

    return jax.tree.map(is_matrix, params, is_leaf=lambda x: isinstance(x, nnx.Variable))
