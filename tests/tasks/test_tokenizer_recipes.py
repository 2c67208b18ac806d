"""What the recipes add to a step: accumulation, averages, LeCam, R1, all-code gradients, a prior, revival, resume."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.pictures.pixels import to_float
from lvm_jax.tasks.tokenizer import TokenizerLoss, TokenizerStep, TokenizerTask
from lvm_jax.training.loop import TrainConfig, train

CONFIG = presets.vqgan(
    "debug",
    l2_normalize=True,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(),
    no_attn_mid_block=True,
)
CRITIC = DiscriminatorConfig(hidden_channels=4, n_layers=1, norm_groups=4)
STYLE = DiscriminatorConfig(kind="style", hidden_channels=4, n_layers=2)
EVERYTHING = TokenizerLoss(
    perceptual="gradient",
    straight_through="all_codes",
    entropy_weight=0.1,
    entropy_temperature=0.5,
    adversarial="non_saturating",
    discriminator_start=1,
    r1_weight=10.0,
    lecam_weight=0.1,
    lecam_decay=0.9,
    causal_weight=0.1,
)


def images(step: int, count: int = 8) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 256, (count, 16, 16, 3), np.uint8)


WHOLE, PARTS = (TokenizerStep(accumulation=n, ema_decay=0.9) for n in (1, 4))


@functools.cache
def stepped(how: TokenizerStep) -> tuple[list[dict], dict]:
    """The states of two steps of plain gradient descent with every term on, and the last one's metrics."""
    task = TokenizerTask(
        CONFIG, optax.sgd(0.1), optax.sgd(0.1), loss=EVERYTHING, discriminator=STYLE, how=how
    )
    states, metrics, step = [jax.jit(task.init)(jax.random.key(0))], {}, jax.jit(task.step)
    for number in range(2):
        batch = {"images": jnp.asarray(images(number))}
        state, metrics = step(states[-1], batch, jax.random.key(number))
        states.append(state)
    return states, {name: mean.compute() for name, mean in metrics.items()}


