"""Kernels that the compiler cannot partition: on a mesh each device runs them on its own rows and heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.models.attention import attend as attention
from lvm_jax.models.attention import kernels
from lvm_jax.parallel.mesh import MeshConfig, make_mesh

B, T, H = 4, 24, 16
SEGMENTS = jnp.asarray([[1] * 9 + [2] * 11 + [0] * 4] * B)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 3)])
def test_splash_on_a_mesh_equals_plain_softmax_on_one_device(monkeypatch, heads, kv_heads):
    """Two ways over rows and two over heads; key heads that do not divide are repeated, one for each query head."""
    monkeypatch.setattr(kernels, "INTERPRET", True)
    keys = jax.random.split(jax.random.key(0), 3)
    qkv = tuple(
        jax.random.normal(k, (B, T, h, H)) for k, h in zip(keys, (heads, kv_heads, kv_heads))
    )

    def loss(qkv, name):
        y = attention.attend(*qkv, segment_ids_BT=SEGMENTS, implementation=name)
        return jnp.sum(jnp.sin(y)), y

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, plain), plain_grads = grad(qkv, "xla")
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=1, context=2, tensor=2))):
        program = str(jax.make_jaxpr(loss, static_argnums=1)(qkv, "splash"))
        (_, ours), our_grads = grad(qkv, "splash")
    assert f"f32[2,{heads // 2},128,128]" in program  # a device's rows and heads, padded
    np.testing.assert_allclose(ours, plain, atol=3e-6)
    for one, other in zip(our_grads, plain_grads, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)
