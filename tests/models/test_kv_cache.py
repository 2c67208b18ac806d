import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets

CONFIG = presets.llama(
    "debug", vocab_size=140, hidden_size=16, intermediate_size=24, num_key_value_heads=2
)


@pytest.fixture(scope="module")
def model():
    return nnx.jit(lambda: Llama(CONFIG, rngs=nnx.Rngs(0)))()


@pytest.fixture(scope="module")
def tokens():
    return jax.random.randint(jax.random.key(0), (3, 12), 0, CONFIG.vocab_size)


@pytest.fixture(scope="module")
def full(model, tokens):
    return nnx.jit(lambda model, tokens: model(tokens))(model, tokens)


@pytest.mark.parametrize(
    "pieces", [[12], [1] * 12, [5, 1, 1, 4, 1]], ids=["prefill", "decode", "mixed"]
)
@pytest.mark.parametrize("max_len", [12, 17])
def test_reading_in_pieces_equals_the_full_forward_pass(model, tokens, full, pieces, max_len):
    extend = nnx.jit(lambda model, tokens, cache: model.extend(tokens, cache))
    cache, start, logits = model.init_cache(3, max_len), 0, []
    for piece in pieces:
        out, cache = extend(model, tokens[:, start : start + piece], cache)
        logits.append(out)
        start += piece
    assert int(cache.length) == 12
    np.testing.assert_allclose(jnp.concatenate(logits, axis=1), full, atol=1e-5)


def test_greedy_decoding_in_a_loop_equals_recomputing_the_row(model, tokens):
    prompt, new = tokens[:, :4], 6

    @jax.jit
    def decode(prompt):
        logits, cache = model.extend(prompt, model.init_cache(3, 4 + new))

        def step(carry, _):
            logits, cache = carry
            token = jnp.argmax(logits[:, -1:], axis=-1)
            return model.extend(token, cache), token[:, 0]

        return jax.lax.scan(step, (logits[:, -1:], cache), length=new)[1].T

    # The full pass over a row of fixed length: what follows a position does not reach it.
    forward = nnx.jit(lambda model, row: model(row))
    row = jnp.pad(prompt, ((0, 0), (0, new)))
    for end in range(4, 4 + new):
        row = row.at[:, end].set(jnp.argmax(forward(model, row)[:, end - 1], axis=-1))
    np.testing.assert_array_equal(decode(prompt), row[:, 4:])


def test_cache_has_the_compute_dtype_and_a_slot_for_each_token(model):
    config = presets.llama("debug", dtype="bfloat16", num_hidden_layers=3)
    cache = nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0))).init_cache(5, 7)
    assert cache.k_LBSKH.shape == cache.v_LBSKH.shape == (3, 5, 7, 4, 32)
    assert cache.k_LBSKH.dtype == jnp.bfloat16
    assert cache.max_len == 7


def test_tokens_beyond_the_cache_are_refused(model, tokens):
    cache = dataclasses.replace(model.init_cache(3, 6), length=jnp.int32(5))
    with pytest.raises(
        UserError, match=r"2 more tokens after 5 exceed the KV cache of 6: .* at least 7"
    ):
        model.extend(tokens[:, :2], cache)
    with pytest.raises(UserError, match=r"12 more tokens after 0 exceed"):
        jax.eval_shape(lambda cache: model.extend(tokens, cache), cache)
