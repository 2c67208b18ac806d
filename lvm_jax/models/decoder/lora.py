"""Low-rank adapters (Hu et al., arXiv 2106.09685, section 4.1): x W + (alpha / rank) (x A) B, W frozen, B from zero.

A module keeps the adapter of its matrix `name` as `name_a` and `name_b`, parameters of their own type.

Shapes: L layers, I inputs and O outputs of a matrix (each may be several dimensions), R rank.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import LoRAConfig
from lvm_jax.models.decoder.linear import ByOutputs, by_outputs, few_rows, linear

Module = TypeVar("Module", bound=nnx.Module)


class LoRAParam(nnx.Param):
    """A parameter that is trained while the others are frozen."""


class Adaptable(nnx.Module):
    """A module that multiplies by its matrices, each of which may have a bias `name_bias` and an adapter.

    Attributes:
      MATRICES: name -> how many of the matrix's first dimensions are inputs, contracted together.
    """

    MATRICES: ClassVar[Mapping[str, int]]
    adapter_scale: float = 1.0
    quantization: str = "none"

    def product(self, name: str, x_BTD: jax.Array) -> jax.Array:
        """x times the matrix `name`, plus its adapter's product and its bias, if it has them."""
        kernel, inputs = getattr(self, name), self.MATRICES[name]
        if isinstance(kernel, ByOutputs):
            y = few_rows(x_BTD, kernel, inputs)
        else:
            y = linear(x_BTD, kernel[...], inputs, quantization=self.quantization)
        if hasattr(self, f"{name}_a"):
            a, b = (getattr(self, f"{name}_{side}")[...] for side in "ab")
            y = y + self.adapter_scale * linear(linear(x_BTD, a, inputs), b)
        if hasattr(self, f"{name}_bias"):
            # Biases are stored flat; a product of queries has (heads, head_dim).
            bias = getattr(self, f"{name}_bias")[...]
            y = y + bias.astype(y.dtype).reshape(1, 1, *y.shape[2:])
        return y

    def add_adapters(self, config: LoRAConfig, rngs: nnx.Rngs) -> None:
        """Adds adapters to the matrices that the config names; the second factors start from 0."""
        if not config.rank:
            return
        self.adapter_scale = config.alpha / config.rank
        for name, inputs in self.MATRICES.items():
            if name in config.targets:
                self._add_adapter(name, inputs, config.rank, rngs)

    def _add_adapter(self, name: str, inputs: int, rank: int, rngs: nnx.Rngs) -> None:
        kernel = getattr(self, name)
        axes, shape = kernel.get_metadata()["axes"], kernel.shape
        scale = 1 / math.sqrt(math.prod(shape[:inputs]))
        a = scale * jax.random.normal(rngs.params(), (*shape[:inputs], rank), jnp.float32)
        # With b at zero, training starts from the frozen model itself.
        b = jnp.zeros((rank, *shape[inputs:]), jnp.float32)
        setattr(self, f"{name}_a", LoRAParam(a, axes=(*axes[:inputs], None)))
        setattr(self, f"{name}_b", LoRAParam(b, axes=(None, *axes[inputs:])))

    def store_by_outputs(self) -> None:
        """Stores each matrix as `few_rows` wants it, unless products are quantised."""
        if self.quantization == "none":
            for name, inputs in self.MATRICES.items():
                setattr(self, name, by_outputs(getattr(self, name), inputs))

    def drop_adapters(self) -> None:
        """Removes all adapters, as if the module had been built without them."""
        for name, value in list(vars(self).items()):
            if isinstance(value, LoRAParam) or name == "adapter_scale":
                delattr(self, name)


def store_by_outputs(module: nnx.Module) -> None:
    """`Adaptable.store_by_outputs` of all that is adaptable in `module`."""
    for _, part in nnx.iter_modules(module):
        if isinstance(part, Adaptable):
            part.store_by_outputs()


def check_targets(module: nnx.Module, config: LoRAConfig) -> None:
    """Requires every target to name a matrix for which `module` has an adapter.

    Raises:
      UserError: no block has the matrix, such as the gate of an MLP without one; its adapter would not be trained.
    """
    if not config.rank:
        return
    adapted = {str(path[-1]) for path, _ in nnx.to_flat_state(nnx.state(module, LoRAParam))}
    missing = [name for name in config.targets if f"{name}_a" not in adapted]
    if missing:
        have = [name.removesuffix("_a") for name in sorted(adapted) if name.endswith("_a")]
        raise UserError(
            f"lora targets={config.targets}: no block of this decoder has a matrix {missing[0]!r}; "
            f"leave it out (found: {', '.join(have) or 'none'})"
        )


def merge_adapters(module: Module, config: LoRAConfig) -> Module:
    """A copy of a stacked decoder without adapters: each one's product is added to its matrix."""
    flat = dict(nnx.to_flat_state(nnx.state(module)))
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
    copy = nnx.merge(*nnx.split(module))
    for _, part in nnx.iter_modules(copy):
        if isinstance(part, Adaptable):
            part.drop_adapters()
    return nnx.merge(nnx.graphdef(copy), nnx.from_flat_state(merged))
