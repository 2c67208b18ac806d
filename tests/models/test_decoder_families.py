"""OPT's and GPT-2's decoders as LLaMA's: scan, rematerialisation, cache, adapters, quantisation, dropout, counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Decoder, presets
from lvm_jax.models.attention import attend as attention
from lvm_jax.models.decoder.config import LoRAConfig, count_parameters, train_flops_per_token
from lvm_jax.models.decoder.lora import LoRAParam
from lvm_jax.models.dropout import dropout

SMALL = {
    "vocab_size": 140,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "initializer_range": 0.2,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
CONFIGS = {"opt": presets.opt("debug", **SMALL), "gpt2": presets.gpt2("debug", **SMALL)}
TOKENS = jax.random.randint(jax.random.key(0), (2, 20), 0, 140)


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CHUNK", 16)  # rows of 20 tokens: a whole chunk and a part of one
        yield


def _init(config) -> Decoder:
    """A decoder whose biases are no zeros, which would hide a bias that is not added."""
    model = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))()

    def shake(path, variable):
        if not str(path[-1]).endswith("bias"):
            return variable
        key = jax.random.key(len(str(path)))
        return variable.replace(0.3 * jax.random.normal(key, variable.shape))

    nnx.update(model, nnx.map_state(shake, nnx.state(model)))
    return model


@nnx.jit
def _forward(model: Decoder, tokens, segment_ids=None, positions=None, key=None) -> jax.Array:
    return model(tokens, segment_ids, positions, dropout_key=key)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return _init(CONFIGS[request.param])


def _variant(model: Decoder, **changes) -> Decoder:
    """The same parameters, computed in another way."""
    graphdef = nnx.graphdef(Decoder.abstract(dataclasses.replace(model.config, **changes)))
    return nnx.merge(graphdef, nnx.state(model))


def _value_and_grad(model, key=None):
    graphdef, params = nnx.split(model)
    weights = jax.random.normal(jax.random.key(5), (2, 20, 140))

    def loss(params):
        return jnp.sum(nnx.merge(graphdef, params)(TOKENS, dropout_key=key) * weights)

    return jax.jit(jax.value_and_grad(loss))(params)


def _assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(other[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def test_scan_remat_and_chunks_change_neither_value_nor_gradients(model):
    plain = _value_and_grad(_variant(model, attention="xla", scan_layers=False, remat="none"))
    for changes in (
        {"scan_layers": True, "remat": "dots"},
        {"scan_layers": True, "remat": "full"},
        {"scan_layers": False, "remat": "dots", "attention": "xla"},
    ):
        _assert_same(_value_and_grad(_variant(model, **changes)), plain)
    assert all((g != 0).any() for g in jax.tree.leaves(plain[1]))


def test_no_logit_has_a_gradient_to_a_later_token(model):
    x = model.embed(TOKENS[:1])
    gradient = jax.jit(jax.grad(lambda x, t: model.logits(model.transform(x))[0, t].sum()))
    for t in (0, 12, 19):
        reach = np.asarray(jnp.abs(gradient(x, t)[0]).max(axis=-1))
        assert (reach[t + 1 :] == 0).all()
        assert (reach[: t + 1] > 0).all()


def test_a_sentence_of_a_row_is_the_sentence_alone(model):
    """Positions count from the sentence's start, so a row may be longer than the learned positions."""
    a, b = TOKENS[:1, :9], TOKENS[1:, :18]
    segments = jnp.asarray([[1] * 9 + [2] * 18])
    positions = jnp.concatenate([jnp.arange(9), jnp.arange(18)])[None]
    packed = _forward(model, jnp.concatenate([a, b], axis=1), segments, positions)
    np.testing.assert_allclose(packed[:, :9], _forward(model, a), atol=1e-5)
    np.testing.assert_allclose(packed[:, 9:], _forward(model, b), atol=1e-5)


