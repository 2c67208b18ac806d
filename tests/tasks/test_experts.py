"""Training a decoder with experts: auxiliary losses by their weights, metrics, attributes, accumulation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lvm_jax.models import Decoder, presets
from lvm_jax.models.decoder.config import count_parameters, train_flops_per_token
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.vocabulary import Vocabulary

T = 11
CONFIG = presets.unified(
    "debug",
    Vocabulary.unified(text=40, image=8),
    num_hidden_layers=4,
    hidden_size=8,
    intermediate_size=12,
    max_position_embeddings=16,
    initializer_range=0.3,
    moe=MoEConfig(experts=4, balance_weight=0.5, z_weight=0.1),
)
METRICS = {"load_balance", "router_z", "router_entropy", "dropped"}
METRICS |= {"expert_load_max", "expert_load_min"}


def with_moe(**moe):
    return dataclasses.replace(CONFIG, moe=dataclasses.replace(CONFIG.moe, **moe))


def batch(rows=4, **more):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 48, (rows, T + 1), dtype=np.int32)
    weights = rng.integers(0, 2, (rows, T + 1)).astype(np.float32)
    return {"tokens": jnp.asarray(tokens), "loss_weights": jnp.asarray(weights), **more}


def gradient_task(config, **options):
    """Its update is the gradient itself."""
    return DecoderTask(config, optax.sgd(-1.0), seq_len=T, **options)


def gradient(step, state, rows):
    new, metrics = step(state, rows, jax.random.key(1))
    return jax.tree.map(np.subtract, new["params"], state["params"]), metrics


def started(config, **options):
    """A task, its compiled step, and a state."""
    task = gradient_task(config, **options)
    return task, jax.jit(task.step), jax.jit(task.init)(jax.random.key(0))


def test_what_is_minimised_is_the_loss_and_the_auxiliary_losses_by_their_weights():
    (task, step, state), rows = started(CONFIG), batch()
    found, metrics = gradient(step, state, rows)
    graphdef = nnx.graphdef(Decoder.abstract(CONFIG))

    @jax.jit
    @jax.grad
    def by_hand(params):
        model = nnx.merge(graphdef, params)
        inputs, labels = rows["tokens"][:, :-1], rows["tokens"][:, 1:]
        hidden, losses = model.hidden_and_losses(inputs, dropout_key=jax.random.key(1))
        scores = jax.nn.log_softmax(model.logits(hidden))
        nll = -jnp.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
        weights = rows["loss_weights"][:, 1:]
        loss = jnp.sum(nll * weights) / jnp.sum(weights)
        return loss + 0.5 * losses["load_balance"] + 0.1 * losses["router_z"]

    for one, two in zip(
        jax.tree.leaves(found), jax.tree.leaves(by_hand(state["params"])), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=2e-5)
    assert set(metrics) == {"loss", "grad_norm"} | METRICS
    # Summed over layers when minimised, their mean when shown.
    assert all(float(metrics[name].weight) == 2 for name in METRICS)
    assert 0.5 < float(metrics["load_balance"].compute()) < 4
    assert float(metrics["dropped"].compute()) >= 0
    loss, _ = jax.jit(task.loss)(state["params"], rows, dropout_key=jax.random.key(1))
    np.testing.assert_allclose(metrics["loss"].total, loss, rtol=1e-6)


def test_microbatches_give_the_mean_of_their_auxiliary_losses():
    config = with_moe(balance_weight=0.0, z_weight=0.3, capacity_factor=0.0)
    config = dataclasses.replace(config, dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0)
    (_, step, state), rows = started(config), batch()
    whole, metrics = gradient(step, state, rows)
    pieces, others = gradient(jax.jit(gradient_task(config, accumulation=2).step), state, rows)
    # The z-loss is a mean over tokens, so its gradient is that of the whole batch.
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name in ("router_z", "router_entropy", "dropped"):
        np.testing.assert_allclose(
            metrics[name].compute(), others[name].compute(), rtol=1e-5, err_msg=name
        )


def test_attributes_come_with_the_batch():
    config = with_moe(router="attribute")
    task, step, state = started(config)
    assert set(task.batch_spec(4)) == {*batch(), "segment_ids", "positions", "attributes"}
    assert "attributes" not in gradient_task(CONFIG).batch_spec(4)
    attributes = jnp.tile(jnp.arange(T + 1)[None] % 3, (4, 1))
    results = [
        float(gradient(step, state, batch(attributes=attributes + i))[1]["loss"].total)
        for i in (0, 0, 100)
    ]
    assert results[0] == results[1] != results[2]


def test_flops_count_the_experts_that_a_token_uses():
    dense = dataclasses.replace(CONFIG, mlps=("gelu_tanh",))
    D, F = 8, 12
    one = 6 * 2 * 2 * D * F  # two layers with experts, two matrices each
    base = train_flops_per_token(dense, T)
    assert train_flops_per_token(CONFIG, T) == base + one + 6 * 2 * D * 4
    by_attribute = with_moe(router="attribute", dispatch="all_experts")
    assert train_flops_per_token(by_attribute, T) == base + one
    merged = with_moe(router="attribute", dispatch="all_experts", mix="weights")
    assert train_flops_per_token(merged, T) == base
    # A frozen matrix costs four instead of six.
    for config in (CONFIG, by_attribute, merged):
        frozen = DecoderTask(config, optax.sgd(1.0), seq_len=T, frozen=("layers/places/1/mlp",))
        plain = gradient_task(config)
        used = (plain.flops_per_batch(1) - frozen.flops_per_batch(1)) / T / 2
        own = train_flops_per_token(config, T) - base + one
        assert used == pytest.approx(own / 6)


@pytest.mark.parametrize("router", ["token", "attribute", "none"])
def test_the_parameters_are_counted(router):
    config = with_moe(router=router, top_k=4 if router == "none" else 2)
    abstract = Decoder.abstract(config)
    padding = (config.padded_vocab_size - config.vocab_size) * config.hidden_size
    held = sum(v.size for _, v in nnx.to_flat_state(nnx.state(abstract)))
    assert count_parameters(config) == held - padding
