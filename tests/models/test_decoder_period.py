"""A stack whose blocks differ: every second one has an MLP of the test's own, which hands up an auxiliary loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Decoder, presets
from lvm_jax.models.decoder.block import Period, add_losses
from lvm_jax.models.decoder.config import LoRAConfig, count_parameters
from lvm_jax.models.decoder.linear import matrix
from lvm_jax.models.decoder.mlp import MLPS, SwiGLU
from lvm_jax.parallel.sharding import constrain

CONFIG = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=6,
    num_key_value_heads=2,
    initializer_range=0.2,
    attention="xla",
    mlps=("swiglu", "toy"),
)
TOKENS = jax.random.randint(jax.random.key(0), (2, 12), 0, 140)


class Toy(nnx.Module):
    """tanh(x W), and mean(result^2) as its auxiliary loss."""

    def __init__(self, config, *, rngs):
        D = config.hidden_size
        self.weight = matrix(rngs, config, (D, D), ("embed", None))

    def __call__(self, x_BTD, key=None, tokens=None):
        y_BTD = jnp.tanh(x_BTD @ self.weight[...].astype(x_BTD.dtype))
        loss = jnp.mean(jnp.square(y_BTD.astype(jnp.float32)))
        return constrain(y_BTD, "batch", "seq", "act_embed"), {"size": loss, "calls": jnp.ones(())}


TABLE = {**MLPS, "toy": Toy}


@pytest.fixture(scope="module")
def model():
    return nnx.jit(lambda: Decoder(CONFIG, rngs=nnx.Rngs(0), mlps=TABLE))()


def _variant(model, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return nnx.merge(nnx.graphdef(Decoder.abstract(config, mlps=TABLE)), nnx.state(model))


run = nnx.jit(lambda model: model.hidden_and_losses(TOKENS))


def test_each_place_of_the_period_is_stacked_over_its_repeats(model):
    assert isinstance(model.layers, Period)
    shapes = {path: v.shape for path, v in nnx.to_flat_state(nnx.state(model.layers))}
    assert shapes["places", 0, "mlp", "gate"] == (3, 16, 24)
    assert shapes["places", 1, "mlp", "weight"] == (3, 16, 16)
    assert shapes["places", 1, "attention", "query"] == (3, 16, 4, 4)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        axes = variable.get_metadata()["axes"]
        assert len(axes) == variable.ndim, path
        assert (axes[0] == "layers") == (path[0] == "layers")
    weights = model.layers.places[1].mlp.weight[...]
    assert not np.array_equal(weights[0], weights[1])


def test_losses_are_summed_over_the_blocks_that_have_them(model):
    hidden, losses = run(model)
    assert set(losses) == {"size", "calls"}
    assert {x.dtype for x in losses.values()} == {jnp.dtype("float32")}
    assert float(losses["calls"]) == 3

    by_hand, total = nnx.jit(_by_hand)(model)
    np.testing.assert_allclose(hidden, by_hand, atol=1e-5)
    np.testing.assert_allclose(losses["size"], total, rtol=1e-5)
    alone = nnx.jit(lambda model: model.hidden(TOKENS))(model)
    np.testing.assert_allclose(alone, hidden, atol=1e-6)


def _by_hand(model):
    """Block after block, in the order of the layers."""
    rotate = model.positions.rotation(jnp.arange(12)[None])
    attend = model._whole_rows(12, None)
    x, total = model.embed(TOKENS), jnp.zeros(())
    for repeat in range(3):
        for place, kind in enumerate((SwiGLU, Toy)):
            graphdef, stacked = nnx.split(model.layers.places[place])
            block = nnx.merge(graphdef, jax.tree.map(lambda s, i=repeat: s[i], stacked))
            assert isinstance(block.mlp, kind)
            x, found = block(x, rotate, attend)
            total += found.get("size", 0.0)
    return model.norm(x), total


def _grads(model):
    graphdef, params = nnx.split(model)

    def loss(params):
        hidden, losses = nnx.merge(graphdef, params).hidden_and_losses(TOKENS)
        return losses["size"], hidden

    (value, hidden), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, hidden, grads


@pytest.fixture(scope="module")
def plain(model):
    return _grads(_variant(model, scan_layers=False, remat="none"))


@pytest.mark.parametrize(
    ("scan", "remat"), [(True, "none"), (True, "full"), (True, "dots"), (False, "full")]
)
def test_scan_and_remat_change_neither_losses_nor_their_gradients(model, plain, scan, remat):
    value, hidden, grads = _grads(_variant(model, scan_layers=scan, remat=remat))
    np.testing.assert_allclose(value, plain[0], rtol=1e-5)
    np.testing.assert_allclose(hidden, plain[1], atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(plain[2]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)


def test_an_auxiliary_loss_has_gradients_in_every_block_before_it(plain):
    """The last block's MLP has the last loss: everything but the final norm and the head reaches one."""
    for path, grad in nnx.to_flat_state(plain[2]):
        reached = path[0] not in ("norm", "head")
        assert bool((np.asarray(grad[...]) != 0).any()) == reached, path
    weight = plain[2]["layers"]["places"][1]["mlp"]["weight"][...]
    assert all((repeat != 0).any() for repeat in weight)


def test_cached_decoding_equals_the_full_pass(model):
    @nnx.jit
    def decode(model):
        prefix = model.prefill(TOKENS[:, :5], jnp.array([5, 5]))
        first, cache = model.extend(TOKENS[:, 5:11], model.init_cache(2, 7, prefix=prefix))
        return jnp.concatenate([first, model.extend(TOKENS[:, 11:], cache)[0]], axis=1)

    full = nnx.jit(lambda model: model(TOKENS))(model)[:, 5:]
    np.testing.assert_allclose(decode(model), full, atol=1e-5)
    np.testing.assert_allclose(decode(model.unstacked()), full, atol=1e-5)


def test_house_mlps_hand_up_no_loss():
    config = dataclasses.replace(CONFIG, mlps=("swiglu",), num_hidden_layers=2)
    model = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))()
    assert run(model)[1] == {}


def test_adapters_lie_in_the_blocks_that_have_their_matrix():
    config = dataclasses.replace(CONFIG, lora=LoRAConfig(rank=2, targets=("value", "up")))
    adapted = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0), mlps=TABLE))()
    names = {path[1:] for path, _ in nnx.to_flat_state(nnx.state(adapted)) if path[-1] == "up_a"}
    assert names == {("places", 0, "mlp", "up_a")}
    adapted.layers.places[0].mlp.up_b[...] += 0.3
    forward = nnx.jit(lambda model: model(TOKENS))
    np.testing.assert_allclose(forward(adapted.merged()), forward(adapted), atol=1e-4)


def test_names_that_only_one_of_two_sums_has_are_kept():
    one, other = ({"a": jnp.float32(1), "b": jnp.float32(2)}, {"b": jnp.float32(3)})
    assert {k: float(v) for k, v in add_losses(one, other).items()} == {"a": 1, "b": 5}
    assert {k: float(v) for k, v in add_losses({}, one).items()} == {"a": 1, "b": 2}


def test_an_unknown_kind_is_refused(model):
    with pytest.raises(
        UserError, match=r"the MLP 'toy', which does not exist; known: swiglu, relu"
    ):
        Decoder.abstract(CONFIG)
    with pytest.raises(UserError, match="the size of the MLP 'toy' is not known"):
        count_parameters(CONFIG)
