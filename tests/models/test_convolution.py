"""The gradient of wide convolutions, against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.models.tokenizer import convolution
from lvm_jax.models.tokenizer.convolution import WIDE, convolve

SAME = ((1, 1), (1, 1))


def gradients(x, kernel, weights, padding):
    def loss(x, kernel):
        return jnp.sum(weights * convolve(x, kernel, padding=padding))

    return jax.jit(jax.grad(loss, (0, 1)))(x, kernel)


@pytest.mark.parametrize(
    ("size", "padding", "height", "positions"),
    [
        (3, SAME, 6, 1),
        (3, SAME, 6, 60),
        (3, SAME, 7, 60),
        (4, ((1, 2), (0, 3)), 6, 40),
        (3, ((0, 0), (0, 0)), 6, 2048),
    ],
)
def test_gradients_in_bands_are_those_of_xla(monkeypatch, size, padding, height, positions):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, height, 5, WIDE)), jnp.float32)
    kernel = jnp.asarray(generator.normal(size=(size, size, WIDE, 4)), jnp.float32)
    weights = jnp.asarray(
        generator.normal(size=convolve(x, kernel, padding=padding).shape), jnp.float32
    )
    monkeypatch.setattr(convolution, "BAND_POSITIONS", positions)
    bands = gradients(x, kernel, weights, padding)
    monkeypatch.setattr(convolution, "split_mesh", object)  # as with several devices
    for ours, xla in zip(bands, gradients(x, kernel, weights, padding), strict=True):
        np.testing.assert_allclose(ours, xla, atol=1e-4)


@pytest.mark.parametrize(("channels", "in_bands"), [(WIDE, True), (WIDE - 1, False)])
def test_only_wide_layers_sum_over_bands(channels: int, in_bands: bool):
    x, kernel = jnp.ones((1, 4, 4, channels)), jnp.ones((3, 3, channels, 2))
    weights = jnp.ones((1, 4, 4, 2))
    jaxpr = str(jax.make_jaxpr(lambda x, k: gradients(x, k, weights, SAME))(x, kernel))
    assert ("scan" in jaxpr) == in_bands


def test_a_penalty_on_gradients_differentiates_through_bands(monkeypatch):
    generator = np.random.default_rng(0)
    x, kernel, weights = (
        jnp.asarray(generator.normal(size=s), jnp.float32)
        for s in ((1, 4, 4, WIDE), (3, 3, WIDE, 3), (1, 4, 4, 3))
    )

    def penalty(x, kernel):  # of R1's kind, on both gradients
        def loss(x, kernel):
            return jnp.sum(weights * jnp.tanh(0.05 * convolve(x, kernel, padding=SAME)))

        return sum(jnp.sum(g**2) for g in jax.grad(loss, (0, 1))(x, kernel))

    bands = jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)
    monkeypatch.setattr(convolution, "split_mesh", object)  # as with several devices
    for ours, xla in zip(bands, jax.jit(jax.grad(penalty, (0, 1)))(x, kernel), strict=True):
        assert np.abs(xla).max() > 0.1
        np.testing.assert_allclose(ours, xla, atol=1e-4)


def test_bf16_sums_in_fp32_and_keeps_its_type():
    x = jnp.ones((1, 64, 64, WIDE), jnp.bfloat16)
    kernel = jnp.ones((3, 3, WIDE, 1), jnp.bfloat16)
    _, gradient = gradients(x, kernel, jnp.ones((1, 64, 64, 1), jnp.bfloat16), SAME)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient[1, 1, :, 0].astype(jnp.float32), 64 * 64)