@pytest.mark.parametrize("embedded", [False, True])
def test_cached_decoding_equals_the_full_pass(model, embedded):
    """Two prompts of their own lengths, as ids or as embeddings, two rows each, in the stacked and decoding forms."""
    lengths = jnp.array([7, 4])
    own = TOKENS[:, 10:].repeat(2, axis=0)

    @nnx.jit
    def decode(model, prompts, own):
        prefix = model.prefill(prompts, lengths)
        first, cache = model.extend(own[:, :3], model.init_cache(4, 5, prefix=prefix))
        second, cache = model.extend(own[:, 3:4], cache)
        return jnp.concatenate([first, second, model.extend(own[:, 4:5], cache)[0]], axis=1)

    prompts = model.embed(TOKENS[:, :7]) if embedded else TOKENS[:, :7]
    logits = decode(model, prompts, own)
    np.testing.assert_allclose(decode(model.unstacked(), prompts, own), logits, atol=1e-5)
    for row in range(4):
        # What follows a token does not reach it: all rows may have the length of the longest.
        start = int(lengths[row // 2])
        sentence = np.zeros((1, 12), np.int32)
        sentence[0, :start], sentence[0, start : start + 5] = TOKENS[row // 2, :start], own[row, :5]
        full = _forward(model, sentence)[0, start : start + 5]
        np.testing.assert_allclose(logits[row], full, atol=1e-5)


def test_rows_beyond_the_learned_positions_are_refused(model):
    tokens = jnp.zeros((1, 25), int)
    message = r"position 24 has no learned vector: the decoder has max_position_embeddings=24"
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model, tokens)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: model.prefill(tokens, jnp.array([25])))
    with pytest.raises(UserError, match=message):
        model.transform(model.embed(tokens), None, jnp.arange(25)[None])
    cache = dataclasses.replace(model.init_cache(1, 30), length=jnp.int32(24))
    with pytest.raises(UserError, match=message):
        model.extend(tokens[:, :1], cache)
    # Inside jit nobody can raise, and a wrong vector must not pass for the right one.
    assert jnp.isnan(jax.jit(lambda c: model.extend(tokens[:, :1], c)[0])(cache)).all()


def test_decoding_form_keeps_norms_in_fp32(model):
    decoding = _variant(model, dtype="bfloat16").unstacked()
    block = decoding.blocks()[0]
    for norm in (decoding.norm, block.mlp_norm):
        assert norm.scale[...].dtype == norm.bias[...].dtype == jnp.float32
    assert block.mlp.up_bias[...].dtype == decoding.positions.table[...].dtype == jnp.bfloat16


def test_adapters_start_without_effect_and_merge(model, tmp_path):
    targets = ("query", "out", "up", "down")
    config = dataclasses.replace(model.config, lora=LoRAConfig(rank=2, targets=targets))
    adapted = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))()
    nnx.update(adapted, nnx.state(model))
    np.testing.assert_allclose(_forward(adapted, TOKENS), _forward(model, TOKENS), atol=1e-6)
    adapters = nnx.state(adapted, LoRAParam)
    assert {str(p[-1]) for p, _ in nnx.to_flat_state(adapters)} == {
        f"{name}_{side}" for name in targets for side in "ab"
    }
    nnx.update(adapted, jax.tree.map(lambda x: x + 0.1, adapters))
    logits = _forward(adapted, TOKENS)
    assert not np.allclose(logits, _forward(model, TOKENS), atol=1e-2)
    merged = adapted.merged()
    assert not nnx.to_flat_state(nnx.state(merged, LoRAParam))
    assert merged.config == model.config
    assert nnx.graphdef(merged) == nnx.graphdef(model)
    np.testing.assert_allclose(_forward(merged, TOKENS), logits, atol=1e-4)
    adapted.save_pretrained(tmp_path)
    again = Decoder.from_pretrained(tmp_path)
    np.testing.assert_allclose(_forward(again, TOKENS), logits, atol=1e-4)