@pytest.mark.slow
def test_a_batch_in_parts_makes_the_same_step():
    """Entropy of the mean assignment, the adaptive weight and LeCam belong to the whole batch: no average of parts."""
    (whole, metrics), (parts, their_metrics) = stepped(WHOLE), stepped(PARTS)
    assert metrics.keys() == their_metrics.keys()
    for name, value in metrics.items():
        assert their_metrics[name] == pytest.approx(value, rel=2e-4, abs=1e-6), name
    for a, b in zip(jax.tree.leaves(whole[-1]), jax.tree.leaves(parts[-1]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.slow
def test_lecam_s_averages_follow_the_logits_once_the_discriminator_runs():
    states, metrics = stepped(WHOLE)
    assert states[1]["lecam"] == {"real": 0, "fake": 0}
    for name in ("real", "fake"):
        expected = 0.1 * metrics[f"logit_{name}"]
        np.testing.assert_allclose(states[2]["lecam"][name], expected, rtol=1e-5)


def test_r1_is_the_gradient_of_the_discriminator_at_each_real_image():
    task = TokenizerTask(
        CONFIG, optax.sgd(0.0), optax.sgd(0.0), loss=EVERYTHING, discriminator=STYLE
    )
    critic = task.critic
    states, metrics = stepped(WHOLE)
    params, real = states[1]["params"]["discriminator"], to_float(jnp.asarray(images(1)))
    gradient = jax.jit(jax.grad(lambda x: critic.logits(params, x)[0, 0, 0]))
    each = [np.sum(np.square(gradient(real[i : i + 1]))) / 2 for i in range(len(real))]
    np.testing.assert_allclose(metrics["r1"], np.mean(each), rtol=1e-4)


def test_the_average_of_weights_is_what_is_exported():
    states, _ = stepped(WHOLE)
    task = TokenizerTask(
        CONFIG,
        optax.sgd(0.1),
        optax.sgd(0.1),
        loss=EVERYTHING,
        discriminator=STYLE,
        how=WHOLE,
    )
    exported = nnx.state(task.export(states[-1]))["encoder"]["conv_in"]["kernel"][...]
    zero, one, two = (
        np.asarray(s["params"]["generator"]["encoder"]["conv_in"]["kernel"][...]) for s in states
    )
    first = 0.1 * zero + 0.9 * one  # the decays of steps 0 and 1 are 1/10 and 2/11
    np.testing.assert_allclose(exported, 2 / 11 * first + 9 / 11 * two, atol=1e-6)
    assert np.abs(exported - two).max() > 1e-4


def test_a_batch_that_does_not_divide_into_parts_is_refused():
    task = TokenizerTask(
        CONFIG,
        optax.sgd(0.1),
        optax.sgd(0.1),
        loss=TokenizerLoss(perceptual="none", adversarial_weight=0.0),
        how=TokenizerStep(accumulation=3),
    )
    state = jax.eval_shape(task.init, jax.random.key(0))
    with pytest.raises(UserError, match="8 does not divide into 3 parts"):
        jax.eval_shape(task.step, state, task.batch_spec(8), jax.random.key(0))
    with pytest.raises(UserError, match="accumulation is 0"):
        TokenizerStep(accumulation=0)


def codes_used(revive_after: int) -> float:
    """Codes in use on 16 flat images, on average over steps 150 to 220: one latent each, so 16 codes are worth having.

    The features move from step to step, and how many codes they meet jumps (2 to 11): one step's number says little.
    """
    config = presets.vqgan(
        "debug",
        resolution=4,
        channel_mult=(1, 1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        no_attn_mid_block=True,
        num_embeddings=32,
    )
    task = TokenizerTask(
        config,
        optax.adam(1e-3),
        optax.sgd(0.0),
        loss=TokenizerLoss(reconstruction="l2", perceptual="none", adversarial_weight=0.0),
        how=TokenizerStep(revive_after=revive_after),
    )
    colours = np.random.default_rng(0).integers(0, 256, (16, 1, 1, 3), np.uint8)
    batch = {"images": jnp.asarray(np.broadcast_to(colours, (16, 4, 4, 3)))}
    state, step = jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step)
    used = []
    for number in range(221):
        state, _ = step(state, batch, jax.random.fold_in(jax.random.key(0), number))
        if number >= 150 and number % 7 == 0:
            used.append(len(np.unique(task.reconstruct(state, batch["images"])[1])))
    return float(np.mean(used))


@pytest.mark.slow
def test_a_collapsed_codebook_recovers_with_revival_and_only_with_it(as_a_user):
    # How many they are follows from the order of sums, so from the number of threads: 1.3 or 3.4 without revival, 4.1
    # or 5.2 with it.
    assert codes_used(revive_after=10) > codes_used(revive_after=0) + 1


class Batches:
    """The batch of a step is a function of the step."""

    def __init__(self) -> None:
        self._step = 0

    def __iter__(self):
        return self

    def __next__(self):
        self._step += 1
        return {"images": images(self._step - 1)}

    def get_state(self):
        return self._step

    def set_state(self, step):
        self._step = step


def train_to(steps: int, workdir, mesh) -> dict:
    task = TokenizerTask(
        CONFIG,
        optax.adam(1e-3),
        optax.adam(1e-3),
        loss=EVERYTHING,
        discriminator=CRITIC,
        how=TokenizerStep(accumulation=2, ema_decay=0.9, revive_after=2),
    )
    config = TrainConfig(steps=steps, batch_size=8, log_every=2, eval_every=0, checkpoint_every=3)
    # The length of a run is part of its configuration: an interrupted one keeps it.
    return train(task, Batches(), config, mesh=mesh, workdir=workdir, experiment={"run": 1})


@pytest.mark.slow
def test_resume_is_bit_exact_discriminator_averages_and_idle_codes_included(tmp_path):
    mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
    whole = train_to(6, tmp_path / "whole", mesh)
    train_to(3, tmp_path / "parts", mesh)
    resumed = train_to(6, tmp_path / "parts", mesh)
    assert {"ema", "idle", "lecam"} < whole.keys()
    assert "prior" in whole["params"]
    named = jax.tree_util.tree_leaves_with_path(whole)
    for (path, a), b in zip(named, jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
