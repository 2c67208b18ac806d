"""Weights straight from files into the shards of their parameters, so no host ever holds a whole model."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import SingleDeviceSharding

from lvm_jax.parallel.sharding import state_shardings

# (dotted path of a parameter, its whole shape, the slices wanted) -> the block
Read = Callable[[str, tuple[int, ...], tuple[slice, ...]], np.ndarray]


def fill(abstract: nnx.State, read: Read) -> nnx.State:
    """The state, sharded by the rules on the mesh of `jax.set_mesh`, if any.

    Host memory holds one parameter at a time, and only the slices of this host's devices.

    Args:
      abstract: the parameters' shapes, dtypes and axes.
      read: gives blocks of them; cast to the parameter's dtype.
    """
    mesh = jax.sharding.get_mesh()
    device = SingleDeviceSharding(jax.devices()[0])
    shardings = {} if mesh.empty else dict(nnx.to_flat_state(state_shardings(abstract, mesh)))
    filled = []
    for path, variable in nnx.to_flat_state(abstract):
        sharding = shardings[path].get_raw_value() if shardings else device
        name = ".".join(map(str, path))

        # Defaults bind this iteration's values.
        def block(index: Any, name: str = name, variable: Any = variable) -> np.ndarray:
            slices = tuple(slice(*part.indices(size)) for part, size in zip(index, variable.shape))
            return read(name, variable.shape, slices).astype(variable.dtype)

        array = jax.make_array_from_callback(variable.shape, sharding, block)
        filled.append((path, variable.replace(array)))
    return nnx.from_flat_state(filled)