def test_an_adapter_of_a_matrix_that_is_not_there_is_refused(model):
    config = dataclasses.replace(model.config, lora=LoRAConfig(rank=2, targets=("query", "gate")))
    with pytest.raises(UserError, match=r"no block of this decoder has a matrix 'gate'"):
        Decoder.abstract(config)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_quantised_decoder_stays_close(model, kind):
    logits = _forward(model, TOKENS)
    ours = _forward(_variant(model, quantization=kind), TOKENS)
    tolerance = {"int8": 0.03, "fp8": 0.1}[kind]
    assert 0 < jnp.linalg.norm(ours - logits) < tolerance * jnp.linalg.norm(logits)
    _, grads = _value_and_grad(_variant(model, quantization=kind))
    assert all((g != 0).any() and jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_counts_are_those_of_the_parameters(model):
    config = model.config
    padding = (config.padded_vocab_size - config.vocab_size) * config.hidden_size
    sizes = {path: variable.size for path, variable in nnx.to_flat_state(nnx.state(model))}
    assert count_parameters(config) == sum(sizes.values()) - padding
    inner = sum(n for path, n in sizes.items() if path[0] in ("layers", "norm"))
    assert count_parameters(config, embeddings=False) == inner
    matrices = sum(
        variable.size
        for path, variable in nnx.to_flat_state(nnx.state(model.layers))
        if str(path[-1]) in ("query", "key", "value", "out", "up", "down")
    )
    attention_flops = 6 * 2 * 16 * 20  # layers, width, tokens
    expected = 6 * (matrices + 140 * 16) + attention_flops
    assert train_flops_per_token(config, 20) == expected


def test_dropout_is_off_without_a_key_and_drawn_with_one(model):
    rates = {"dropout": 0.2, "embedding_dropout": 0.3, "attention_dropout": 0.4}
    none = dict.fromkeys(rates, 0.0)

    def call(model, key):
        return _forward(model, TOKENS, key=key)

    plain = call(_variant(model, **none), None)
    np.testing.assert_array_equal(call(_variant(model, **rates), None), plain)
    np.testing.assert_array_equal(call(_variant(model, **none), jax.random.key(1)), plain)
    for name, rate in rates.items():  # each alone has an effect, another one for another key
        dropping = _variant(model, **none | {name: rate})
        one, again, other = (call(dropping, jax.random.key(k)) for k in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.allclose(one, plain, atol=1e-3), name
        assert not np.allclose(one, other, atol=1e-3), name


def test_dropout_is_the_same_under_remat_and_without_a_scan(model):
    rates = {"dropout": 0.2, "embedding_dropout": 0.3, "attention_dropout": 0.4}
    key = jax.random.key(7)
    plain = _value_and_grad(_variant(model, remat="none", **rates), key)
    for changes in ({"remat": "full"}, {"remat": "dots", "scan_layers": False}):
        _assert_same(_value_and_grad(_variant(model, **rates, **changes), key), plain)


def test_attention_dropout_needs_the_plain_implementation(model):
    with pytest.raises(UserError, match=r"attention 'chunked' cannot draw attention_dropout=0.5"):
        jax.eval_shape(
            lambda: _variant(model, attention="chunked", attention_dropout=0.5)(
                TOKENS, dropout_key=jax.random.key(0)
            )
        )


def test_dropout_keeps_the_mean():
    x = jnp.ones((400, 100))
    y = dropout(x, 0.25, jax.random.key(0))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float(y.mean()) - 1) < 0.01
    assert dropout(x, 0.0, jax.random.key(0)) is x
    assert dropout(x, 0.25, None) is x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 1.0}, r"dropout=1.0: it must be at least 0 and below 1"),
        ({"norm": "batch"}, r"norm='batch' does not exist; known: rms, layer"),
        (
            {"positions": "alibi"},
            r"positions='alibi' does not exist; known: rotary, rotary_2d, learned",
        ),
        ({"mlps": ("relu", "relu", "relu")}, r"has 3 places and num_hidden_layers=2"),
        ({"mlps": ()}, r"has 0 places"),
        ({"hidden_size": 18}, r"must split into an equal number"),
        ({"position_offset": -1}, r"position_offset=-1: it must be at least 0"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIGS["opt"], **change)
