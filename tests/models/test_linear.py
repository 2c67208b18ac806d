"""Products with a matrix stored by its outputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.models import Llama, presets
from lvm_jax.models.decoder.linear import ByOutputs, by_outputs, few_rows, linear


@pytest.mark.parametrize("tokens", [1, 8, 65])  # one row, few, and many
@pytest.mark.parametrize("inputs", [1, 2])
def test_products_do_not_depend_on_what_is_stored_first(tokens, inputs):
    keys = jax.random.split(jax.random.key(0))
    kernel = nnx.Param(jax.random.normal(keys[0], (4, 6, 10)), axes=("a", "b", "c"))
    x = jax.random.normal(keys[1], (1, tokens, *kernel.shape[:inputs]))
    stored = by_outputs(kernel, inputs)
    assert stored.get_metadata()["axes"] == (("b", "c", "a") if inputs == 1 else ("c", "a", "b"))
    expected = linear(x, kernel[...], inputs, jnp.float32)
    np.testing.assert_allclose(few_rows(x, stored, inputs, jnp.float32), expected, atol=1e-5)


def test_quantised_matrices_stay_as_they_are():
    plain = presets.llama("debug", hidden_size=16)
    quantised = dataclasses.replace(plain, quantization="int8")
    for config, kind in ((plain, ByOutputs), (quantised, nnx.Param)):
        (block, *_) = Llama(config, rngs=nnx.Rngs(0)).unstacked().blocks()
        assert type(block.mlp.down) is kind
