"""Optimizers by configuration: AdamW with global-norm clipping and linear warm-up into a cosine."""

import dataclasses
from typing import Any, Literal

import jax
import optax
from flax import nnx


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The defaults are the published run's (its README command; facts of the paper's section 4).

    `decay_steps` counts updates from 0, warm-up included; after it the rate stays at `end_learning_rate`.
    `decay` names what weight decay applies to: "matrices" spares norms and biases, "all" is the published choice.
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


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """The learning rate of an update: linear from 0, then a cosine to the end rate."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.decay_steps,
        end_value=config.end_learning_rate,
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW under the schedule; moments in the parameters' dtype (fp32)."""
    adamw = optax.adamw(
        schedule(config),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=matrices if config.decay == "matrices" else None,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def matrices(params: Any) -> Any:
    """True for parameters of two dimensions or more, not counting the stacked layers; same tree as `params`."""

    def is_matrix(leaf: Any) -> Any:
        if isinstance(leaf, nnx.Variable):
            axes = leaf.get_metadata()["axes"]
            return leaf.replace(len([a for a in axes if a != "layers"]) >= 2)
        return leaf.ndim >= 2

    return jax.tree.map(is_matrix, params, is_leaf=lambda x: isinstance(x, nnx.Variable))
