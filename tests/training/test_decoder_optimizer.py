"""Muon against Newton-Schulz by hand, its AdamW against plain AdamW, its splits, and warm-up, stable, decay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets
from lvm_jax.models.decoder.config import LoRAConfig
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.checkpoint import Checkpointer
from lvm_jax.training.decoder_optimizer import (
    DecoderOptimizerConfig,
    MuonConfig,
    WSDConfig,
    make_decoder_optimizer,
    warmup_stable_decay,
)
from lvm_jax.training.optimizer import OptimizerConfig, cosine, make_optimizer

MODEL = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_key_value_heads=2,
    qkv_bias=True,
    qk_norm=True,
)
CONFIG = DecoderOptimizerConfig(
    kind="muon", learning_rate=0.05, warmup_steps=0, decay_steps=10**9, clip_norm=1e9
)
# Of the blocks' matrices: how many of the dimensions after the layers' are rows.
MATRICES = {
    "attention/query": 1,
    "attention/key": 1,
    "attention/value": 1,
    "attention/out": 2,
    "mlp/gate": 1,
    "mlp/up": 1,
    "mlp/down": 1,
}


@pytest.fixture(scope="module")
def params():
    return nnx.state(nnx.jit(lambda: Llama(MODEL, rngs=nnx.Rngs(0)))(), nnx.Param)


def gradients(params, seed):
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    return jax.tree.unflatten(treedef, drawn)


def stepped(tx, params, steps=2):
    state, update = jax.jit(tx.init)(params), jax.jit(tx.update)
    for seed in range(steps):
        updates, state = update(gradients(params, seed), state, params)
        params = optax.apply_updates(params, updates)
    return {"/".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(params)}


def orthogonalised(matrix):
    """Five steps of the quintic Newton-Schulz iteration, in fp64."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def test_two_steps_of_muon_are_newton_schulz_by_hand_on_each_layer(params):
    after = stepped(make_decoder_optimizer(CONFIG), params)
    flat = {"/".join(map(str, p)): np.float64(v[...]) for p, v in nnx.to_flat_state(params)}
    grads = [
        {
            "/".join(map(str, p)): np.float64(v[...])
            for p, v in nnx.to_flat_state(gradients(params, s))
        }
        for s in range(2)
    ]
    for name, rows in MATRICES.items():
        for layer in range(2):
            before = flat[f"layers/{name}"][layer]
            shape = (int(np.prod(before.shape[:rows])), -1)
            one, two = (g[f"layers/{name}"][layer].reshape(shape) for g in grads)
            w = before.reshape(shape)
            scale = 0.2 * np.sqrt(max(w.shape))
            # Nesterov's momentum: the direction is momentum * mean + (1 - momentum) * gradient, each without its bias.
            mean = 0.05 * (0.95 * one + two)
            for direction in (one, 0.95 * mean / (1 - 0.95**3) + 0.05 * two / (1 - 0.95**2)):
                w = w - 0.05 * (scale * orthogonalised(direction) + 0.1 * w)
            found = after[f"layers/{name}"][layer].reshape(shape)
            np.testing.assert_allclose(found, w, atol=2e-5, err_msg=f"{name} {layer}")


def test_all_other_parameters_move_as_by_plain_adamw(params):
    plain = OptimizerConfig(learning_rate=0.05, warmup_steps=0, decay_steps=10**9, clip_norm=1e9)
    ours = stepped(make_decoder_optimizer(CONFIG), params)
    theirs = stepped(make_optimizer(plain), params)
    assert ours.keys() == theirs.keys()
    others = ours.keys() - {f"layers/{name}" for name in MATRICES}
    assert {"embedding", "head", "norm/scale", "layers/attention/query_norm/scale"} < others
    for name in ours:
        if name in others:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        else:
            assert not np.allclose(ours[name], theirs[name], atol=1e-3), name


def test_adamw_is_the_default_and_bit_equal(params):
    config = DecoderOptimizerConfig(warmup_steps=1, decay_steps=9)
    plain = OptimizerConfig(warmup_steps=1, decay_steps=9)
    ours = stepped(make_decoder_optimizer(config), params)
    for name, value in stepped(make_optimizer(plain), params).items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    both = make_decoder_optimizer(config), make_optimizer(plain)
    states = [jax.eval_shape(tx.init, params) for tx in both]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_an_update_has_the_configured_root_mean_square(params):
    for rms in (0.2, 0.4):
        config = dataclasses.replace(CONFIG, weight_decay=0.0, muon=MuonConfig(update_rms=rms))
        after = stepped(make_decoder_optimizer(config), params, steps=1)
        before = np.asarray(params["layers"]["mlp"]["gate"][...])
        found = np.sqrt(np.mean((after["layers/mlp/gate"] - before) ** 2, axis=(1, 2)))
        np.testing.assert_allclose(found, 0.05 * rms, rtol=0.25)  # singular values are near 1


def batch():
    rows = {
        "tokens": np.random.default_rng(0).integers(0, 40, (2, 9)),
        "segment_ids": np.ones((2, 9)),
        "positions": np.broadcast_to(np.arange(9), (2, 9)),
    }
    weights = np.ones((2, 9), np.float32)
    return {name: jnp.asarray(x, jnp.int32) for name, x in rows.items()} | {"loss_weights": weights}


