"""Equal blocks as one module whose parameters have a leading axis, and what their backward pass computes again."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

from lvm_jax.models.attention.kernels import CUDNN_FORWARD, SAVED

Module = TypeVar("Module", bound=nnx.Module)

_save_matrix_products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_save_attention = jax.checkpoint_policies.save_only_these_names(SAVED)


# Attention is saved by name or, where cuDNN's call takes none, by its primitive: neither is a product with weights.
def _save_dots(primitive: Any, *values: Any, **params: Any) -> Any:
    return (
        primitive.name == CUDNN_FORWARD
        or _save_matrix_products(primitive, *values, **params)
        or _save_attention(primitive, *values, **params)
    )


# What is stored for the backward pass, which recomputes the rest.
REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,  # everything: no rematerialisation
    "full": jax.checkpoint_policies.nothing_saveable,  # only each block's input
    # products with weights, and attention: the rest is cheap to recompute
    "dots": _save_dots,
}


def stack(make: Callable[[nnx.Rngs], Module], count: int, rngs: nnx.Rngs) -> Module:
    """`count` modules of `make`, each from its own keys, with their parameters stacked along an axis "layers"."""
    stacked = nnx.split_rngs(splits=count)(nnx.vmap(make))(rngs)
    # vmap stacks arrays but knows nothing of our axes.
    for _, variable in nnx.to_flat_state(nnx.state(stacked, nnx.Param)):
        variable.set_metadata(axes=("layers", *variable.get_metadata()["axes"]))
    return stacked


def rematerialised(
    function: Callable[..., Any], remat: str, *, scanned: bool
) -> Callable[..., Any]:
    """`function` with one of the `REMAT_POLICIES`; `scanned`: it is the body of a scan."""
    policy = REMAT_POLICIES[remat]
    if policy is None:
        return function
    # Unrolled, the compiler could merge the recomputation with the first computation and undo the saving; a barrier
    # prevents it. In a scan it cannot, and the barrier would only cost time.
    return jax.checkpoint(function, policy=policy, prevent_cse=not scanned)
