import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, LlamaConfig, presets
from lvm_jax.models.attention import attend as attention

TINY = presets.llama(
    "debug", vocab_size=140, hidden_size=16, intermediate_size=24, num_key_value_heads=2
)


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CHUNK", 16)  # rows of 20 tokens: a whole chunk and a part of one
        yield


@pytest.fixture(scope="module")
def model():
    return nnx.jit(lambda: Llama(TINY, rngs=nnx.Rngs(0)))()


def _variant(model: Llama, **changes) -> Llama:
    """The same parameters, computed in another way."""
    config = dataclasses.replace(model.config, **changes)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graphdef, nnx.state(model))


@nnx.jit
def _forward(model: Llama, tokens, segment_ids=None, positions=None) -> jax.Array:
    return model(tokens, segment_ids, positions)


def _tokens(seed: int = 0, shape: tuple[int, int] = (2, 20)) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), shape, 0, TINY.vocab_size)


@pytest.mark.parametrize("name", ["xla", "chunked"])
def test_no_logit_has_a_gradient_to_a_later_token(model, name):
    model = _variant(model, attention=name)
    x = model.embed(_tokens(shape=(1, 20)))
    gradient = jax.jit(jax.grad(lambda x, t: model.logits(model.transform(x))[0, t].sum()))
    for t in (0, 7, 12, 19):
        reach = np.asarray(jnp.abs(gradient(x, t)[0]).max(axis=-1))
        assert (reach[t + 1 :] == 0).all()
        assert (reach[: t + 1] > 0).all()


@pytest.mark.parametrize("name", ["xla", "chunked"])
def test_sentences_of_a_row_do_not_see_each_other(model, name):
    model = _variant(model, attention=name)
    a, b = _tokens(1, (1, 9)), _tokens(2, (1, 7))
    padding = jnp.full((1, 4), TINY.pad_token_id)
    segments = jnp.asarray([[1] * 9 + [2] * 7 + [0] * 4])
    positions = jnp.concatenate([jnp.arange(9), jnp.arange(7), jnp.arange(4)])[None]
    packed = _forward(model, jnp.concatenate([a, b, padding], axis=1), segments, positions)
    np.testing.assert_allclose(packed[:, :9], _forward(model, a), atol=1e-6)
    np.testing.assert_allclose(packed[:, 9:16], _forward(model, b), atol=1e-6)
    assert jnp.isfinite(packed).all()

    other = jnp.concatenate([_tokens(3, (1, 9)), b, padding], axis=1)
    changed = _forward(model, other, segments, positions)
    np.testing.assert_array_equal(changed[:, 9:], packed[:, 9:])
    assert not np.allclose(changed[:, :9], packed[:, :9], atol=1e-4)


def test_positions_matter_and_count_from_the_start_of_the_row(model):
    tokens, counted = _tokens(), jnp.broadcast_to(jnp.arange(20), (2, 20))
    logits = _forward(model, tokens)
    np.testing.assert_array_equal(_forward(model, tokens, None, counted), logits)
    assert not np.allclose(_forward(model, tokens, None, 5 * counted), logits, atol=1e-5)


def _value_and_grad(model: Llama, weights: jax.Array):
    graphdef, params = nnx.split(model)
    return jax.jit(
        jax.value_and_grad(lambda p: jnp.sum(nnx.merge(graphdef, p)(_tokens()) * weights))
    )(params)


@pytest.fixture(scope="module")
def weights():
    return jax.random.normal(jax.random.key(5), (2, 20, TINY.vocab_size))


@pytest.fixture(scope="module")
def plain(model, weights):
    """Value and gradients of the simplest program: a loop over layers that stores everything, plain softmax."""
    return _value_and_grad(
        _variant(model, attention="xla", scan_layers=False, remat="none"), weights
    )


