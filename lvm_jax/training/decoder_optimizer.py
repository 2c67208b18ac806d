"""The decoder's optimizer: AdamW or Muon with AdamW, under a cosine or warm-up, stable rate, decay."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.training.optimizer import OptimizerConfig, adamw, clipped, cosine


@dataclasses.dataclass(frozen=True)
class MuonConfig:
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, orthogonalised by Newton-Schulz.

    Attributes:
      momentum: decay of the running mean of gradients, Nesterov's.
      iterations: of Newton-Schulz.
      update_rms: an m x n update is multiplied by update_rms * sqrt(max(m, n)), so that its root mean square is about
        this number at learning rate 1, as AdamW's is: one learning rate and weight decay serve both (Liu et al., arXiv
        2502.16982, section 2.2).
    """

    momentum: float = 0.95
    iterations: int = 5
    update_rms: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or self.iterations < 1 or self.update_rms <= 0:
            raise UserError(
                f"config.optimizer.muon has momentum={self.momentum}, iterations={self.iterations}, update_rms="
                f"{self.update_rms}: momentum is in [0, 1), iterations at least 1, and update_rms above 0"
            )


@dataclasses.dataclass(frozen=True)
class WSDConfig:
    """Warm-up, stable, decay (Hu et al., arXiv 2404.06395, section 4).

    Attributes:
      decay_fraction: share of `decay_steps` in which the rate falls, at their end.
      shape: of the fall: "linear", or "sqrt" for 1 - sqrt(share of the decay that has passed), the best of those that
        Hägele et al. compare (arXiv 2405.18392).
    """

    decay_fraction: float = 0.1
    shape: Literal["linear", "sqrt"] = "linear"

    def __post_init__(self) -> None:
        if not 0 < self.decay_fraction <= 1:
            raise UserError(
                f"config.optimizer.wsd.decay_fraction is {self.decay_fraction}: it must be above 0 and at most 1"
            )


@dataclasses.dataclass(frozen=True)
class ScheduledConfig(OptimizerConfig):
    """AdamW's settings, those of Muon, and the schedule.

    Attributes:
      schedule: of the learning rate after its warm-up: "cosine", or "wsd".
      muon: read where Muon is chosen.
      wsd: read with schedule="wsd".
    """

    schedule: Literal["cosine", "wsd"] = "cosine"
    muon: MuonConfig = MuonConfig()
    wsd: WSDConfig = WSDConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        stable = self.decay_steps * (1 - self.wsd.decay_fraction)
        if self.schedule == "wsd" and self.warmup_steps > stable:
            raise UserError(
                f"config.optimizer.warmup_steps is {self.warmup_steps} and the decay begins at step {stable:g}: lower "
                "warmup_steps or wsd.decay_fraction"
            )


@dataclasses.dataclass(frozen=True)
class DecoderOptimizerConfig(ScheduledConfig):
    """Which optimizer, beside its settings.

    Attributes:
      kind: "adamw" for all parameters; "muon" for the matrices of blocks, and AdamW for the rest.
    """

    kind: Literal["adamw", "muon"] = "adamw"


def make_decoder_optimizer(config: DecoderOptimizerConfig) -> optax.GradientTransformation:
    """Clip by global norm, then the configured optimizer; moments in the parameters' dtype (fp32)."""
    return make_muon(config) if config.kind == "muon" else make_scheduled_adamw(config)


