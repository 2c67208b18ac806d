"""The StyleGAN-type discriminator: its blur, its logit, and sizes that do not fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.discriminator import (
    DiscriminatorConfig,
    halve_blurred,
    make_discriminator,
)

CONFIG = DiscriminatorConfig(kind="style", hidden_channels=4, n_layers=2)


def test_the_blur_averages_and_removes_the_finest_stripes():
    flat = jnp.full((1, 8, 8, 3), 2.0)
    np.testing.assert_allclose(halve_blurred(flat)[:, 1:-1, 1:-1], 2.0)
    stripes = jnp.asarray(np.resize([1.0, -1.0], (1, 8, 8, 3)).astype(np.float32))
    stripes = stripes.at[:].set(jnp.arange(8).reshape(1, 1, 8, 1) % 2 * 2.0 - 1)
    np.testing.assert_allclose(halve_blurred(stripes)[:, 1:-1, 1:-1], 0, atol=1e-6)


def test_one_logit_an_image_that_depends_on_that_image_alone():
    critic = make_discriminator(CONFIG, 16, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).random((2, 16, 16, 3), np.float32))
    logits = critic(images)
    assert logits.shape == (2, 1, 1)
    np.testing.assert_allclose(critic(images[1:])[0], logits[1], rtol=1e-5)
    assert logits[0] != logits[1]


def test_a_side_that_does_not_halve_that_often_is_refused():
    with pytest.raises(UserError, match="n_layers is 2: the discriminator cannot halve 18 pixels"):
        make_discriminator(CONFIG, 18, rngs=nnx.Rngs(0))


def test_a_side_without_a_patch_is_refused():
    """The mean over no logits would be NaN."""
    config = DiscriminatorConfig(hidden_channels=4, norm_groups=0, n_layers=2)
    with pytest.raises(UserError, match="no patch in 11 pixels, and needs 12"):
        make_discriminator(config, 11, rngs=nnx.Rngs(0))
    critic = make_discriminator(config, 12, rngs=nnx.Rngs(0))
    assert critic(jnp.zeros((1, 12, 12, 3))).shape == (1, 1, 1)
