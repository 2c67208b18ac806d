"""How questions pull at the same parameters: norms of their gradients, and the cosine between two questions' gradients.

The paper draws this for attention in each layer (arXiv 2312.02520, Figure 6).
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lvm_jax.evaluation.base import Result

Loss = Callable[[Any, Mapping[str, jax.Array]], tuple[jax.Array, jax.Array]]


class QuestionGradients:
    """Norms of the questions' gradients, and cosines between them.

    NAME/PART is the norm of a question's gradient, and A.B/PART, with A before B in the alphabet, the cosine between
    those of two questions. A part is "all", or a module of a block with the block's number: "attention/0", "mlp/0",
    "attention/1", ...

    Args:
      loss: (params, batch) -> (sum, weight), such as `DecoderTask.loss`.
      batches: a batch on the mesh for each question, by its name.
      period: blocks after which they repeat, `len(config.mlps)`.
    """

    name = "gradients"

    def __init__(
        self, loss: Loss, batches: Mapping[str, Mapping[str, jax.Array]], period: int = 1
    ) -> None:
        def products(params: Any, given: Mapping[str, Mapping[str, jax.Array]]) -> dict:
            def mean(now: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
                total, weight = loss(now, batch)
                return total / jnp.maximum(weight, 1.0)

            grads = {name: jax.grad(mean)(params, batch) for name, batch in given.items()}
            pairs = itertools.combinations_with_replacement(sorted(grads), 2)
            return {(one, two): _products(grads[one], grads[two], period) for one, two in pairs}

        self._products, self._batches = jax.jit(products), batches

    def run(self, subject: Any) -> Result:
        """Norms and cosines of parameters on the mesh."""
        found = jax.device_get(self._products(subject, self._batches))
        result: Result = {}
        for (one, other), parts in found.items():
            for part, product in parts.items():
                if one == other:
                    result[f"{one}/{part}"] = float(product) ** 0.5
                else:
                    norms = (found[name, name][part] for name in (one, other))
                    scale = float(next(norms) * next(norms)) ** 0.5
                    result[f"{one}.{other}/{part}"] = float(product) / scale if scale else 0.0
        return result


def _products(one: nnx.State, other: nnx.State, period: int) -> dict[str, jax.Array]:
    """The dot products of two gradients, by part."""
    pairs = zip(nnx.to_flat_state(one), nnx.to_flat_state(other), strict=True)
    found: dict[str, jax.Array] = {"all": jnp.zeros(())}
    for (path, a), (_, b) in pairs:
        product = a[...] * b[...]
        found["all"] += jnp.sum(product)
        for part, value in _of_blocks(path, product, period).items():
            found[part] = found.get(part, 0.0) + value
    return found


def _of_blocks(path: tuple[Any, ...], product: jax.Array, period: int) -> dict[str, jax.Array]:
    """The sums over each block of a parameter's products; none for a parameter outside blocks."""
    modules = [name for name in path if name in ("attention", "mlp")]
    if not modules:
        return {}
    place = int(path[path.index("places") + 1]) if "places" in path else 0
    sums_L = jnp.sum(product, axis=tuple(range(1, product.ndim)))
    return {f"{modules[0]}/{n * period + place}": total for n, total in enumerate(sums_L)}