def moved_by(task):
    state, step = jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step)
    for _ in range(2):  # an adapter's first factor has no gradient while the second is 0
        new, metrics = step(state, batch(), jax.random.key(1))
        assert jnp.isfinite(metrics["loss"].total)
        before, state = state, new
    return {
        f"{part}/{'/'.join(map(str, path))}"
        for part, params in state["params"].items()
        for path, value in nnx.to_flat_state(params)
        if not np.array_equal(
            value[...], dict(nnx.to_flat_state(before["params"][part]))[path][...]
        )
    }


def test_adapters_and_what_is_not_frozen_are_moved_and_nothing_else():
    tx = make_decoder_optimizer(CONFIG)
    lora = dataclasses.replace(MODEL, lora=LoRAConfig(rank=2, targets=("query", "out")))
    assert moved_by(DecoderTask(lora, tx, seq_len=8)) == {
        f"lora/layers/attention/{name}_{side}" for name in ("query", "out") for side in "ab"
    }
    moved = moved_by(DecoderTask(MODEL, tx, seq_len=8, frozen=("embedding", "layers/mlp")))
    assert {"trained/head", "trained/layers/attention/out"} < moved
    assert not any(name.startswith("frozen/") for name in moved)
    with pytest.raises(UserError, match="no matrix of a decoder's blocks is trained"):
        DecoderTask(MODEL, tx, seq_len=8, frozen=("layers",)).init(jax.random.key(0))


def test_a_checkpoint_has_the_state_of_both_optimizers(tmp_path):
    task = DecoderTask(MODEL, make_decoder_optimizer(CONFIG), seq_len=8)
    state = jax.jit(task.init)(jax.random.key(0))
    state, _ = jax.jit(task.step)(state, batch(), jax.random.key(1))
    saved = Checkpointer(tmp_path)
    saved.save(1, state, 1, {})
    saved.wait()
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    again = saved.restore(abstract).state
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.0, 0.2, 1.0, 1.0, 0.82, 0.55, 0.1, 0.1]),
        ("sqrt", [0.0, 0.2, 1.0, 1.0, 1 - 0.9 * 0.2**0.5, 1 - 0.9 * 0.5**0.5, 0.1, 0.1]),
    ],
)
def test_rates_of_warm_up_stable_decay(shape, expected):
    config = DecoderOptimizerConfig(
        learning_rate=1.0,
        end_learning_rate=0.1,
        warmup_steps=10,
        decay_steps=200,
        schedule="wsd",
        wsd=WSDConfig(decay_fraction=0.2, shape=shape),
    )
    rate = warmup_stable_decay(config)
    found = [float(rate(jnp.int32(count))) for count in (0, 2, 10, 160, 168, 180, 200, 500)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    no_warmup = warmup_stable_decay(dataclasses.replace(config, warmup_steps=0))
    assert float(no_warmup(0)) == 1.0


def test_the_schedule_is_the_configured_one(params):
    """A decay over the whole length begins at once, a cosine is flat at first."""
    wsd = DecoderOptimizerConfig(
        kind="muon",
        schedule="wsd",
        wsd=WSDConfig(1.0),
        warmup_steps=0,
        decay_steps=2,
        weight_decay=0.0,
        end_learning_rate=0.0,
    )
    tx = make_decoder_optimizer(wsd)
    state, sizes, update = jax.jit(tx.init)(params), [], jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(gradients(params, 0), state, params)
        sizes.append([float(jnp.abs(updates[n][...]).mean()) for n in ("embedding", "head")])
        sizes[-1].append(float(jnp.abs(updates["layers"]["mlp"]["up"][...]).mean()))
    first, second, third = np.array(sizes)
    np.testing.assert_allclose(second, first / 2, rtol=1e-3)
    np.testing.assert_array_equal(third, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MuonConfig(momentum=1.0), r"momentum=1\.0, .*momentum is in \[0, 1\)"),
        (lambda: MuonConfig(update_rms=0.0), r"update_rms above 0"),
        (lambda: WSDConfig(0.0), r"decay_fraction is 0\.0: it must be above 0 and at most 1"),
        (
            lambda: DecoderOptimizerConfig(schedule="wsd", warmup_steps=95, decay_steps=100),
            r"warmup_steps is 95 and the decay begins at step 90",
        ),
        (lambda: OptimizerConfig(clip_norm=0.0), r"clip_norm is 0\.0: every gradient would be 0"),
        (lambda: DecoderOptimizerConfig(clip_norm=-1.0), r"clip_norm is -1\.0: every gradient"),
        (lambda: OptimizerConfig(learning_rate=-1e-3), r"learning_rate is -0\.001: it must not be"),
        (
            lambda: OptimizerConfig(learning_rate=2e-5),
            r"learning_rate is 2e-05, end_learning_rate 3e-05: .*lower end_learning_rate too",
        ),
        (lambda: OptimizerConfig(warmup_steps=-5), r"warmup_steps is -5: it must not be negative"),
        (lambda: OptimizerConfig(b2=1.0), r"b2 is 1\.0: it must be at least 0, below 1"),
        (lambda: OptimizerConfig(eps=0.0), r"eps is 0\.0, decay_steps 288000: eps must be above 0"),
        (
            # Its first rate would be NaN.
            lambda: DecoderOptimizerConfig(schedule="wsd", warmup_steps=0, decay_steps=0),
            r"decay_steps 0: .*decay_steps at least 1",
        ),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(("warmup", "decay"), [(10, 10), (10, 3)])
def test_a_rate_that_would_fall_before_it_has_risen_is_refused(warmup, decay):
    with pytest.raises(UserError, match=f"decay_steps is {decay}, warmup_steps {warmup}"):
        cosine(OptimizerConfig(warmup_steps=warmup, decay_steps=decay))
