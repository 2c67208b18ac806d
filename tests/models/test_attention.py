import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.models.attention import attend as attention
from lvm_jax.models.attention import kernels
from lvm_jax.models.decoder.rope import apply_rope, rope_table

B, T, N, H = 2, 37, 4, 8
attend = jax.jit(attention.attend, static_argnames=("implementation",))


def _qkv(key: int = 0, heads: int = N, kv_heads: int = N, dtype: str = "float32"):
    keys = jax.random.split(jax.random.key(key), 3)
    shapes = ((B, T, heads, H), (B, T, kv_heads, H), (B, T, kv_heads, H))
    return tuple(jax.random.normal(k, shape, dtype) for k, shape in zip(keys, shapes))


def _by_hand(q, k, v, segments=None):
    """Attention in float64 numpy, one query at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    groups = q.shape[2] // k.shape[2]
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(*q.shape[:3]):
        seen = [s for s in range(t + 1) if segments is None or segments[b, s] == segments[b, t]]
        scores = k[b, seen, n // groups] @ q[b, t, n] / np.sqrt(H)
        weights = np.exp(scores - scores.max())
        out[b, t, n] = (weights / weights.sum()) @ v[b, seen, n // groups]
    return out


SEGMENTS = np.asarray([[1] * 10 + [2] * 20 + [0] * 7, [1] * 3 + [2] * 2 + [3] * 32], np.int32)


# What runs on a CPU; cuDNN's lowering is tested in test_kernel_attention.py.
@pytest.fixture(params=["xla", "chunked", "splash"])
def implementation(request, monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRET", True)
    monkeypatch.setattr(
        attention, "CHUNK", 16
    )  # T = 37 then has two whole chunks and a part of one
    return request.param


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["whole", "packed"])
def test_equals_attention_by_hand(implementation, kv_heads, segments):
    q, k, v = _qkv(kv_heads=kv_heads)
    ids = None if segments is None else jnp.asarray(segments)
    out = attend(q, k, v, segment_ids_BT=ids, implementation=implementation)
    np.testing.assert_allclose(out, _by_hand(q, k, v, segments), atol=2e-6)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_gradients_of_chunks_equal_those_of_plain_softmax(monkeypatch, kv_heads):
    monkeypatch.setattr(attention, "CHUNK", 16)
    weights = jax.random.normal(jax.random.key(9), (B, T, N, H))

    def loss(qkv, implementation):
        y = attend(*qkv, segment_ids_BT=jnp.asarray(SEGMENTS), implementation=implementation)
        return jnp.sum(y * weights)

    qkv, grad = _qkv(kv_heads=kv_heads), jax.jit(jax.grad(loss), static_argnums=1)
    for ours, theirs in zip(grad(qkv, "chunked"), grad(qkv, "xla")):
        np.testing.assert_allclose(ours, theirs, atol=5e-6)


def test_no_product_of_the_gradient_has_scores_as_transposed_left_operand(monkeypatch):
    """XLA's CPU backend runs such a product at a third of the speed."""
    monkeypatch.setattr(attention, "CHUNK", 16)
    gradient = jax.grad(lambda qkv: attention.attend(*qkv).sum())
    program = jax.jit(gradient).lower(_qkv()).as_text()
    transposed = re.findall(r"contracting_dims = \[2\] x .*: \(tensor<\w*x(\d+)xf32>", program)
    assert set(transposed) == {str(H)}  # keys, not scores, whose last dimension is queries


def test_scores_beyond_the_range_of_exp_stay_finite(implementation):
    q, k, v = (100 * x for x in _qkv())
    ids = jnp.asarray(SEGMENTS)
    value, grads = jax.jit(
        jax.value_and_grad(
            lambda qkv: jnp.sum(attend(*qkv, segment_ids_BT=ids, implementation=implementation))
        )
    )((q, k, v))
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(g).all() for g in grads)


def test_bf16_stays_within_bf16_of_fp32(implementation):
    out = attend(*_qkv(dtype="bfloat16"), implementation=implementation)
    assert out.dtype == jnp.bfloat16
    exact = _by_hand(*_qkv(dtype="bfloat16"))
    np.testing.assert_allclose(np.asarray(out, np.float32), exact, atol=0.03)


def test_queries_after_a_prefix_equal_the_end_of_the_whole_row():
    q, k, v = _qkv()
    whole = attend(q, k, v, implementation="xla")
    tail = attend(q[:, 30:], k, v, query_start=jnp.int32(30), implementation="xla")
    np.testing.assert_allclose(tail, whole[:, 30:], atol=1e-6)


def test_unknown_implementation_and_chunks_with_a_cache_are_refused():
    q, k, v = _qkv()
    attend = attention.attend
    with pytest.raises(
        UserError, match=r"'flash' does not exist; known: xla, chunked, splash, cudnn"
    ):
        attend(q, k, v, implementation="flash")
    with pytest.raises(UserError, match=r"3 queries.*37 keys.*use 'xla'"):
        attend(q[:, :3], k, v, implementation="chunked")


def test_last_image_has_256_distinct_angles_even_for_a_bf16_model():
    positions = jnp.arange(3840, 4096)[None]
    cos, sin = rope_table(positions, head_dim=128, theta=10000.0)
    assert cos.dtype == sin.dtype == jnp.float32
    angles = np.stack([cos[0, :, 0], sin[0, :, 0]], axis=-1)
    for frequency in (0, 1, 8):
        assert len(np.unique(angles[:, frequency], axis=0)) == 256
    exact = np.arange(3840, 4096)[:, None] / 10000.0 ** (np.arange(0, 128, 2) / 128)
    np.testing.assert_allclose(cos[0, :, 0], np.cos(exact), atol=5e-4)
    np.testing.assert_allclose(sin[0, :, 0], np.sin(exact), atol=5e-4)


def test_rope_scores_depend_on_distance_only():
    q, k, _ = _qkv()

    @jax.jit
    def scores(offset):
        table = rope_table(jnp.arange(T)[None] + offset, H, 10000.0)
        return jnp.einsum("BTNH,BSNH->BNTS", apply_rope(q, table), apply_rope(k, table))

    np.testing.assert_allclose(scores(0), scores(1000), atol=2e-3)
    assert not np.allclose(scores(0), jnp.einsum("BTNH,BSNH->BNTS", q, k), atol=0.1)
