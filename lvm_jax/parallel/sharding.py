"""One table of logical axis rules: it maps the axes that modules name to the axes of the mesh.

A module says what an axis means, `nnx.Param(kernel, axes=("embed", "mlp"))` or
`constrain(x, "batch", "seq", "act_embed")`; `RULES` says where that axis lies. Nothing else in the project names a mesh
axis. Without a mesh (`jax.set_mesh`), `constrain` does nothing, so every module works alone.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from lvm_jax.errors import UserError

# Logical axis -> mesh axes that split it, outermost first; () keeps it whole on every device.
RULES: Mapping[str, tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp", "expert"),
    "seq": ("context",),
    "act_embed": (),
    "act_mlp": ("tensor",),
    "act_heads": ("tensor",),
    "act_vocab": ("tensor",),
    "expert_batch": ("data", "fsdp"),  # of tokens that have gone to their expert
    # parameters of the decoder
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "experts": ("expert",),
    # parameters of the vision towers, beside those above
    "vision": (),
    # parameters of the tokenizer
    "conv_in": (),
    "conv_out": ("fsdp",),
    "codes": ("fsdp",),
    "code_dim": (),
}


def on_one_cpu() -> bool:
    """Whether the current mesh, or without one the backend, is a single CPU device."""
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return platform == "cpu" and (mesh.empty or mesh.size == 1)


def partition_spec(
    axes: tuple[str | None, ...],
    shape: tuple[int, ...],
    mesh: Mesh | jax.sharding.AbstractMesh,
    *,
    name: str = "array",
    rules: Mapping[str, tuple[str, ...]] = RULES,
    strict: bool = True,
) -> PartitionSpec:
    """The PartitionSpec of an array whose dimensions are named `axes`; mesh axes of size 1 are left out.

    Args:
      axes: a logical name, or None, for each dimension.
      shape: the array's shape.
      mesh: its axis sizes decide what divides.
      name: what errors call the array.
      rules: logical axis -> mesh axes.
      strict: raise if a dimension does not divide; otherwise keep it whole (activations of odd sizes).

    Raises:
      UserError: an unknown logical axis, two dimensions on one mesh axis, or (strict) a dimension that does not divide.
    """
    if len(axes) != len(shape):
        raise UserError(
            f"{name} has shape {shape} and {len(axes)} logical axes {axes}: name each dimension once"
        )
    used: dict[str, str] = {}
    entries: list[Any] = []
    for axis, size in zip(axes, shape):
        if axis is None:
            entries.append(None)
            continue
        if axis not in rules:
            raise UserError(
                f"{name}: logical axis {axis!r} is not in the rules; known: {', '.join(rules)}"
            )
        mesh_axes = tuple(m for m in rules[axis] if mesh.shape.get(m, 1) > 1)
        ways = math.prod(mesh.shape[m] for m in mesh_axes)
        if size % ways:
            if strict:
                raise UserError(
                    f"{name}: {axis}={size} does not divide over mesh axes {'*'.join(mesh_axes)}={ways}: "
                    f"choose mesh sizes that divide {size}"
                )
            mesh_axes = ()
        for m in mesh_axes:
            if m in used:
                raise UserError(
                    f"{name}: logical axes {used[m]!r} and {axis!r} both map to mesh axis {m!r}; change one rule"
                )
            used[m] = axis
        entries.append(mesh_axes[0] if len(mesh_axes) == 1 else (mesh_axes or None))
    # P("fsdp") and P("fsdp", None) mean the same and differ: keep the short form, with which tests compare.
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def split_mesh() -> AbstractMesh | None:
    """The mesh set by `jax.set_mesh`; None without one, or if it has a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains an activation to the sharding of its logical axes on the mesh set by `jax.set_mesh`.

    Does nothing without a mesh. A dimension that does not divide stays whole, so a batch of one prompt is fine.
    """
    mesh = split_mesh()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh, strict=False))


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The NamedShardings of a train state, in its tree structure.

    Args:
      state: a pytree, often abstract (from `jax.eval_shape`). Every `nnx.Variable` carries `axes` metadata; other
        leaves (step, optimizer counts) are replicated.
      mesh: the device mesh.

    Raises:
      UserError: a Variable without `axes`, or axes that the rules cannot place.
    """

    def one(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return NamedSharding(mesh, PartitionSpec())
        name = jax.tree_util.keystr(path)
        value = leaf.get_raw_value()
        axes = leaf.get_metadata().get("axes")
        if axes is None:
            raise UserError(
                f"{name} has no logical axes: construct it as nnx.Param(value, axes=(...))"
            )
        # A scalar that an optimizer keeps per tensor, with the axes of its parameter.
        if value.ndim == 0:
            axes = ()
        spec = partition_spec(axes, value.shape, mesh, name=name)
        return leaf.replace(NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(
        one, state, is_leaf=lambda x: isinstance(x, nnx.Variable)
    )


def batch_sharding(mesh: Mesh, ndim: int = 2) -> NamedSharding:
    """How a batch lies on the mesh: its leading dimension over all batch axes, the rest whole; a scalar everywhere."""
    rows = (RULES["batch"], *(None,) * (ndim - 1)) if ndim else ()
    return NamedSharding(mesh, PartitionSpec(*rows))


def batch_ways(mesh: Mesh) -> int:
    """How many ways the batch dimension is split."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


@dataclasses.dataclass(frozen=True)
class BatchPlacement:
    """Puts the rows that each process feeds onto the mesh, as global batch arrays."""

    mesh: Mesh
    global_batch: int

    def __post_init__(self) -> None:
        ways = batch_ways(self.mesh)
        if self.global_batch % ways:
            raise UserError(
                f"batch of {self.global_batch} does not divide over data*fsdp*expert={ways} of the mesh: "
                f"set the config's batch_size to a multiple of {ways}"
            )

    def put(self, local: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Global sharded arrays from this process's rows, name -> (B / processes, ...).

        A scalar is said of the whole batch, so all processes give the same one.
        """
        shapes = {n: (self.global_batch, *x.shape[1:]) if x.ndim else () for n, x in local.items()}
        return {
            name: jax.make_array_from_process_local_data(
                batch_sharding(self.mesh, rows.ndim), rows, shapes[name]
            )
            for name, rows in local.items()
        }
