"""The one place that builds device meshes.

Axes, outermost (slowest links) first: `data` replicates parameters and splits the batch, across slices or hosts;
`fsdp` splits both; `context` splits the sequence; `tensor` splits heads and MLP; `expert` splits the experts of a MoE.
An axis of size 1 costs nothing, so all programs are written for all five.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from lvm_jax.errors import UserError

AXES = ("data", "fsdp", "context", "tensor", "expert")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; one may be -1, which takes all remaining devices.

    The default is the inner half of HSDP: parameters and batch split over all devices.
    """

    data: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1
    expert: int = 1

    def sizes(self, n_devices: int) -> tuple[int, ...]:
        """The five sizes for `n_devices`, with -1 filled in.

        Raises:
          UserError: the product is not `n_devices`, more than one axis is -1, or a size is below 1.
        """
        asked = {axis: getattr(self, axis) for axis in AXES}
        text = ", ".join(f"{axis}={size}" for axis, size in asked.items() if size != 1) or "all 1"
        free = [axis for axis, size in asked.items() if size == -1]
        if len(free) > 1 or any(size < 1 and size != -1 for size in asked.values()):
            raise UserError(f"mesh ({text}): sizes are at least 1, and at most one of them is -1")
        fixed = math.prod(size for size in asked.values() if size != -1)
        if n_devices % fixed or (not free and fixed != n_devices):
            raise UserError(
                f"mesh ({text}) needs {'a multiple of ' if free else ''}{fixed} devices and there are {n_devices}: "
                f"set the config.mesh sizes so that their product is {n_devices}, or one of them to -1"
            )
        return tuple(n_devices // fixed if axis in free else asked[axis] for axis in AXES)


def make_mesh(config: MeshConfig | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices` (all of them by default), every axis in Auto mode.

    With several TPU slices, `data` runs across slices, so that the slow network carries only the gradient all-reduce.

    Raises:
      UserError: the configured sizes do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = (config or MeshConfig()).sizes(len(devices))
    n_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if n_slices > 1:
        grid = _hybrid_grid(sizes, n_slices, devices)
    elif devices[0].platform == "tpu":
        from jax.experimental import mesh_utils

        # It puts neighbours on the mesh on neighbouring chips; `jax.devices()` is in no such order.
        grid = mesh_utils.create_device_mesh(sizes, devices=devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices).reshape(sizes)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _hybrid_grid(sizes: tuple[int, ...], n_slices: int, devices: Sequence[Any]) -> np.ndarray:
    from jax.experimental import mesh_utils

    if sizes[0] % n_slices:
        raise UserError(
            f"mesh data={sizes[0]} does not divide over {n_slices} slices: set config.mesh.data to a multiple of it"
        )
    # create_hybrid_device_mesh multiplies the two shapes, axis by axis.
    across = (n_slices,) + (1,) * (len(AXES) - 1)
    within = (sizes[0] // n_slices, *sizes[1:])
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices=devices, allow_split_physical_axes=True
    )
