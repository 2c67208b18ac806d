"""Attention: causal within the sentences of a row, or of every token to every token, as in a tower.

`attend` is the only entry point, and `IMPLEMENTATIONS` lists what can compute it: the plain forms are here, the
accelerators' kernels in `kernels`. `split` serves rows split over devices, `cached` rows that continue a cache.

Shapes: B batch, T queries, S keys, N query heads, K key-value heads, G = N/K query heads a key-value head,
H head dimension, C queries of a chunk.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.models.attention.grid_bias import GridBias, spread
from lvm_jax.models.attention.kernels import (
    CUDNN_MAX_HEAD_DIM,
    SAVED,
    attend_cudnn,
    attend_splash,
)
from lvm_jax.models.dropout import dropout

# Finite, so that a masked score minus a masked maximum is 0 and not NaN.
MASKED = -1e30

CHUNK = 128  # queries or keys of a chunk

# Implementations that run on one backend only.
KERNELS = {"splash": "tpu", "cudnn": "gpu"}


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    *,
    segment_ids_BT: Int[Array, "B T"] | None = None,
    query_start: int | Int[Array, ""] = 0,
    causal: bool = True,
    bias: GridBias | None = None,
    implementation: str = "chunked",
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H) + bias) v over the keys that a query may see.

    Query t sees key s iff s <= t + `query_start`, unless attention is not causal, and, with segment ids (which need
    S = T), both have the same id. A query always sees itself, so a row of padding gives finite numbers. Scores, bias
    and softmax are fp32.

    Args:
      q_BTNH: queries.
      k_BSKH: keys; K divides N, and query head n reads key head n // (N/K).
      v_BSKH: values.
      segment_ids_BT: the sentence of each token; None if a row is one sentence.
      query_start: key index of the first query: 0 without a cache, the cache's length with one.
      causal: whether a query sees no later key.
      bias: added to the scores. The kernels take it as further features of queries and keys (`GridBias.fold`).
      implementation: a key of `IMPLEMENTATIONS`, or "auto" (see `choose`; with dropout it is "xla").
      dropout_rate: for the softmax's weights, in [0, 1).
      dropout_key: for the draw; None, as in evaluation, drops nothing.

    Raises:
      UserError: the implementation does not exist, or cannot take these arguments.
    """
    if bias is not None and bias.keys != k_BSKH.shape[1]:
        raise UserError(f"attention got a bias for {bias.keys} keys and {k_BSKH.shape[1]} keys")
    if dropout_key is not None and dropout_rate:
        # The other implementations never hold the weights that dropout would zero.
        if implementation not in ("auto", "xla"):
            refuse_dropout(f"{implementation!r}", dropout_rate, dropout_key)
        drop = functools.partial(dropout, rate=dropout_rate, key=dropout_key)
        return _attend_xla(q_BTNH, k_BSKH, v_BSKH, segment_ids_BT, query_start, causal, bias, drop)
    features = q_BTNH.shape[-1] + (0 if bias is None else bias.features)
    implementation = choose(implementation, q_BTNH.dtype, features=features)
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"attention {implementation!r} does not exist; known: {', '.join(IMPLEMENTATIONS)}"
        )
    added = {}
    if bias is not None and implementation in KERNELS:
        q_BTNH, k_BSKH = bias.fold(q_BTNH, k_BSKH)
    elif bias is not None:
        added = {"bias": bias}
    return IMPLEMENTATIONS[implementation](
        q_BTNH, k_BSKH, v_BSKH, segment_ids_BT, query_start, causal, **added
    )


