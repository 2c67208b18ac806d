"""Causal attention of rows whose tokens are split over devices, for sentences too long for one device.

Each device keeps its own queries and gathers all keys and values, as in Llama 3's training (arXiv 2407.21783, section
3.3.2). It compares its queries with all keys and masks the later ones: twice the causal work, but evenly spread.

Shapes as in `lvm_jax.models.attention.attend`, and X chunks of a device's queries.
"""

import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from lvm_jax.models.attention.attend import CHUNK, masked_attention
from lvm_jax.models.attention.kernels import SAVED
from lvm_jax.parallel.sharding import partition_spec


def attend_split(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    *,
    segment_ids_BT: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T N H"]:
    """The same as `attend` on whole rows, under a mesh (`jax.set_mesh`) whose rules split the sequence.

    A device holds the scores of `CHUNK` queries at a time; the backward pass recomputes them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = ("batch", "seq", "act_heads", None)
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    specs = [partition_spec(axes, x.shape, mesh, strict=False) for x in (q_BTNH, k_BTKH)]
    # Key heads do not divide over the devices: repeat them, one per query head.
    if specs[0] != specs[1]:
        groups = q_BTNH.shape[2] // k_BTKH.shape[2]
        k_BTKH, v_BTKH = (jnp.repeat(x, groups, axis=2) for x in (k_BTKH, v_BTKH))
    ids_spec = partition_spec(axes[:2], segment_ids_BT.shape, mesh, strict=False)
    local = jax.shard_map(
        lambda *arrays: _local(ids_spec[1], *arrays),
        in_specs=(specs[0], specs[0], specs[0], ids_spec),
        out_specs=specs[0],
    )
    return checkpoint_name(local(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT), SAVED)


def _local(axis, q_BTNH, k_BTKH, v_BTKH, ids_BT):
    """One device's queries, T of them, against the S keys of all."""
    B, T, N, H = q_BTNH.shape
    first = jax.lax.axis_index(axis) * T  # this device's first query, as an index among all tokens
    k_BSKH, v_BSKH, ids_BS = (
        jax.lax.all_gather(x, axis, axis=1, tiled=True) for x in (k_BTKH, v_BTKH, ids_BT)
    )
    keys = jnp.arange(ids_BS.shape[1])
    C = math.gcd(T, CHUNK)

    @jax.checkpoint
    def chunk(part):
        start, q_BCNH, ids_BC = part
        causal_1CS = (keys[None] <= (first + start + jnp.arange(C))[:, None])[None]
        visible_BCS = causal_1CS & (ids_BC[:, :, None] == ids_BS[:, None, :])
        return masked_attention(q_BCNH, k_BSKH, v_BSKH, visible_BCS[:, None, None])

    starts = jnp.arange(0, T, C)
    q_XBCNH = q_BTNH.reshape(B, T // C, C, N, H).swapaxes(0, 1)
    ids_XBC = ids_BT.reshape(B, T // C, C).swapaxes(0, 1)
    y_XBCNH = jax.lax.map(chunk, (starts, q_XBCNH, ids_XBC))
    return y_XBCNH.swapaxes(0, 1).reshape(B, T, N, H)
