import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets
from lvm_jax.models.decoder import quantized

CONFIG = presets.llama(
    "debug", vocab_size=140, hidden_size=32, intermediate_size=48, attention="xla"
)
TOKENS = jax.random.randint(jax.random.key(1), (2, 12), 0, 140)
# What a mantissa of 7, 3 and 2 bits leaves of a product of 32 terms, with room to spare.
TOLERANCE = {"int8": 0.02, "fp8": 0.06}
GRADIENT_TOLERANCE = {"int8": 0.02, "fp8": 0.2}


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_product_is_close_and_its_gradients_are_too(kind):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel, dy = (jax.random.normal(k, s) for k, s in zip(keys, ((8, 32), (32, 16), (8, 16))))
    dims = (((1,), (0,)), ((), ()))
    ours, pullback = jax.vjp(lambda x, k: quantized.dot_general(x, k, dims, kind), x, kernel)
    assert not np.allclose(ours, x @ kernel, atol=1e-4)  # it is quantised
    for one, other, tolerance in (
        (ours, x @ kernel, TOLERANCE),
        (pullback(dy)[0], dy @ kernel.T, GRADIENT_TOLERANCE),
        (pullback(dy)[1], x.T @ dy, GRADIENT_TOLERANCE),
    ):
        assert jnp.linalg.norm(one - other) < tolerance[kind] * jnp.linalg.norm(other)


@pytest.fixture(scope="module")
def params():
    return nnx.state(nnx.jit(lambda: Llama(CONFIG, rngs=nnx.Rngs(0)))())


def _gradient(params, **changes):
    graphdef = nnx.graphdef(Llama.abstract(dataclasses.replace(CONFIG, **changes)))

    def loss(params):
        logits = nnx.merge(graphdef, params)(TOKENS)
        return -jax.nn.log_softmax(logits)[:, :-1].mean(), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return logits, grads


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_quantised_decoder_stays_close_and_every_weight_has_a_gradient(params, kind):
    logits, _ = _gradient(params)
    ours, grads = _gradient(params, quantization=kind)
    assert 0 < jnp.linalg.norm(ours - logits) < TOLERANCE[kind] * jnp.linalg.norm(logits)
    assert all((leaf != 0).any() and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_without_qwix_the_way_to_install_it_is_named(monkeypatch):
    quantized._qwix.cache_clear()
    monkeypatch.setitem(sys.modules, "qwix._src.core.dot_general_qt", None)
    with pytest.raises(
        UserError, match=r"'int8' needs qwix.*pip install 'lvm_jax\[quantization\]'"
    ):
        quantized._qwix("int8")
