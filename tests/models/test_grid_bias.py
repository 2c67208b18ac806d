"""Attention of every token to every token, with a bias of the keys' rows and columns, by every implementation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from lvm_jax.errors import UserError
from lvm_jax.models.attention import attend as attention
from lvm_jax.models.attention import kernels
from lvm_jax.models.attention.grid_bias import GridBias, spread

B, N, K, H, P, Q = 2, 4, 2, 8, 5, 7
T = P * Q  # 35 is odd, and no chunk ends with a row of the grid
SEGMENTS = np.asarray([[1] * 10 + [2] * 25, [1] * 34 + [2]], np.int32)


@pytest.fixture(params=["xla", "chunked", "splash"])
def implementation(request, monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRET", True)
    monkeypatch.setattr(attention, "CHUNK", 16)
    return request.param


def _inputs(dtype="float32"):
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N, P), (B, T, N, Q))
    q, k, v, rows, columns = (
        jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes)
    )
    return q, k, v, GridBias(rows, columns)


def _by_hand(q, k, v, bias=None, segments=None, causal=False):
    """Attention in float64 numpy, one query at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(*q.shape[:3]):
        seen = [
            s
            for s in range(T)
            if (s <= t or not causal) and (segments is None or segments[b, s] == segments[b, t])
        ]
        scores = k[b, seen, n // (N // K)] @ q[b, t, n] / np.sqrt(H)
        if bias is not None:
            rows, columns = (np.asarray(x, np.float64)[b, t, n] for x in bias)
            scores += [rows[s // Q] + columns[s % Q] for s in seen]
        weights = np.exp(scores - scores.max())
        out[b, t, n] = (weights / weights.sum()) @ v[b, seen, n // (N // K)]
    return out


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["whole", "packed"])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_equals_attention_by_hand(implementation, biased, segments, causal):
    q, k, v, bias = _inputs()
    bias = bias if biased else None
    out = jax.jit(
        lambda *x: attention.attend(
            *x[:3], bias=x[3], segment_ids_BT=segments, causal=causal, implementation=implementation
        )
    )(q, k, v, bias)
    np.testing.assert_allclose(out, _by_hand(q, k, v, bias, segments, causal), atol=3e-6)


@pytest.mark.parametrize("name", ["chunked", "splash"])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_gradients_equal_those_of_plain_softmax(monkeypatch, name, causal):
    monkeypatch.setattr(kernels, "INTERPRET", True)
    monkeypatch.setattr(attention, "CHUNK", 16)
    weights = jax.random.normal(jax.random.key(9), (B, T, N, H))

    def loss(inputs, name):
        q, k, v, bias = inputs
        y = attention.attend(q, k, v, bias=bias, causal=causal, implementation=name)
        return jnp.sum(y * weights)

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    ours, plain = grad(_inputs(), name), grad(_inputs(), "xla")
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_bf16_stays_within_bf16_of_fp32(implementation):
    q, k, v, bias = _inputs("bfloat16")
    out = attention.attend(q, k, v, bias=bias, causal=False, implementation=implementation)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), _by_hand(q, k, v, bias), atol=0.04)


def test_a_part_of_the_keys_is_a_slice_of_the_whole():
    bias = _inputs()[3]
    whole = spread(*bias, 3)
    assert whole.shape == (B, T, N, T)
    for start, stop in ((0, 7), (3, 12), (14, 35), (20, 21)):
        np.testing.assert_array_equal(spread(*bias, 3, start, stop), whole[..., start:stop])


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_cudnn_is_one_fused_call_a_direction(monkeypatch, biased):
    """An odd number of tokens is padded, so that a mask must hide the last key."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    inputs = _inputs("bfloat16")

    def loss(inputs):
        q, k, v, bias = inputs
        bias = bias if biased else None
        return attention.attend(q, k, v, bias=bias, causal=False, implementation="cudnn").sum()

    program = jax.jit(jax.grad(loss)).trace(inputs).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("custom_call @__cudnn$fmhaScaleBiasSoftmax(") == 1
    assert program.count("custom_call @__cudnn$fmhaScaleBiasSoftmaxBackward(") == 1
    assert f"tensor<{B}x{T + 1}x{N}x{24 if biased else 8}xbf16>" in program  # 8 + 5 + 7, padded
    assert not re.search(r"mask_type[^,]*CAUSAL", program)


def test_auto_gives_heads_that_a_bias_makes_too_wide_to_chunks():
    assert attention.choose("auto", "bfloat16", "gpu", features=64 + 64 + 64) == "cudnn"
    assert attention.choose("auto", "bfloat16", "gpu", features=64 + 100 + 100) == "chunked"
    assert attention.choose("auto", "bfloat16", "tpu", features=64 + 100 + 100) == "splash"
    q, k, v = (jnp.zeros((1, 34, 1, 250), "bfloat16") for _ in range(3))
    bias = GridBias(jnp.zeros((1, 34, 1, 2)), jnp.zeros((1, 34, 1, 17)))
    with pytest.raises(UserError, match=r"head dimension of 269, the features of a bias included"):
        attention.attend(q, k, v, bias=bias, causal=False, implementation="cudnn")


def test_a_bias_of_another_grid_is_refused():
    q, k, v, bias = _inputs()
    with pytest.raises(UserError, match=r"a bias for 30 keys and 35 keys"):
        attention.attend(q, k, v, bias=GridBias(bias.rows_BTNP, bias.columns_BTNQ[..., :6]))