def choose(
    implementation: str,
    dtype: jnp.dtype | str,
    backend: str | None = None,
    *,
    features: int = 0,
) -> str:
    """What "auto" means in training: the backend's kernel if it has one for the dtype, else "chunked".

    Heads too wide for cuDNN go to "chunked" too; a caller who names "cudnn" gets an error instead.

    Args:
      implementation: "auto"; any other value is returned as it is.
      dtype: of queries, keys and values.
      backend: "tpu", "gpu" or "cpu"; default: JAX's in this process. A program compiled for another backend must name
        its implementation.
      features: of queries and keys, those that a bias adds included; 0: unknown, and narrow enough.
    """
    if implementation != "auto":
        return implementation
    backend = backend or jax.default_backend()
    best = next((name for name, where in KERNELS.items() if where == backend), "chunked")
    # cuDNN has no fp32 kernel.
    too_much = jnp.dtype(dtype) == jnp.float32 or features > CUDNN_MAX_HEAD_DIM
    return "chunked" if best == "cudnn" and too_much else best


def check_backend(implementation: str) -> None:
    """Requires this process's backend to be the one that the implementation runs on.

    Raises:
      UserError: the implementation is a kernel of another backend.
    """
    backend, needed = jax.default_backend(), KERNELS.get(implementation)
    if needed and backend != needed:
        raise UserError(
            f"attention {implementation!r} runs on {needed} and this is {backend}: set attention=auto"
        )


def refuse_dropout(name: str, rate: float, key: jax.Array | None) -> None:
    """Requires attention to have no dropout.

    Args:
      name: of the attention that cannot draw it.
      rate: of the dropout.
      key: for the draw; None: nothing is drawn.

    Raises:
      UserError: dropout would be drawn.
    """
    if key is not None and rate:
        raise UserError(
            f"attention {name} cannot draw attention_dropout={rate}: set attention=xla on whole rows, or "
            "attention_dropout=0"
        )


def _attend_xla(q_BTNH, k_BSKH, v_BSKH, segment_ids_BT, query_start, causal, bias=None, drop=None):
    """Plain masked softmax over all keys: the reference, and the only one with dropout."""
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    visible_BTS = (jnp.arange(S)[None] <= jnp.arange(T)[:, None] + query_start)[None]
    if not causal:
        visible_BTS = jnp.ones_like(visible_BTS)
    if segment_ids_BT is not None:
        visible_BTS &= segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    return masked_attention(q_BTNH, k_BSKH, v_BSKH, visible_BTS[:, None, None], drop, bias)


def masked_attention(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Bool[Array, "#B #K #G T S"],
    drop: Callable[[jax.Array], jax.Array] | None = None,
    bias: GridBias | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H) + bias) v over the keys that each query may see.

    `drop` is applied to the fp32 weights of the softmax.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    # Query heads are grouped by their key head, so that keys and values need not be repeated.
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores_BKGTS = jnp.einsum(
        "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
    )
    scores_BKGTS = scores_BKGTS / math.sqrt(H)
    if bias is not None:
        scores_BKGTS += spread(*bias.by_key_head(K), axis=4)
    scores_BKGTS = jnp.where(visible, scores_BKGTS, MASKED)
    weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1)
    if drop is not None:
        weights_BKGTS = drop(weights_BKGTS)
    weights_BKGTS = weights_BKGTS.astype(v_BSKH.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH).reshape(B, T, N, H)