@pytest.mark.parametrize(
    ("scan", "remat"),
    [(True, "none"), (True, "full"), (True, "dots"), (False, "dots"), (False, "none")],
)
def test_scan_remat_and_chunks_change_neither_value_nor_gradients(
    model, plain, weights, scan, remat
):
    value, grads = _value_and_grad(_variant(model, scan_layers=scan, remat=remat), weights)
    np.testing.assert_allclose(value, plain[0], rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(plain[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)


# What the loop over layers hands to the backward pass: shapes with a leading axis of L = 2 layers.
@pytest.mark.parametrize(
    ("remat", "activations", "attention_weights"),
    [("none", True, True), ("dots", True, False), ("full", False, False)],
)
def test_remat_policies_store_what_they_say(model, remat, activations, attention_weights):
    graphdef, params = nnx.split(_variant(model, remat=remat, attention="xla"))
    program = str(
        jax.make_jaxpr(jax.grad(lambda p: nnx.merge(graphdef, p)(_tokens()).sum()))(params)
    )
    assert (
        "f32[2,2,20,24]" in program or "f32[2,40,24]" in program
    ) == activations  # the MLP's gate
    assert ("f32[2,2,2,2,20,20]" in program) == attention_weights


def test_bf16_computes_in_bf16_keeps_fp32_parameters_and_logits(model):
    low = _variant(model, dtype="bfloat16")
    tokens = _tokens()
    assert jax.eval_shape(low.hidden, tokens).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(low))} == {jnp.dtype("float32")}
    logits = _forward(low, tokens)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, _forward(model, tokens), atol=0.01)


def test_logits_cover_the_published_vocabulary_and_the_table_its_multiple_of_128(model):
    assert _forward(model, _tokens()).shape == (2, 20, 140)
    assert model.embedding.shape == (256, 16)
    assert model.head.shape == (16, 256)
    assert (model.embedding[140:] == 0).all()
    assert (model.head[:, 140:] == 0).all()


def test_padding_of_the_table_gets_no_gradient(plain):
    assert (plain[1]["embedding"][140:] == 0).all()
    assert (plain[1]["head"][:, 140:] == 0).all()
    assert (plain[1]["head"][:, :140] != 0).any()


def test_tied_head_is_the_embedding():
    config = dataclasses.replace(TINY, tie_word_embeddings=True)
    tied = nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(0)))()
    assert not hasattr(tied, "head")
    x = jax.random.normal(jax.random.key(1), (2, 20, 16))
    np.testing.assert_allclose(tied.logits(x), (x @ tied.embedding[...].T)[..., :140], atol=1e-6)


def test_initialisation_is_normal_with_the_configured_deviation():
    config = dataclasses.replace(TINY, hidden_size=64, intermediate_size=256)
    model = nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(3)))()
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        values = np.asarray(variable[...])
        if path[-1] == "scale":
            assert (values == 1).all()
        else:
            values = values[values != 0]
            assert abs(values.mean()) < 1e-3
            assert abs(values.std() - 0.02) < 1e-3
    queries = model.layers.attention.query[...]
    assert not np.array_equal(queries[0], queries[1])


def test_every_parameter_names_each_of_its_dimensions(model):
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        axes = variable.get_metadata()["axes"]
        assert len(axes) == variable.ndim, path
        assert (axes[0] == "layers") == (path[0] == "layers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 36}, r"hidden_size=36 over num_attention_heads=4"),
        ({"num_key_value_heads": 3}, r"num_key_value_heads=3 must divide num_attention_heads=4"),
        ({"eos_token_id": 140}, r"eos_token_id=140 is not an id below vocab_size=140"),
        ({"num_hidden_layers": 0}, r"num_hidden_layers=0: it must be at least 1"),
        ({"remat": "half"}, r"remat='half' does not exist; known: none, full, dots"),
        ({"attention": "flash"}, r"attention='flash' does not exist"),
        ({"dtype": "float16"}, r"dtype='float16' does not exist"),
        ({"rope_theta": 0.0}, r"rope_theta=0\.0: it must be above 0"),
        ({"rms_norm_eps": -1e-6}, r"rms_norm_eps=-1e-06: it must be at least 0"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(TINY, **change)


def test_config_choices_are_the_implemented_ones():
    fields = {f.name: f.type for f in dataclasses.fields(LlamaConfig)}
    from typing import get_args

    from lvm_jax.models.stacking import REMAT_POLICIES

    assert get_args(fields["attention"]) == ("auto", *attention.IMPLEMENTATIONS)
    assert get_args(fields["remat"]) == tuple(REMAT_POLICIES)
