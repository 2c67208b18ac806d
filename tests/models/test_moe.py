"""The mixture of experts: transformers' numbers, one function however it is computed, and what capacity drops."""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.decoder import routers
from lvm_jax.models.decoder.config import LoRAConfig
from lvm_jax.models.decoder.dispatch import Slots, slots_of
from lvm_jax.models.decoder.mlp import TanhGELUMLP, Tokens
from lvm_jax.models.decoder.moe import MixtureOfExperts
from lvm_jax.models.decoder.moe_config import MoEConfig

FIXTURE = dict(np.load(pathlib.Path(__file__).parent / "fixtures" / "moe.npz"))
B, T, D, F, E = 2, 12, 8, 16, 4
KEY = jax.random.key(3)
X = jax.random.normal(jax.random.key(1), (B, T, D))
# Spans of 2 and 3 tokens; a row's last one is cut.
SPANS = (2, 3)
ATTRIBUTES = jnp.tile(jnp.array([5, 5, 9, 9, 9, 6, 6, 10, 10, 10, 5, 5])[None], (B, 1))


def config(**moe):
    return presets.gpt2(
        "debug",
        hidden_size=D,
        intermediate_size=F,
        initializer_range=0.5,
        mlps=("moe",),
        moe=MoEConfig(**{"experts": E, **moe}),
    )


@functools.cache
def layer(seed=0, **moe):
    return nnx.jit(lambda: MixtureOfExperts(config(**moe), rngs=nnx.Rngs(seed)))()


def gate_of(module):
    assert isinstance(module.router, routers.TokenRouter)
    return module.router.gate


def variant(module, **moe):
    """The same parameters, otherwise computed."""
    other = dataclasses.replace(module.config, **moe)
    copy = nnx.merge(*nnx.split(module))
    copy.config = other
    return copy


@functools.partial(nnx.jit, static_argnames="whole_rows")
def run(module, x=X, key=None, attributes: Any = ATTRIBUTES, real=None, whole_rows=True):
    return module(x, key, Tokens(attributes, real, whole_rows))


@nnx.jit
def with_gradients(module, x, key, g):
    graphdef, params = nnx.split(module)

    def loss(params, x):
        y, losses = nnx.merge(graphdef, params)(x, key, Tokens(ATTRIBUTES, None, True))
        return jnp.sum(y * g), (y, losses)

    grads, (y, losses) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return y, losses, grads


def theirs(name, **moe):
    """The layer with a fixture's parameters."""
    arrays = {key.removeprefix(f"{name}/"): v for key, v in FIXTURE.items() if key.startswith(name)}
    fields = dataclasses.replace(config(**moe), dense_bias="up_bias" in arrays)
    module = MixtureOfExperts(fields, rngs=nnx.Rngs(0))
    gate_of(module)[...] = arrays["gate"]
    for key in ("up", "down", "up_bias", "down_bias"):
        if key in arrays:
            parameter = vars(module)[key]
            parameter[...] = arrays[key].reshape(parameter.shape)
    return module, arrays


def assert_gradients(grads, arrays, atol):
    params, dx = grads
    np.testing.assert_allclose(dx, arrays["dx"], atol=atol)
    np.testing.assert_allclose(params["router"]["gate"][...], arrays["dgate"], atol=atol)
    for key in ("up", "down", "up_bias", "down_bias"):
        if key in arrays:
            found = params[key][...].reshape(arrays[key].shape)
            np.testing.assert_allclose(found, arrays[f"d{key}"], atol=atol, err_msg=key)


@pytest.mark.parametrize("dispatch", ["all_experts", "capacity"])
def test_mixtral(dispatch):
    module, arrays = theirs(
        "mixtral", renormalize=True, balance="mixtral", dispatch=dispatch, capacity_factor=0.0
    )
    y, losses, grads = with_gradients(module, arrays["x"], KEY, arrays["g"])
    scale = np.abs(arrays["y"]).max()
    np.testing.assert_allclose(y / scale, arrays["y"] / scale, atol=1e-6)
    largest = max(np.abs(v).max() for k, v in arrays.items() if k.startswith("d"))
    assert_gradients(grads, arrays, 1e-6 * largest)
    np.testing.assert_allclose(losses["load_balance"], arrays["balance"], rtol=1e-6)


def test_switch_with_capacity(as_a_user):
    # 4 slots of an expert for 12 tokens: 12 / 4 * 1.3, rounded up.
    module, arrays = theirs("switch", top_k=1, capacity_factor=1.3)
    y, losses, grads = with_gradients(module, arrays["x"], KEY, arrays["g"])
    dropped = np.all(arrays["y"] == 0, axis=-1)
    assert 0 < dropped.sum() < dropped.size / 2
    np.testing.assert_array_equal(np.all(np.asarray(y) == 0, axis=-1), dropped)
    np.testing.assert_allclose(losses["dropped"], dropped.mean(), rtol=1e-6)
    scale = np.abs(arrays["y"]).max()
    np.testing.assert_allclose(y / scale, arrays["y"] / scale, atol=1e-6)
    largest = max(np.abs(v).max() for k, v in arrays.items() if k.startswith("d"))
    assert_gradients(grads, arrays, 1e-6 * largest)
    np.testing.assert_allclose(losses["load_balance"], arrays["balance"], rtol=1e-6)
    np.testing.assert_allclose(losses["router_z"], arrays["z"], rtol=1e-6)


