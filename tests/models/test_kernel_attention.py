import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets
from lvm_jax.models.attention import attend as attention
from lvm_jax.models.attention import kernels

B, T, N, K, H = 2, 130, 4, 2, 100  # 130 tokens and 100 dimensions: a kernel must pad both
SEGMENTS = np.asarray([[1] * 50 + [2] * 71 + [0] * 9, [1] * 127 + [2] * 3], np.int32)


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRET", True)


@pytest.fixture
def cudnn_found(monkeypatch):
    """As on a machine with cuDNN, for lowering only."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)


def _qkv(dtype="float32", shape=(B, T)):
    keys = jax.random.split(jax.random.key(0), 3)
    return tuple(jax.random.normal(k, (*shape, h, H), dtype) for k, h in zip(keys, (N, K, K)))


def _value_and_grads(implementation, segments):
    weights = jax.random.normal(jax.random.key(9), (B, T, N, H))

    def loss(qkv):
        y = attention.attend(*qkv, segment_ids_BT=segments, implementation=implementation)
        return jnp.sum(y * weights), y

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(_qkv())


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["whole", "packed"])
def test_splash_equals_plain_softmax_forward_and_backward(interpreted, segments):
    (_, ours), our_grads = _value_and_grads("splash", segments)
    (_, plain), plain_grads = _value_and_grads("xla", segments)
    np.testing.assert_allclose(ours, plain, atol=3e-6)
    for one, other in zip(our_grads, plain_grads, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


TINY = presets.llama("debug", vocab_size=140, hidden_size=16, intermediate_size=24)


def _loss(tokens, **changes):
    """The abstract parameters of a small decoder, and a loss of them."""
    config = dataclasses.replace(TINY, **changes)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0))))
    return params, lambda p: jnp.square(nnx.merge(graphdef, p)(tokens)).sum()


def _kernel_calls(jaxpr):
    """Calls of the splash kernels whose results are used; XLA drops the others."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.params.get("name") == "_splash_attention":
            count += bool(equation.outvars)
            continue
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            count += _kernel_calls(inner) if hasattr(inner, "eqns") else 0
    return count


def test_dots_keeps_what_splash_needs(interpreted):
    """It calls the kernels as often as a program that stores everything; keeping nothing costs one call more."""
    calls = {}
    for remat in ("none", "dots", "full"):
        params, loss = _loss(jnp.zeros((1, 20), jnp.int32), attention="splash", remat=remat)
        calls[remat] = _kernel_calls(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
    assert calls["dots"] == calls["none"] > 0
    assert calls["full"] == calls["none"] + 1


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["whole", "packed"])
def test_cudnn_is_one_fused_call_a_direction_on_padded_heads(cudnn_found, segments):
    def loss(qkv):
        return attention.attend(*qkv, segment_ids_BT=segments, implementation="cudnn").sum()

    lowered = jax.jit(jax.grad(loss)).trace(_qkv("bfloat16")).lower(lowering_platforms=("cuda",))
    program = lowered.as_text()
    name = "__cudnn$fmha" + ("ScaleBias" if segments is not None else "") + "Softmax"
    assert program.count(f"custom_call @{name}(") == 1
    assert program.count(f"custom_call @{name}Backward(") == 1
    assert "tensor<2x130x4x104xbf16>" in program
    assert re.search(r"mask_type[^,]*CAUSAL", program)
    assert {x.shape for x in lowered.out_info} == {(B, T, N, H), (B, T, K, H)}


@pytest.mark.parametrize(("remat", "calls"), [("dots", 1), ("full", 2)])
def test_dots_keeps_what_cudnn_needs(cudnn_found, remat, calls):
    params, loss = _loss(
        jnp.zeros((1, 20), jnp.int32), attention="cudnn", dtype="bfloat16", remat=remat
    )
    lowered = jax.jit(jax.grad(loss)).trace(params).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("custom_call @__cudnn$fmhaSoftmax(") == calls


def test_auto_is_the_backends_best():
    chosen = {
        (backend, dtype): attention.choose("auto", dtype, backend)
        for backend in ("cpu", "gpu", "tpu")
        for dtype in ("float32", "bfloat16")
    }
    assert chosen == {
        ("cpu", "float32"): "chunked",
        ("cpu", "bfloat16"): "chunked",
        ("gpu", "float32"): "chunked",
        ("gpu", "bfloat16"): "cudnn",
        ("tpu", "float32"): "splash",
        ("tpu", "bfloat16"): "splash",
    }
    assert attention.choose("xla", "float32", "tpu") == "xla"
    attention.check_backend("chunked")
    with pytest.raises(
        UserError, match=r"'splash' runs on tpu and this is cpu: set attention=auto"
    ):
        attention.check_backend("splash")


def test_auto_passes_heads_too_wide_for_cudnn_on(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    q = jax.random.normal(jax.random.key(0), (1, 8, 2, 320), jnp.bfloat16)
    np.testing.assert_array_equal(
        attention.attend(q, q, q, implementation="auto"),
        attention.attend(q, q, q, implementation="chunked"),
    )


@pytest.mark.parametrize("name", ["splash", "cudnn"])
def test_kernels_refuse_what_they_cannot_do(name):
    q, k, v = _qkv("bfloat16")
    with pytest.raises(UserError, match=r"3 queries.*130 keys.*use 'xla'"):
        attention.attend(q[:, :3], k, v, implementation=name)
    if name == "cudnn":
        with pytest.raises(UserError, match=r"got float32.*dtype=bfloat16"):
            attention.attend(*_qkv(), implementation=name)
        with pytest.raises(UserError, match=r"needs an NVIDIA GPU"):
            attention.attend(q, k, v, implementation=name)
