"""Products of bf16 on a CPU: against fp32, and only where they serve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.models.decoder import half_products
from lvm_jax.models.decoder.linear import linear


@pytest.fixture(scope="module")
def arrays():
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"x": (2, 40, 24), "kernel": (24, 2, 16), "dy": (2, 40, 2, 16)}
    drawn = {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    # Already rounded, so that only sums and results differ from fp32.
    return {name: x.astype(jnp.bfloat16).astype(jnp.float32) for name, x in drawn.items()}


def results(x, kernel, dy, dtype):
    y, pullback = jax.vjp(jax.jit(linear), x.astype(dtype), kernel)
    dx, dkernel = jax.jit(pullback)(dy.astype(dtype))
    return {"y": y, "dx": dx, "dkernel": dkernel}


def test_results_are_those_of_fp32_rounded_once(arrays):
    exact, found = (results(**arrays, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    for name in ("y", "dx"):
        assert found[name].dtype == jnp.bfloat16
        np.testing.assert_allclose(
            found[name].astype(jnp.float32), exact[name], rtol=2**-8, atol=1e-4, err_msg=name
        )
    # A kernel is fp32, and its gradient is not rounded at all.
    np.testing.assert_allclose(found["dkernel"], exact["dkernel"], rtol=1e-5, atol=1e-5)


def test_all_three_products_of_training_have_fp32_results(arrays):
    program = jax.jit(lambda arrays: results(**arrays, dtype=jnp.bfloat16)).lower(arrays).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 3
    for line in products:
        operands, result = line.rsplit("->", 1)
        assert (operands.count("xbf16>"), "xf32>" in result) == (2, True), line


def test_only_bf16_on_a_single_cpu_device_is_served():
    half, full = (jnp.zeros((2, 2), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    assert half_products.serves(half)
    assert not half_products.serves(full)
    tpu = jax.sharding.AbstractDevice(device_kind="TPU v5p", num_cores=1, platform="tpu")
    for devices, kind, served in ((1, None, True), (2, None, False), (1, tpu, False)):
        mesh = jax.sharding.AbstractMesh((devices,), ("data",), abstract_device=kind)
        with jax.sharding.use_abstract_mesh(mesh):
            assert half_products.serves(half) == served, (devices, kind)