@pytest.mark.parametrize("dispatch", ["capacity", "all_experts"])
def test_one_expert_is_the_dense_layer(dispatch):
    module = layer(experts=1, top_k=1, dispatch=dispatch)
    dense = TanhGELUMLP(dataclasses.replace(config(), mlps=("gelu_tanh",)), rngs=nnx.Rngs(0))
    dense.up[...], dense.down[...] = module.up[0], module.down[0]
    y, losses = run(module, key=KEY)
    np.testing.assert_allclose(y, dense(X)[0], atol=1e-5)
    np.testing.assert_allclose(losses["load_balance"], 1, rtol=1e-6)


def test_all_experts_chosen_is_the_full_mixture():
    module = layer(top_k=E)
    p = jax.nn.softmax(X @ gate_of(module)[...])
    h = jax.nn.gelu(jnp.einsum("btd,edf->ebtf", X, module.up[...]))
    expected = jnp.einsum("ebtf,efd,bte->btd", h, module.down[...], p)
    np.testing.assert_allclose(run(module)[0], expected, atol=1e-4)
    # Equal experts and gates that sum to 1: whatever is chosen, it is the one MLP.
    same = variant(layer(renormalize=True))
    same.up[...], same.down[...] = (jnp.broadcast_to(w[:1], w.shape) for w in (same.up, same.down))
    one = jax.nn.gelu(X @ same.up[0]) @ same.down[0]
    np.testing.assert_allclose(run(same)[0], one, atol=1e-4)


def test_without_a_router_all_experts_count_alike():
    module = layer(router="none", top_k=E)
    h = jax.nn.gelu(jnp.einsum("btd,edf->ebtf", X, module.up[...]))
    expected = jnp.einsum("ebtf,efd->btd", h, module.down[...]) / E
    y, losses = run(module, key=KEY)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(losses["router_entropy"], math.log(E), rtol=1e-5)


@pytest.mark.parametrize(
    ("reference", "other"),
    [
        ({}, {"dispatch": "capacity", "capacity_factor": 0.0}),
        ({"router": "attribute"}, {"dispatch": "capacity", "capacity_factor": 0.0}),
        ({"router": "attribute"}, {"dispatch": "spans", "spans": SPANS}),
        ({"router": "attribute", "mix": "weights"}, {"dispatch": "spans", "spans": SPANS}),
    ],
)
def test_all_dispatches_are_one_function(reference, other):
    """Noise included: it is drawn before the choice."""
    module = layer(dispatch="all_experts", noise=2.0, **reference)
    fast = variant(module, **other)
    g = jax.random.normal(jax.random.key(2), X.shape)
    y, losses, grads = with_gradients(module, X, KEY, g)
    z, same, found = with_gradients(fast, X, KEY, g)
    np.testing.assert_allclose(z, y, atol=2e-5)
    for name in losses:
        np.testing.assert_allclose(same[name], losses[name], atol=1e-5, err_msg=name)
    for (path, one), (_, two) in zip(
        nnx.to_flat_state(grads[0]), nnx.to_flat_state(found[0]), strict=True
    ):
        np.testing.assert_allclose(two[...], one[...], atol=1e-3, rtol=1e-4, err_msg=str(path))
    np.testing.assert_allclose(found[1], grads[1], atol=1e-3, rtol=1e-4)
    quiet = run(fast)[0]
    np.testing.assert_allclose(quiet, run(module)[0], atol=2e-5)
    assert not np.allclose(quiet, z, atol=1e-3)


def test_attributes_alone_decide():
    module = layer(router="attribute", noise=1.0)
    for key in (None, KEY):
        logits = module.router.logits(X, ATTRIBUTES, key)
        other = module.router.logits(7 - 3 * X, ATTRIBUTES, key)
        np.testing.assert_array_equal(logits, other)
        np.testing.assert_array_equal(logits[:, :2], logits[:, 10:])
        assert not np.allclose(logits[:, 1], logits[:, 2])
    with pytest.raises(UserError, match=r"decides by attributes, and none were given"):
        module(X)
    for wrong in (256, -1):
        assert np.isnan(module.router.logits(X, jnp.full((B, T), wrong), None)).all()


def test_a_wrong_span_cannot_be_overlooked():
    module = layer(router="attribute", dispatch="spans", spans=SPANS)
    assert np.isfinite(run(module)[0]).all()
    wrong = np.isnan(run(module, attributes=ATTRIBUTES.at[1, 3].set(8))[0]).all(axis=-1)
    assert np.argwhere(wrong).tolist() == [[1, 3]]
    # What decoding reads does not begin at a row's beginning, so spans say nothing about it.
    shifted = run(module, X[:, 1:4], attributes=ATTRIBUTES[:, 1:4], whole_rows=False)[0]
    np.testing.assert_allclose(shifted, run(module)[0][:, 1:4], atol=1e-5)


