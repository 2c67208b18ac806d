"""MAE-VQGAN and SegGPT without weights of others: sizes, what is hidden stays hidden, examples together, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.losses.smooth_l1 import smooth_l1
from lvm_jax.models import MaeVqgan, SegGpt, presets
from lvm_jax.models.canvas.positions import waves

MAE, SEGGPT = presets.mae_vqgan("debug", remat="none"), presets.seggpt("debug", remat="none")


def parameters(cls, config):
    state = nnx.state(cls.abstract(config))
    return sum(variable.size for _, variable in nnx.to_flat_state(state))


def test_published_sizes():
    """MAE's ViT-L with its decoder and a head of 1,024 codes; SegGPT's checkpoint."""
    assert parameters(MaeVqgan, presets.mae_vqgan("published")) == 329_370_624
    assert parameters(SegGpt, presets.seggpt("published")) == 370_723_203


def test_positions_tell_columns_then_rows():
    found = waves((2, 3), 8)
    assert found.shape == (6, 8)
    np.testing.assert_array_equal(found[0], [0, 0, 1, 1, 0, 0, 1, 1])
    np.testing.assert_allclose(found[5, [0, 4]], np.sin([2, 1]), rtol=1e-6)
    np.testing.assert_allclose(found[5, [3, 7]], np.cos([0.02, 0.01]), rtol=1e-6)


def test_hidden_patches_of_a_canvas_are_not_seen():
    """By gradient; and the order in which the others are named does not matter."""
    model = MaeVqgan(MAE, rngs=nnx.Rngs(0))
    canvas = jax.random.normal(jax.random.key(0), (1, *MAE.image_size, 3))
    shown = jnp.array([[0, 5, 6, 15]])

    def total(canvas, shown):
        logits = model(canvas, shown)
        return jnp.sum(jnp.sin(logits)), logits

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, logits), gradient = run(canvas, shown)
    assert logits.shape == (1, 16, MAE.codes)
    by_patch = jnp.abs(gradient).reshape(4, 8, 4, 8, 3).sum((1, 3, 4)).ravel()
    assert np.flatnonzero(by_patch).tolist() == [0, 5, 6, 15]
    (_, turned), _ = run(canvas, shown[:, ::-1])
    np.testing.assert_allclose(turned, logits, atol=1e-5)


@pytest.fixture(scope="module")
def painter():
    model = SegGpt(SEGGPT, rngs=nnx.Rngs(0))
    return nnx.jit(lambda pictures, masks, hidden: model(pictures, masks, hidden))


def test_hidden_patches_of_masks_are_not_seen_and_examples_are(painter):
    pictures, masks = jax.random.normal(jax.random.key(0), (2, 1, 2, *SEGGPT.image_size, 3))
    pictures = pictures.at[:, 1, 16:].set(pictures[:, 0, 16:])
    answer = jnp.arange(8)[None] >= 4
    painted = painter(pictures, masks, answer)
    # What the hidden halves hold is not read; what is painted into them is the same for all examples of a query.
    blank = painter(pictures, masks.at[:, :, 16:].set(0), answer)
    np.testing.assert_array_equal(painted, blank)
    np.testing.assert_allclose(painted[0, 0, 20:], painted[0, 1, 20:], atol=1e-5)
    # Examples that are alike say what one of them says; another second one changes the answer.
    twice = painter(pictures[:, :1].repeat(2, 1), masks[:, :1].repeat(2, 1), answer)
    once = painter(pictures[:, :1], masks[:, :1], answer)
    np.testing.assert_allclose(twice[0, 0], once[0, 0], atol=1e-5)
    assert np.abs(painted[0, 0, 20:] - once[0, 0, 20:]).max() > 1e-3


def test_pixels_of_hidden_patches():
    model = SegGpt.abstract(SEGGPT)
    found = model.hidden_pixels(jnp.arange(8)[None] == 3)
    assert found.shape == (1, 32, 16)
    assert found[0, 8:16, 8:].all()
    assert found.sum() == 64


def test_smooth_l1_by_hand():
    truth = jnp.zeros((1, 1, 3, 2))
    painted = truth.at[0, 0, :, 0].set(jnp.array([0.05, -3.0, 9.0]))
    total, weight = smooth_l1(painted, truth, jnp.array([[[1.0, 2.0, 0.0]]]), 0.1)
    np.testing.assert_allclose(total, 0.05**2 / 0.2 + 2 * 2.95, rtol=1e-6)
    assert weight == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: presets.mae_vqgan("debug", hidden_size=18), r"hidden_size=18 must be a multiple"),
        (lambda: presets.mae_vqgan("debug", decoder_num_attention_heads=3), r"heads=3 must divide"),
        (lambda: presets.mae_vqgan("debug", patch_size=7), r"does not divide into patches"),
        (lambda: presets.mae_vqgan("debug", codes=0), r"codes=0: it must be at least 1"),
        (lambda: presets.seggpt("debug", image_size=(24, 16)), r"has 3 rows of patches: a prompt"),
        (lambda: presets.seggpt("debug", merge_index=2), r"merge_index=2: name blocks in rising"),
        (lambda: presets.seggpt("debug", num_hidden_layers=2), r"names block 2: num_hidden_la"),
        (lambda: presets.seggpt("debug", beta=0.0), r"beta=0.0: it must be above 0"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()
