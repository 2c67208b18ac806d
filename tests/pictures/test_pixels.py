"""Bytes to floats and back: every level survives, in NumPy and in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.pictures.pixels import to_float, to_uint8

LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


@pytest.mark.parametrize(("kind", "make"), [(np.ndarray, np.asarray), (jax.Array, jnp.asarray)])
def test_every_level_survives_the_way_there_and_back(kind, make):
    floats = to_float(make(LEVELS))
    assert isinstance(floats, kind)
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (0, 1)
    np.testing.assert_allclose(floats, to_float(LEVELS), rtol=2e-7)
    back = to_uint8(floats)
    assert isinstance(back, kind)
    np.testing.assert_array_equal(back, LEVELS)


def test_numpy_and_jax_round_alike():
    wild = np.random.default_rng(0).normal(0.5, 0.4, (64, 64)).astype(np.float32)
    np.testing.assert_array_equal(to_uint8(jnp.asarray(wild)), to_uint8(wild))


@pytest.mark.parametrize(
    ("value", "level"), [(-0.2, 0), (1.7, 255), (0.5, 128), (100.4 / 255, 100)]
)
def test_floats_are_clipped_and_rounded(value, level):
    assert to_uint8(np.array([value], np.float32)).tolist() == [level]
