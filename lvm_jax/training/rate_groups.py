"""One learning rate a group of parameters: a factor on the updates of those whose path a pattern names."""

from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.tasks.trained import covers


def with_rates(
    optimizer: optax.GradientTransformation, rates: Mapping[str, float]
) -> optax.GradientTransformationExtraArgs:
    """The optimizer, with some parameters at another learning rate.

    Optimizers multiply all that they do to a parameter, decay included, by the learning rate; so a factor on the update
    is a factor on the rate.

    Args:
      optimizer: of an `nnx.State`.
      rates: pattern of paths, as in `tasks.trained.all_but` -> the learning rate over the optimizer's. The first that
        covers a parameter counts.

    Raises:
      UserError: a rate is negative or, at `init`, a pattern covers no trained parameter.
    """
    for pattern, rate in rates.items():
        if rate < 0:
            raise UserError(
                f"the learning rate of {pattern!r} is {rate} times the usual: at least 0"
            )
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Any:
        paths = [path for path, _ in nnx.to_flat_state(params)]
        for pattern in rates:
            if not any(covers(pattern, path) for path in paths):
                raise UserError(
                    f"learning_rates has {pattern!r}, which no trained parameter matches: name a path such as "
                    + ", ".join(dict.fromkeys("/".join(map(str, path[:2])) for path in paths))
                )
        return inner.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, state = inner.update(updates, state, params, **extra)
        scaled = [(path, _times(v, _rate(rates, path))) for path, v in nnx.to_flat_state(updates)]
        return nnx.from_flat_state(scaled), state

    return optax.GradientTransformationExtraArgs(init, update)


def _rate(rates: Mapping[str, float], path: tuple[Any, ...]) -> float:
    return next((rate for pattern, rate in rates.items() if covers(pattern, path)), 1.0)


def _times(variable: Any, rate: float) -> Any:
    return jax.tree.map(lambda x: rate * x, variable)
