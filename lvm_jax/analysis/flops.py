"""Counting FLOPs of a function from its jaxpr: convolutions and matrix products, as MFU wants them."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """FLOPs of the convolutions and matrix products in one call of `function`; nothing is computed.

    A multiply-add is 2. Elementwise work is left out, as is usual for model FLOPs, and so is a convolution's saving
    at the padded border. A loop's body counts as often as it runs, a `cond` as its dearest branch.

    Args:
      function: traceable; forward only, since what differentiation traces includes work that XLA removes.
      *args: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            total += _conv(equation)
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            inner = math.prod(_shape(equation.invars[0])[axis] for axis in contracted)
            total += 2.0 * math.prod(_shape(equation.outvars[0])) * inner
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in params["branches"])
        else:
            repeats = params["length"] if name == "scan" else 1
            total += repeats * sum(_count(inner) for inner in _inner_jaxprs(params))
    return total


def _inner_jaxprs(params: Mapping[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _conv(equation: core.JaxprEqn) -> float:
    kernel = _shape(equation.invars[1])
    outputs = equation.params["dimension_numbers"].rhs_spec[0]
    taps = math.prod(kernel) / kernel[outputs]
    return 2.0 * math.prod(_shape(equation.outvars[0])) * taps


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
