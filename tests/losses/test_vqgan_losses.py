"""VQGAN losses against formulas written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.losses import vqgan as losses


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_reconstruction_is_a_mean_of_each_image():
    a, b = draw(3, 4, 4, 3), draw(3, 4, 4, 3, seed=1)
    total, weight = losses.reconstruction(a, b)
    assert weight == 3
    np.testing.assert_allclose(
        total / weight, np.abs(np.asarray(a) - np.asarray(b)).mean(), rtol=1e-6
    )
    total, weight = losses.reconstruction(a, b, "l2")
    np.testing.assert_allclose(total / weight, np.square(np.asarray(a - b)).mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("legacy", "to_inputs", "to_codes"), [(False, 0.25, 1.0), (True, 1.0, 0.25)]
)
def test_beta_weighs_the_commitment_or_as_published_the_codebook(
    legacy: bool, to_inputs: float, to_codes: float
):
    inputs, codes = draw(2, 3, 4), draw(2, 3, 4, seed=1)

    def loss(inputs: jax.Array, codes: jax.Array) -> jax.Array:
        total, weight = losses.vector_quantization(
            inputs, codes, commitment_cost=0.25, legacy=legacy
        )
        return total / weight

    value, (inputs_gradient, codes_gradient) = jax.value_and_grad(loss, (0, 1))(inputs, codes)
    difference = np.asarray(inputs - codes)
    np.testing.assert_allclose(value, 1.25 * np.square(difference).mean(), rtol=1e-6)
    slope = 2 * difference / difference.size
    np.testing.assert_allclose(inputs_gradient, to_inputs * slope, rtol=1e-5)
    np.testing.assert_allclose(codes_gradient, -to_codes * slope, rtol=1e-5)


def test_code_entropies():
    confident = jnp.array([[0.0, -9.0], [-9.0, 0.0]])
    undecided = jnp.zeros((2, 2))
    collapsed = jnp.array([[0.0, -9.0], [0.0, -9.0]])
    expected = {
        "confident": (0.0, np.log(2)),
        "undecided": (np.log(2),) * 2,
        "collapsed": (0.0, 0.0),
    }
    for affinities, (each, overall) in zip((confident, undecided, collapsed), expected.values()):
        entropy_T, p_TK = losses.soft_assignment(affinities, temperature=0.1)
        (a, tokens), (b, also_tokens) = losses.code_entropy(entropy_T, p_TK.mean(axis=0))
        assert tokens == also_tokens == 2
        np.testing.assert_allclose((a / tokens, b / tokens), (each, overall), atol=1e-6)


def test_adversarial_losses():
    real, fake = draw(2, 3, 3) * 2, draw(2, 3, 3, seed=1) * 2
    r, f = np.asarray(real), np.asarray(fake)
    hinge = (np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean()) / 2
    smooth = (np.log1p(np.exp(-r)).mean() + np.log1p(np.exp(f)).mean()) / 2
    for kind, expected in (("hinge", hinge), ("non_saturating", smooth)):
        total, weight = losses.discriminator(real, fake, kind)
        np.testing.assert_allclose(total / weight, expected, rtol=1e-5)
    for kind, expected in (("hinge", -f.mean()), ("non_saturating", np.log1p(np.exp(-f)).mean())):
        total, weight = losses.adversarial(fake, kind)
        np.testing.assert_allclose(total / weight, expected, rtol=1e-5)


def test_adaptive_weight_equalises_gradients_and_is_bounded():
    a, b = draw(3, 3, 2, 2), 100 * draw(3, 3, 2, 2, seed=1)
    weight = losses.adaptive_weight(a, b)
    np.testing.assert_allclose(weight * jnp.linalg.norm(b), jnp.linalg.norm(a), rtol=1e-4)
    assert losses.adaptive_weight(1e9 * a, 0 * b) == 1e4
    assert not jax.grad(lambda x: losses.adaptive_weight(x, b))(a).any()


def test_gradient_distance_sees_edges_and_not_brightness():
    image = draw(2, 16, 16, 3)
    assert not losses.gradient_distance(image, image).any()
    np.testing.assert_allclose(losses.gradient_distance(image, image + 0.3), 0, atol=1e-5)
    assert (losses.gradient_distance(image, 0 * image) > 1).all()


def test_gradient_distance_of_a_step_edge():
    """A vertical edge of height 1 in an 8x8 image, one scale: by hand."""
    flat = jnp.zeros((1, 8, 8, 1))
    edge = flat.at[:, :, 4:].set(1.0)
    dx, laplacian = 8 / (8 * 7), 2 * 6 / (6 * 6)
    np.testing.assert_allclose(
        losses.gradient_distance(flat, edge, scales=1), dx + laplacian, rtol=1e-6
    )


def test_lecam_is_one_sided_and_meets_the_other_kind_s_average():
    real, fake = draw(2, 3, 3), draw(2, 3, 3, seed=1)
    total, weight = losses.lecam(real, fake, jnp.float32(0.4), jnp.float32(-0.3))
    r, f = np.asarray(real), np.asarray(fake)
    expected = (np.maximum(r + 0.3, 0) ** 2).mean() + (np.maximum(0.4 - f, 0) ** 2).mean()
    np.testing.assert_allclose(total / weight, expected, rtol=1e-5)


def test_gradient_penalty_is_half_the_squared_length_of_each_image_s_gradient():
    gradient = draw(3, 4, 4, 2)
    total, weight = losses.gradient_penalty(gradient)
    expected = np.square(np.asarray(gradient)).reshape(3, -1).sum(1).mean() / 2
    np.testing.assert_allclose(total / weight, expected, rtol=1e-5)


@pytest.mark.parametrize("side", [8, 14])
def test_edges_need_pixels_at_every_scale(side: int):
    """At 2 x 2 pixels there is no Laplacian, and the mean of none is NaN."""
    assert np.isfinite(losses.gradient_distance(draw(1, 12, 12, 3), draw(1, 12, 12, 3, seed=1)))
    with pytest.raises(UserError, match=rf"{side} x {side} pixels.*at least 12 that 4 divides"):
        losses.gradient_distance(draw(1, side, side, 3), draw(1, side, side, 3))
