import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets
from lvm_jax.models.attention.attend import attend
from lvm_jax.models.decoder.kv_cache import KVCache, Stored

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
    assert len(cache.layers) == 3
    for stored in (x for layer in cache.layers for x in layer):
        assert stored.x_BKSH.shape == (5, 4, 7, 32)
        assert stored.x_BKSH.dtype == jnp.bfloat16
        assert stored.scale_BKS is None
    assert cache.max_len == 7


def test_tokens_beyond_the_cache_are_refused(model, tokens):
    cache = dataclasses.replace(model.init_cache(3, 6), length=jnp.int32(5))
    with pytest.raises(
        UserError, match=r"2 more tokens after 5 exceed the KV cache of 6: .* at least 7"
    ):
        model.extend(tokens[:, :2], cache)
    with pytest.raises(UserError, match=r"12 more tokens after 0 exceed"):
        jax.eval_shape(lambda cache: model.extend(tokens, cache), cache)


@pytest.mark.parametrize("lengths", [[5, 5], [3, 7], [0, 6]])
def test_rows_of_a_shared_prefix_equal_the_full_forward_pass(model, lengths):
    """Two prompts of their own lengths, three rows each, four own tokens in two calls."""
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, CONFIG.vocab_size, n) for n in lengths]
    own = rng.integers(0, CONFIG.vocab_size, (6, 4))
    padded = np.zeros((2, max(lengths)), np.int32)
    for row, prompt in zip(padded, prompts):
        row[: len(prompt)] = prompt

    @nnx.jit
    def decode(model, padded, own):
        prefix = model.prefill(padded, jnp.array(lengths))
        cache = model.init_cache(6, 4, prefix=prefix)
        first, cache = model.extend(own[:, :3], cache)
        return jnp.concatenate([first, model.extend(own[:, 3:], cache)[0]], axis=1)

    logits = decode(model, padded, own)
    for row in range(6):
        sentence = jnp.concatenate([prompts[row // 3], own[row]])[None]
        np.testing.assert_allclose(logits[row], model(sentence)[0, -4:], atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("int8", 0.02), ("float8_e4m3fn", 0.08)])
def test_eight_bits_are_near_and_small(dtype, tolerance):
    x = jax.random.normal(jax.random.key(0), (2, 9, 3, 64)) * 7
    x = x.at[0, 0].set(0.0)  # a token without any signal has scale 0
    stored = Stored.of(x, dtype)
    back = stored.x_BKSH.astype(jnp.float32) * stored.scale_BKS[..., None]
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    error = jnp.abs(back.swapaxes(1, 2) - x) / jnp.maximum(largest, 1e-9)
    assert float(error.max()) < tolerance
    assert float(error.max()) > 0
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(stored)) < 0.55 * x.astype("bfloat16").nbytes


# Of the largest value: half a step of 127, and half a step of three bits of mantissa, with room for the scores.
@pytest.mark.parametrize(("dtype", "tolerance"), [("int8", 0.01), ("float8_e4m3fn", 0.1)])
def test_attention_over_eight_bits(dtype, tolerance):
    """Over keys and values in 8 bits it is exactly the attention over what they give back, near the exact one."""
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 9, 4, 16)) for i in range(3))

    def full(cache_dtype):
        cache = KVCache.empty(
            layers=1, batch=2, max_len=9, kv_heads=4, head_dim=16, dtype=cache_dtype
        )
        return cache.attend(0, q, k, v)

    exact, _ = full("float32")
    rounded, (keys, values) = full(dtype)
    back = [
        (x.x_BKSH.astype(jnp.float32) * x.scale_BKS[..., None]).swapaxes(1, 2)
        for x in (keys, values)
    ]
    np.testing.assert_allclose(rounded, attend(q, *back, implementation="xla"), atol=1e-5)
    np.testing.assert_allclose(exact, attend(q, k, v, implementation="xla"), atol=1e-5)
    assert float(jnp.abs(rounded - exact).max()) < tolerance * float(jnp.abs(v).max())


def test_the_decoding_form_has_the_same_blocks_and_rounds_matrices_only(model):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    model = nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(0)))()
    decoding = model.unstacked()
    assert decoding.embedding[...].dtype == jnp.bfloat16
    assert decoding.norm.scale[...].dtype == jnp.float32
    for mine, theirs in zip(decoding.blocks(), model.blocks(), strict=True):
        gate = theirs.mlp.gate[...].astype(jnp.bfloat16)
        np.testing.assert_array_equal(mine.mlp.gate[...].T, gate)  # a CPU stores it by outputs
        assert mine.mlp_norm.scale[...].dtype == jnp.float32
    tokens = jnp.array([[3, 5, 7]])
    ours, _ = decoding.extend(tokens, decoding.init_cache(1, 3))
    theirs, _ = model.extend(tokens, model.init_cache(1, 3))
    np.testing.assert_array_equal(ours, theirs)


def test_mistakes_are_named(model):
    prefix = nnx.eval_shape(lambda: model.prefill(jnp.zeros((2, 3), int), jnp.array([3, 3])))
    with pytest.raises(UserError, match="3 rows over 2 prompts"):
        model.init_cache(3, 4, prefix=prefix)
    with pytest.raises(UserError, match="cache dtype 'int4' does not exist; known: float32"):
        model.init_cache(3, 4, dtype="int4")
    with pytest.raises(UserError, match="cache dtype 'int4' does not exist"):
        model.prefill(jnp.zeros((2, 3), int), jnp.array([3, 3]), dtype="int4")