def _attend_chunked(q_BTNH, k_BSKH, v_BSKH, segment_ids_BT, query_start, causal, bias=None):
    """Exact attention, C queries at a time against the keys that they may see.

    Under a causal mask blocks above the diagonal are never computed. The backward pass recomputes the weights from the
    saved log-normaliser (FlashAttention: Dao et al., arXiv 2205.14135), so no (T, T) array is stored.
    """
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    if S != T or not isinstance(query_start, int) or query_start:
        raise UserError(
            f"attention 'chunked' got {T} queries from {query_start} on and {S} keys: with a KV cache use 'xla'"
        )
    q_BTKGH = (q_BTNH / math.sqrt(H)).reshape(B, T, K, N // K, H)
    q_BKGTH, k_BKTH, v_BKTH = (
        q_BTKGH.transpose(0, 2, 3, 1, 4),
        k_BSKH.swapaxes(1, 2),
        v_BSKH.swapaxes(1, 2),
    )
    parts = None if bias is None else bias.by_key_head(K)
    y_BKGTH: Any = _chunked(causal, q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT, parts)
    return y_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(causal, q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT, bias):
    return _chunked_forward(causal, q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT, bias)[0]


def _chunked_forward(causal, q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT, bias):
    G, T, H = q_BKGTH.shape[2:]
    outputs, normalisers = [], []
    # A Python loop: each chunk has another number of keys, and a scan would need one shape for all.
    for start, stop in _chunks(T):
        seen = stop if causal else T
        scores = _product(_rows(q_BKGTH[..., start:stop, :]), k_BKTH[:, :, :seen], 3, 3)
        scores_BKGCS = scores.reshape(*scores.shape[:2], G, stop - start, seen)
        if bias is not None:
            rows, columns = (part[..., start:stop, :] for part in bias)
            scores_BKGCS += spread(rows, columns, 4, 0, seen)
        mask_BCS = _mask(segment_ids_BT, causal, slice(start, stop), slice(0, seen))
        if mask_BCS is not None:
            scores_BKGCS += mask_BCS[:, None, None]
        # The diagonal is in every chunk's keys, so the maximum is a visible score.
        top = jnp.max(scores_BKGCS, axis=-1, keepdims=True)
        weights = jnp.exp(scores_BKGCS - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        y = _product(_rows(weights.astype(v_BKTH.dtype)), v_BKTH[:, :, :seen], 3, 2)
        outputs.append((y.reshape(*total.shape[:4], H) / total).astype(v_BKTH.dtype))
        normalisers.append((jnp.log(total) + top)[..., 0])
    # Named, so that remat "dots" stores them: else the backward pass would run this forward pass again.
    y_BKGTH = checkpoint_name(jnp.concatenate(outputs, axis=3), SAVED)
    normaliser_BKGT = checkpoint_name(jnp.concatenate(normalisers, axis=3), SAVED)
    return y_BKGTH, (q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT, bias, y_BKGTH, normaliser_BKGT)


def _chunked_backward(causal, saved, dy_BKGTH):
    """Here the chunks are of keys, each against all queries that see it, so each chunk's dk and dv are complete.

    Weights are (keys, queries), which makes dk and dv plain products: XLA's CPU backend runs products with a transposed
    left operand at a third of the speed. For dq it would be the scores' gradient; so dq is computed features first,
    where the transposed operand is a chunk's few keys.
    """
    q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT, bias, y_BKGTH, normaliser_BKGT = saved
    G, T, _ = q_BKGTH.shape[2:]
    # Softmax's backward pass needs sum(dweights * weights) over all keys of a query. It equals dy . y, which is known
    # before any chunk is computed.
    mean_BKGT = jnp.sum(dy_BKGTH.astype(jnp.float32) * y_BKGTH.astype(jnp.float32), axis=-1)
    # Keys first, as the weights are.
    bias = None if bias is None else tuple(part.transpose(0, 1, 4, 2, 3) for part in bias)
    dk, dv, dq, dbias = [], [], [], []
    for start, stop in _chunks(T):
        first = start if causal else 0  # of the queries that see these keys
        k, v = k_BKTH[:, :, start:stop], v_BKTH[:, :, start:stop]
        q, dy = _rows(q_BKGTH[..., first:, :]), _rows(dy_BKGTH[..., first:, :])
        shape_BKSGC = (*k.shape[:3], G, T - first)
        scores = _product(k, q, 3, 3).reshape(shape_BKSGC)
        if bias is not None:
            seen = tuple(part[..., first:] for part in bias)
            added, of_bias = jax.vjp(functools.partial(_spread_keys, start, stop), seen)
            scores += added
        mask_BCS = _mask(segment_ids_BT, causal, slice(first, T), slice(start, stop))
        if mask_BCS is not None:
            scores += mask_BCS.swapaxes(1, 2)[:, None, :, None]
        weights = jnp.exp(scores - normaliser_BKGT[:, :, None, :, first:])
        dweights = _product(v, dy, 3, 3).reshape(shape_BKSGC)
        dscores = weights * (dweights - mean_BKGT[:, :, None, :, first:])
        if bias is not None:
            dbias.append(of_bias(dscores)[0])
        weights, dscores = (x.reshape(*x.shape[:3], -1).astype(q.dtype) for x in (weights, dscores))
        dv.append(_product(weights, dy, 3, 2))
        dk.append(_product(dscores, q, 3, 2))
        dq_BKHX = _product(k, dscores, 2, 2)
        dq.append(dq_BKHX.reshape(*dq_BKHX.shape[:3], G, T - first))
    dk_BKTH, dv_BKTH = jnp.concatenate(dk, axis=2), jnp.concatenate(dv, axis=2)
    dq_BKHGT = _over_key_chunks(dq, T, causal, axis=4)
    return (
        dq_BKHGT.transpose(0, 1, 3, 4, 2).astype(q_BKGTH.dtype),
        dk_BKTH.astype(k_BKTH.dtype),
        dv_BKTH.astype(v_BKTH.dtype),
        None,
        _bias_gradient(dbias, T, causal),
    )


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _spread_keys(start, stop, bias):
    """The bias of a chunk of keys, (B, K, S, G, T), from parts that are keys first."""
    rows, columns = bias
    return spread(rows, columns, 2, start, stop)


def _bias_gradient(dbias, length, causal):
    """The gradients of the bias's two parts, (B, K, G, T, P or Q), from those of each chunk of keys."""
    if not dbias:
        return None
    parts = (_over_key_chunks(list(part), length, causal, axis=4) for part in zip(*dbias))
    return tuple(part.transpose(0, 1, 3, 4, 2) for part in parts)


def _over_key_chunks(summands, length, causal, axis):
    """Sums one array a chunk of keys, whose dimension `axis` is the queries that see the chunk."""
    if not causal:
        return functools.reduce(jnp.add, summands)
    # The gradient of a chunk of queries sums one term from each chunk of keys up to its own.
    return jnp.concatenate(
        [
            sum(
                jax.lax.slice_in_dim(summand, start - first, stop - first, axis=axis)
                for (first, _), summand in zip(_chunks(stop), summands)
            )
            for start, stop in _chunks(length)
        ],
        axis=axis,
    )


def _chunks(length):
    return [(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]


def _rows(x_BKGCX):
    """Folds the query heads that share a key head into one matrix."""
    return x_BKGCX.reshape(*x_BKGCX.shape[:2], -1, x_BKGCX.shape[-1])


def _product(a, b, contract_a, contract_b):
    """A matrix product for each batch row and key head, summed in fp32."""
    dimensions = (((contract_a,), (contract_b,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _mask(segment_ids_BT, causal, queries, keys):
    """Added to scores, (B or 1, C, S): 0 where the query may see the key, else `MASKED`. None: it may see them all."""
    visible = None
    if causal:
        visible = (
            jnp.arange(queries.start, queries.stop)[None, :, None]
            >= jnp.arange(keys.start, keys.stop)[None, None]
        )
    if segment_ids_BT is not None:
        same = segment_ids_BT[:, queries, None] == segment_ids_BT[:, None, keys]
        visible = same if visible is None else visible & same
    return None if visible is None else jnp.where(visible, 0.0, MASKED)


IMPLEMENTATIONS: dict[str, Callable[..., jax.Array]] = {
    "xla": _attend_xla,  # every backend; stores (T, S) weights; the only one with query_start
    "chunked": _attend_chunked,  # every backend; whole rows, for training
    "splash": attend_splash,  # TPU; whole rows
    "cudnn": attend_cudnn,  # NVIDIA, bf16; whole rows
}
