"""Low-rank adapters (Hu et al., arXiv 2106.09685): x W + (alpha / rank) (x A) B, with W frozen and B zero at first.

A module keeps the adapter of its matrix `name` as `name_a` and `name_b`, parameters of a type of their own.

Shapes: L layers, I inputs and O outputs of a matrix (each may be several dimensions), R rank.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from lvm_jax.models.decoder.config import LoRAConfig


class LoRAParam(nnx.Param):
    """A parameter that is trained while the others are frozen."""


class Adaptable(nnx.Module):
    """A module whose matrices may have adapters (see `add_adapters`), and be quantised in their products."""

    adapter_scale: float = 1.0
    quantization: str = "none"

    def add_adapters(self, inputs: Mapping[str, int], config: LoRAConfig, rngs: nnx.Rngs) -> None:
        """Gives the matrices that the config names their adapters.

        Args:
          inputs: matrix -> how many of its dimensions, the first ones, are inputs.
          config: which of them, and how.
          rngs: of the first factors.
        """
        if not config.rank:
            return
        self.adapter_scale = config.alpha / config.rank
        for name, count in inputs.items():
            if name in config.targets:
                self._add_adapter(name, count, config.rank, rngs)

    def _add_adapter(self, name: str, inputs: int, rank: int, rngs: nnx.Rngs) -> None:
        kernel = getattr(self, name)
        axes, shape = kernel.get_metadata()["axes"], kernel.shape
        scale = 1 / math.sqrt(math.prod(shape[:inputs]))
        a = scale * jax.random.normal(rngs.params(), (*shape[:inputs], rank), jnp.float32)
        b = jnp.zeros((rank, *shape[inputs:]), jnp.float32)
        setattr(self, f"{name}_a", LoRAParam(a, axes=(*axes[:inputs], None)))
        setattr(self, f"{name}_b", LoRAParam(b, axes=(None, *axes[inputs:])))


def merge_adapters(state: nnx.State, config: LoRAConfig) -> nnx.State:
    """The parameters of a stacked decoder with each adapter's product added to its matrix, and no adapters."""
    flat = dict(nnx.to_flat_state(state))
    merged = []
    for path, variable in flat.items():
        if isinstance(variable, LoRAParam):
            continue
        a, b = (flat.get((*path[:-1], f"{path[-1]}_{side}")) for side in "ab")
        if a is not None and b is not None:
            layers = len(a[...])
            product = a[...].reshape(layers, -1, config.rank) @ b[...].reshape(
                layers, config.rank, -1
            )
            kernel = variable[...] + config.alpha / config.rank * product.reshape(variable.shape)
            variable = variable.replace(kernel)
        merged.append((path, variable))
    return nnx.from_flat_state(merged)
