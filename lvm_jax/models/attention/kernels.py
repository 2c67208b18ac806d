"""Attention by the accelerators' own kernels: Pallas splash attention on TPU, cuDNN on NVIDIA.

The compiler's partitioner cannot see into them, so under a mesh each device runs its kernel on its own rows and heads.

Shapes as in `lvm_jax.models.attention.attend`, and Z: T padded to what the kernel takes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lvm_jax.errors import UserError
from lvm_jax.parallel.sharding import partition_spec, split_mesh

# By this name a remat policy can keep what attention's backward pass needs beside q, k and v.
SAVED = "attention"

# cuDNN's outputs carry no name, so a remat policy recognises the primitive.
CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"

# Queries and keys of a tile; if it does not divide the rows, the largest power of 2 that does.
SPLASH_BLOCK = 512
LANES = 128  # a TPU register's width: head dimensions and tiles are multiples of it
CUDNN_MAX_HEAD_DIM = 256  # on Hopper and later; 128 before, which cuDNN says itself

INTERPRET = False  # tests run the Pallas kernel on a CPU, slowly

Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]


def attend_splash(q_BTNH, k_BSKH, v_BSKH, segment_ids_BT, query_start, causal):
    """Pallas' splash attention: if causal, it never loads tiles above the diagonal; it stores no weights."""
    _require_whole_rows("splash", q_BTNH, k_BSKH, query_start)
    kernel = functools.partial(_splash, causal)
    return _on_each_device(kernel, q_BTNH, k_BSKH, v_BSKH, segment_ids_BT)


def attend_cudnn(q_BTNH, k_BSKH, v_BSKH, segment_ids_BT, query_start, causal):
    """cuDNN's fused attention; a mask that all heads share keeps the sentences of a row apart."""
    _require_whole_rows("cudnn", q_BTNH, k_BSKH, query_start)
    if q_BTNH.dtype == jnp.float32:
        raise UserError(
            "attention 'cudnn' got float32 and computes in bfloat16 only: set dtype=bfloat16, or attention=chunked"
        )
    if q_BTNH.shape[-1] > CUDNN_MAX_HEAD_DIM:
        raise UserError(
            f"attention 'cudnn' got a head dimension of {q_BTNH.shape[-1]}, the features of a bias included, more "
            f"than {CUDNN_MAX_HEAD_DIM}: set attention=chunked"
        )
    kernel = functools.partial(_cudnn, causal)
    return _on_each_device(kernel, q_BTNH, k_BSKH, v_BSKH, segment_ids_BT)


def _require_whole_rows(name: str, q_BTNH: jax.Array, k_BSKH: jax.Array, query_start: Any) -> None:
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    if S != T or not isinstance(query_start, int) or query_start:
        raise UserError(
            f"attention {name!r} got {T} queries from {query_start} on and {S} keys: with a KV cache use 'xla'"
        )


def _on_each_device(kernel: Kernel, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT) -> jax.Array:
    """`kernel` on each device's share of rows and heads; dimensions that do not divide stay whole.

    If query heads divide over the devices and key heads do not, key heads are repeated, one per query head.
    """
    mesh = split_mesh()
    if mesh is None:
        return kernel(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)

    def spec(x: jax.Array) -> PartitionSpec:
        axes = ("batch", None, "act_heads", None)[: x.ndim]
        return partition_spec(axes, x.shape, mesh, strict=False)

    if spec(q_BTNH) != spec(k_BTKH):
        groups = q_BTNH.shape[2] // k_BTKH.shape[2]
        k_BTKH, v_BTKH = (jnp.repeat(x, groups, axis=2) for x in (k_BTKH, v_BTKH))
    arrays = [x for x in (q_BTNH, k_BTKH, v_BTKH, segment_ids_BT) if x is not None]

    def local(q, k, v, segments=None):
        return kernel(q, k, v, segments)

    return jax.shard_map(
        local,
        in_specs=tuple(spec(x) for x in arrays),
        out_specs=spec(q_BTNH),
        check_vma=False,  # the kernels do not declare how their results vary over the mesh
    )(*arrays)


def _splash(causal, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT):
    # Takes a fifth of a second to import.
    from jax.experimental.pallas.ops.tpu import splash_attention

    B, T, N = q_BTNH.shape[:3]
    Z = T + -T % LANES
    q, k, v = (
        _pad(x, {1: Z, 3: x.shape[3] + -x.shape[3] % LANES}).swapaxes(1, 2)
        for x in (q_BTNH / math.sqrt(q_BTNH.shape[3]), k_BTKH, v_BTKH)
    )
    # Padding comes last, so that under the causal mask no real query sees it; without the mask its id hides it.
    if segment_ids_BT is None and Z > T and not causal:
        segment_ids_BT = jnp.ones((B, T), jnp.int32)
    kernel = _splash_kernel(N, Z, causal, INTERPRET)
    if segment_ids_BT is None:
        y_BNZH = jax.vmap(kernel)(q, k, v)
    else:
        ids_BZ = _pad(segment_ids_BT, {1: Z})
        y_BNZH = jax.vmap(kernel)(q, k, v, splash_attention.SegmentIds(ids_BZ, ids_BZ))
    return y_BNZH.swapaxes(1, 2)[:, :T, :, : v_BTKH.shape[3]].astype(q_BTNH.dtype)


def _splash_kernel(heads: int, length: int, causal: bool, interpret: bool) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention

    block = math.gcd(SPLASH_BLOCK, length)
    mask = splash_attention.CausalMask if causal else splash_attention.FullMask
    masks = splash_attention.MultiHeadMask([mask((length, length)) for _ in range(heads)])
    sizes = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv")
    sizes += ("block_kv_dkv_compute", "block_q_dq", "block_kv_dq")
    return splash_attention.make_splash_mha(
        masks,
        block_sizes=splash_attention.BlockSizes(**dict.fromkeys(sizes, block)),
        head_shards=1,  # `_on_each_device` has split the heads already
        q_seq_shards=1,
        residual_checkpoint_name=SAVED,
        interpret=interpret,
    )


def _cudnn(causal, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT):
    T, H = q_BTNH.shape[1], q_BTNH.shape[3]
    # Zeros in a head change no score, and their results are cut off. cuDNN's masked attention needs an even T,
    # and all heads need one width.
    sizes = {1: T + T % 2, 3: H + -H % 8}
    q, k, v = (_pad(x, sizes) for x in (q_BTNH, k_BTKH, v_BTKH))
    mask_B1TT = None
    if segment_ids_BT is not None:
        ids_BT = _pad(segment_ids_BT, {1: sizes[1]})
        mask_B1TT = (ids_BT[:, :, None] == ids_BT[:, None, :])[:, None]
    elif T % 2 and not causal:
        mask_B1TT = jnp.broadcast_to(jnp.arange(T + 1)[None] < T, (q.shape[0], 1, T + 1, T + 1))
    fused = functools.partial(
        jax.nn.dot_product_attention, is_causal=causal, implementation="cudnn"
    )
    try:
        y_BTNH = fused(q, k, v, mask=mask_B1TT, scale=1 / math.sqrt(H))
    except RuntimeError as error:
        raise UserError(
            f"attention 'cudnn' needs an NVIDIA GPU ({error}): set attention=auto, or chunked"
        ) from error
    return y_BTNH[:, :T, :, : v_BTKH.shape[3]]


def _pad(x: jax.Array, sizes: dict[int, int]) -> jax.Array:
    """`x` with zeros appended, so that each dimension in `sizes` has that size."""
    return jnp.pad(x, [(0, sizes.get(i, size) - size) for i, size in enumerate(x.shape)])
