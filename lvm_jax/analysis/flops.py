"""Counts the FLOPs of a function from its jaxpr: convolutions and matrix products, as MFU does."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

_WITHOUT_TRIPS, _CUDNN = ("while", "pallas_call"), "dot_product_attention"


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """FLOPs of the convolutions and matrix products in one call of `function`, found without running it.

    A multiply-add is 2. As usual for model FLOPs, it ignores elementwise work and what a convolution saves at its
    padded border. The body of a scan counts once per trip, a `cond` as its most expensive branch.

    Args:
      function: traceable, and only a forward pass: differentiation traces work that XLA later removes.
      *args: arrays or `jax.ShapeDtypeStruct`s.

    Raises:
      ValueError: it multiplies in a `while_loop`, in a Pallas kernel or in cuDNN's attention, which say nowhere how
        much they do.
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
            inside = sum(_count(inner) for inner in _inner_jaxprs(params))
            if (inside and name in _WITHOUT_TRIPS) or name.startswith(_CUDNN):
                raise ValueError(
                    f"a {name} of products has no known number of trips: count the FLOPs by a formula, of a scan, or "
                    'of attention="chunked"'
                )
            total += (params["length"] if name == "scan" else 1) * inside
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
    # Multiply-adds per output element: positions of the window x input channels of a group.
    taps = math.prod(kernel) / kernel[outputs]
    return 2.0 * math.prod(_shape(equation.outvars[0])) * taps


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
