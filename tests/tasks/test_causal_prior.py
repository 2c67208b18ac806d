"""Causal regularisation: the prior sees only what came before, its loss reaches the encoder, and it can be off."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.losses.vqgan import divide, unforetold
from lvm_jax.models import presets
from lvm_jax.tasks.causal_prior import CausalPrior
from lvm_jax.tasks.tokenizer import CausalPriorConfig, TokenizerLoss, TokenizerTask

SHAPE = CausalPriorConfig(hidden_size=16, num_layers=1, num_heads=2)
PATCHES = presets.vqgan(
    "patches",
    resolution=8,
    channel_mult=(1, 1),
    z_channels=12,
    quantized_embed_dim=12,
    hidden_channels=8,
    norm_groups=4,
    num_res_blocks=1,
    encoder_blocks=1,
    num_embeddings=16,
)
# Nothing but the prior's loss.
ALONE = TokenizerLoss(
    reconstruction_weight=0.0,
    perceptual="none",
    quantization_weight=0.0,
    adversarial_weight=0.0,
    causal_weight=0.5,
)


def test_flops_do_not_depend_on_the_kernel_that_attention_has_on_a_backend(monkeypatch):
    def flops():
        tx = optax.sgd(0.0)
        return TokenizerTask(PATCHES, tx, tx, loss=ALONE, prior=SHAPE).flops_per_batch(1)

    here = flops()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")  # where it is splash attention's
    assert flops() == here


def test_the_prior_sees_only_the_codes_before():
    config = presets.vqgan("debug")
    prior = CausalPrior(SHAPE, config, rngs=nnx.Rngs(0))
    codes = jax.random.normal(
        jax.random.key(0), (1, config.tokens_per_image, config.quantized_embed_dim)
    )

    def place(n, codes):
        return jnp.sum(jnp.square(prior(codes)[0, n]))

    for n in (0, 1, 9):
        reach = np.abs(jax.grad(functools.partial(place, n))(codes)).sum(axis=(0, 2))
        assert (reach[:n] > 0).all()
        assert not reach[n:].any()


def test_the_loss_is_a_share_of_variance():
    codes = jax.random.normal(jax.random.key(1), (3, 5, 4)) + 2
    mean = jnp.broadcast_to(jnp.mean(codes, axis=(0, 1)), codes.shape)
    assert float(divide(unforetold(mean, codes))) == pytest.approx(1)
    assert float(divide(unforetold(codes, codes))) == 0
    half = (mean + codes) / 2
    shares = [float(divide(unforetold(size * half, size * codes))) for size in (1.0, 100.0)]
    assert shares == pytest.approx([0.25, 0.25])


def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8))


def stepped(loss: TokenizerLoss, steps: int) -> tuple[list[dict], list[dict]]:
    task = TokenizerTask(PATCHES, optax.adam(1e-2), optax.sgd(0.0), loss=loss, prior=SHAPE)
    states, metrics = [jax.jit(task.init)(jax.random.key(0))], []
    step = jax.jit(task.step)
    for number in range(steps):
        state, seen = step(states[-1], {"images": images()}, jax.random.key(number))
        states.append(state)
        metrics.append({name: mean.compute() for name, mean in seen.items()})
    return states, metrics


def moved(before: dict, after: dict) -> bool:
    return any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


def test_its_loss_moves_the_encoder_and_neither_decoder_nor_codebook():
    states, metrics = stepped(ALONE, 30)
    first, last = (state["params"] for state in (states[0], states[-1]))
    assert moved(first["prior"], last["prior"])
    generators = first["generator"], last["generator"]
    assert moved(*(each["encoder"] for each in generators))
    assert not moved(*(each["decoder"] for each in generators))
    assert not moved(*(each["quantizer"] for each in generators))
    assert metrics[-1]["causal"] < metrics[0]["causal"]
    assert metrics[0]["loss"] == pytest.approx(0.5 * metrics[0]["causal"])


def test_without_a_weight_there_is_no_prior():
    states, metrics = stepped(dataclasses.replace(ALONE, causal_weight=0.0), 1)
    for state in states:
        assert set(state["params"]) == set(state["opt"]) == {"generator", "discriminator"}
    assert "causal" not in metrics[0]


def test_an_encoder_that_cannot_learn_and_impossible_numbers_are_refused():
    with pytest.raises(UserError, match=r"encoder_blocks is 0: codes are patches"):
        TokenizerTask(
            dataclasses.replace(PATCHES, encoder_blocks=0),
            optax.sgd(0.0),
            optax.sgd(0.0),
            loss=ALONE,
        )
    with pytest.raises(UserError, match=r"causal_weight is -1"):
        TokenizerLoss(causal_weight=-1.0)
    with pytest.raises(UserError, match=r"entropy_temperature is 0\.0: it must be above 0"):
        TokenizerLoss(entropy_temperature=0.0)