def make_scheduled_adamw(config: ScheduledConfig) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW for all parameters."""
    return clipped(config, adamw(config, learning_rate(config)))


def make_muon(config: ScheduledConfig) -> optax.GradientTransformation:
    """Clip by global norm, then Muon for the matrices of blocks and AdamW for the rest."""
    rate = learning_rate(config)
    return clipped(config, split(muon(config, rate), adamw(config, rate)))


def learning_rate(config: ScheduledConfig) -> optax.Schedule:
    """The learning rate of each update, by the configured schedule."""
    return warmup_stable_decay(config) if config.schedule == "wsd" else cosine(config)


def warmup_stable_decay(config: ScheduledConfig) -> optax.Schedule:
    """The learning rate of each update: linear from 0, constant, and down to the end rate at `decay_steps`."""
    decay_steps = config.decay_steps * config.wsd.decay_fraction
    begin = config.decay_steps - decay_steps

    def rate(count: Any) -> jax.Array:
        gone = jnp.clip((count - begin) / decay_steps, 0.0, 1.0)
        left = 1 - (jnp.sqrt(gone) if config.wsd.shape == "sqrt" else gone)
        rise = jnp.clip(count / config.warmup_steps, 0.0, 1.0) if config.warmup_steps else 1.0
        return rise * (
            config.end_learning_rate + left * (config.learning_rate - config.end_learning_rate)
        )

    return rate


def muon(config: ScheduledConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon for an `nnx.State` of matrices of blocks. Each layer's matrix is orthogonalised by itself."""
    return optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=config.muon.iterations,
            beta=config.muon.momentum,
            weight_dimension_numbers=lambda updates: _map_variables(_dimension_numbers, updates),
        ),
        optax.stateless(
            lambda updates, _: _map_variables(
                lambda v: _rescaled(v, config.muon.update_rms), updates
            )
        ),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(rate),
    )


def split(
    of_blocks: optax.GradientTransformation, of_the_rest: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """One optimizer for the matrices of blocks, another for all other parameters.

    optax's `partition` would leave empty parameters in both states, which have no shape to shard or to save. Here each
    optimizer sees only its own.
    """
    txs = {
        "muon": optax.with_extra_args_support(of_blocks),
        "adamw": optax.with_extra_args_support(of_the_rest),
    }

    def apart(tree: Any) -> dict[str, Any]:
        matrices, rest = nnx.split_state(tree, lambda _, v: _sides(v) is not None, ...)
        return {"muon": matrices, "adamw": rest}

    def init(params: Any) -> dict[str, Any]:
        parts = apart(params)
        if not jax.tree.leaves(parts["muon"]):
            raise UserError(
                "config.optimizer.kind is 'muon', and no matrix of a decoder's blocks is trained: set it to 'adamw'"
            )
        return {name: tx.init(parts[name]) for name, tx in txs.items()}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, params = apart(updates), apart(params)
        found: dict[str, Any] = {
            name: tx.update(updates[name], state[name], params[name], **extra)
            for name, tx in txs.items()
        }
        whole = nnx.merge_state(*(part for part, _ in found.values()))
        return whole, {name: new for name, (_, new) in found.items()}

    return optax.GradientTransformationExtraArgs(init, update)


def _dimension_numbers(matrix: nnx.Variable) -> optax.contrib.MuonDimensionNumbers:
    sides = _sides(matrix)
    assert sides is not None  # `split` chose matrices
    return optax.contrib.MuonDimensionNumbers(*sides)


def _sides(variable: nnx.Variable) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Which dimensions of a stacked parameter are the rows of its matrices and which the columns; None: no matrix.

    Heads and their dimensions are one side: queries are a D x NH matrix, as in arXiv 2502.16982. All dimensions before
    the two sides number matrices, first of all the layers.
    """
    axes = variable.get_metadata()["axes"]
    if not axes or axes[0] != "layers":
        return None
    sides: list[list[int]] = []
    for dimension, axis in enumerate(axes):
        if axis == "head_dim":
            sides[-1].append(dimension)
        else:
            sides.append([dimension])
    if len(sides) < 3:  # norms and biases
        return None
    return tuple(sides[-2]), tuple(sides[-1])


def _rescaled(matrix: nnx.Variable, rms: float) -> jax.Array:
    sides = _sides(matrix)
    assert sides is not None
    m, n = (math.prod(matrix.shape[d] for d in side) for side in sides)
    return rms * math.sqrt(max(m, n)) * matrix[...]


def _map_variables(function: Any, state: Any) -> Any:
    """`function` of each Variable in the place of its value."""
    return jax.tree.map(
        lambda v: v.replace(function(v)), state, is_leaf=lambda v: isinstance(v, nnx.Variable)
    )