def test_a_choice_depends_on_no_later_token():
    module = layer(capacity_factor=0.5)
    y, losses = run(module, key=KEY)
    assert float(losses["dropped"]) > 0.2
    z, _ = run(module, X.at[:, 7:].set(-X[:, 7:]), key=KEY)
    np.testing.assert_allclose(z[:, :7], y[:, :7], atol=1e-6)
    assert not np.allclose(z[:, 7:], y[:, 7:], atol=1e-3)


def test_evaluation_drops_nothing():
    module = layer(capacity_factor=0.5)
    y, losses = run(module)
    assert float(losses["dropped"]) == 0
    np.testing.assert_allclose(run(variant(module, capacity_factor=0.0), key=KEY)[0], y, atol=1e-5)


def test_padding_takes_no_slots_and_is_not_counted():
    real = jnp.arange(T)[None] < jnp.array([[T], [5]])
    module = layer(capacity_factor=0.7)
    logits = module.router.logits(X, None, None)
    slots = Slots.of(routers.choose(logits, module.config), T, real)
    assert (np.asarray(slots.slot_BJ).reshape(B, T, 2)[1, 5:] == E * T).all()
    assert float(slots.dropped(real)) == 0
    # The same tokens as one row without padding.
    shown = routers.choose(jnp.concatenate([logits[0], logits[1, :5]])[None], module.config)
    _, losses = run(module, X, KEY, None, real)
    expected = routers.measured(shown, None) | {
        "load_balance": routers.balance_loss(shown, None, "switch"),
        "router_z": routers.z_loss(shown, None),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-5, err_msg=name)


def _choice(logits, **moe):
    return routers.choose(jnp.asarray(logits, jnp.float32), MoEConfig(experts=E, **moe))


def test_the_conventions_of_the_balance_loss():
    even = _choice(10 * jnp.eye(E)[None] + 3 * jnp.roll(jnp.eye(E), 1, axis=1)[None])
    alone = _choice(jnp.tile(jnp.array([50.0, 20.0, 0.0, 0.0]), (1, 8, 1)))
    for convention, used_alike in (("switch", 1.0), ("mixtral", 2.0)):
        found = routers.balance_loss(even, None, convention)
        np.testing.assert_allclose(found, used_alike, rtol=1e-5)
        # All of the probability and every first choice on one expert.
        np.testing.assert_allclose(routers.balance_loss(alone, None, convention), E, rtol=1e-5)


def test_what_is_measured():
    found = routers.measured(_choice(jnp.zeros((1, 8, E))), None)
    np.testing.assert_allclose(found["router_entropy"], math.log(E), rtol=1e-6)
    # Of equals the first two are chosen.
    assert (float(found["expert_load_max"]), float(found["expert_load_min"])) == (2.0, 0.0)


def test_the_router_is_fp32_in_bf16():
    module = layer()
    wide = module.router.logits(X, None, None)
    narrow = module.router.logits(X.astype(jnp.bfloat16), None, None)
    assert narrow.dtype == wide.dtype == jnp.float32
    exact = np.asarray(X.astype(jnp.bfloat16), np.float64) @ np.asarray(gate_of(module)[...])
    np.testing.assert_allclose(narrow, exact, atol=1e-5)


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, 6), (1.25, 8), (0.1, 1), (9.0, 12), (0.0, 12)]
)
def test_slots_of_an_expert(factor, expected):
    assert slots_of(MoEConfig(experts=E, capacity_factor=factor), T) == expected


@pytest.mark.parametrize(
    ("moe", "message"),
    [
        ({"top_k": 5}, r"moe experts=4, top_k=5: a token uses at least 1 and at most all"),
        ({"router": "none"}, r"router='none' chooses nothing: set top_k=4"),
        ({"router": "best"}, r"moe router='best' does not exist; known: token, attribute, none"),
        ({"noise": -1.0}, r"moe noise=-1.0: it must be a number of at least 0"),
        ({"attribute_bits": 20}, r"attribute_bits=20: it must be 1..12"),
        ({"mix": "weights"}, r"one set of weights serves many tokens only with router='attribute'"),
        ({"spans": (3,)}, r"dispatch='capacity', spans=\(3,\): 'spans' needs lengths"),
        ({"dispatch": "spans"}, r"dispatch='spans', spans=\(\): 'spans' needs lengths"),
        ({"dispatch": "spans", "spans": (3,)}, r"only attributes are equal within a span"),
    ],
)
def test_impossible_mixtures_are_refused(moe, message):
    with pytest.raises(UserError, match=message):
        MoEConfig(**{"experts": E, **moe})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"quantization": "int8"},
            r"quantization='int8' with mlps=\('moe',\): experts are neither",
        ),
        ({"lora": LoRAConfig(rank=2)}, r"lora rank=2 with mlps=\('moe',\): experts are neither"),
    ],
)
def test_experts_are_neither_quantised_nor_adapted(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(config(), **fields)
