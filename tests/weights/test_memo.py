"""A result is computed once for the same weights, and again for others; nothing is kept alive."""

import gc
import weakref

import jax.numpy as jnp
import pytest
from flax import nnx

from lvm_jax.weights.memo import WeightsMemo


class Two(nnx.Module):
    def __init__(self) -> None:
        self.a = nnx.Param(jnp.zeros(3))
        self.b = nnx.Param(jnp.ones(3))


def test_once_for_the_same_weights_and_again_for_others():
    memo, module, calls = WeightsMemo(), Two(), []
    count = lambda: calls.append(1) or len(calls)  # noqa: E731
    assert [memo.of(module, count) for _ in range(3)] == [1, 1, 1]
    module.b[...] = (
        module.b[...] + 0
    )  # equal numbers in another array: it cannot be told without a look at them
    assert [memo.of(module, count) for _ in range(2)] == [2, 2]
    module.c = nnx.Param(jnp.zeros(1))
    assert memo.of(module, count) == 3
    assert [memo.of(Two(), count), memo.of(module, count)] == [4, 3]
    assert [memo.of(module, count, key) for key in ("x", "x", "y", "x")] == [5, 5, 6, 7]


def test_a_failure_is_not_remembered():
    memo, module = WeightsMemo(), Two()

    def fail() -> None:
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            memo.of(module, fail)
    assert memo.of(module, lambda: 1) == 1


def test_neither_module_nor_arrays_are_kept():
    memo, module = WeightsMemo(), Two()
    memo.of(module, lambda: 1)
    array, whole = weakref.ref(module.a[...]), weakref.ref(module)
    module.a[...] = jnp.ones(3)
    gc.collect()
    assert array() is None
    del module
    gc.collect()
    assert whole() is None
