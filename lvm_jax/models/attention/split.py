"""Causal attention of rows whose tokens are split over devices, for sentences that are too long for one.

Each device keeps its own queries and gathers all keys and values, as Llama 3's training does (arXiv 2407.21783, section
3.3.2). Every device compares its queries with all keys, the later ones masked: twice the causal work, evenly spread.

Shapes as in `lvm_jax.models.attention.attend`.
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
    """What `attend` gives for whole rows, under a mesh (`jax.set_mesh`) whose rules split the sequence.

    Scores of `CHUNK` queries of a device are alive at a time; the backward pass computes them again.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = ("batch", "seq", "act_heads", None)
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    specs = [partition_spec(axes, x.shape, mesh, strict=False) for x in (q_BTNH, k_BTKH)]
    if specs[0] != specs[1]:  # fewer key heads than devices: one for each query head
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
    first = jax.lax.axis_index(axis) * T
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
