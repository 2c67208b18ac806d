"""The tasks of MAE-VQGAN and SegGPT: rows become canvases of the same pairs, and a batch is learnt by heart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_models import CODES, TOKENS

from lvm_jax.data.in_context.sequences import Pair, SequenceFormat, stacked
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import decode_codes
from lvm_jax.models import presets
from lvm_jax.models.canvas.compose import cells, column, in_colours, square
from lvm_jax.pictures.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN
from lvm_jax.tasks.mae_vqgan import MaeVqganTask
from lvm_jax.tasks.seggpt import SegGptTask

FORM = SequenceFormat.of_masks(CODES, TOKENS)
MAE = presets.mae_vqgan("debug", codes=CODES, remat="none")
SEGGPT = presets.seggpt("debug", remat="none")


def pair(seed):
    rng = np.random.default_rng(seed)
    return Pair(rng.integers(0, CODES, TOKENS), rng.integers(0, CODES, TOKENS))


def batch(rows=3):
    made = [FORM.row([pair(2 * i), pair(2 * i + 1)], 2) for i in range(rows)]
    return {**stacked([*made, FORM.padding(2)]), "question": np.int32(0)}


def tasks(vqgan, tx=None, **options):
    tx = tx or optax.sgd(0.0)
    return {
        "mae_vqgan": MaeVqganTask(MAE, vqgan, tx, **options),
        "seggpt": SegGptTask(SEGGPT, vqgan, tx, **options),
    }


def test_flops_are_those_of_the_network_whatever_computes_its_attention(vqgan):
    for of, config in ((MaeVqganTask, MAE), (SegGptTask, SEGGPT)):
        kernel = dataclasses.replace(config, attention="splash")
        counts = [of(c, vqgan, optax.sgd(0.0)).flops_per_batch(1) for c in (config, kernel)]
        assert counts[0] == counts[1]


def test_a_canvas_is_made_of_cells_and_its_codes_of_theirs():
    pictures = np.random.default_rng(0).random((2, 4, 16, 16, 3)).astype("f4")
    whole = jax.jit(square)(*pictures.swapaxes(0, 1))
    normal = (pictures - IMAGENET_MEAN) / IMAGENET_DEVIATION
    np.testing.assert_allclose(whole[:, 16:, :16], normal[:, 2], atol=1e-6)
    np.testing.assert_allclose(whole[:, :16, 16:], normal[:, 1], atol=1e-6)
    np.testing.assert_allclose(jax.jit(in_colours)(whole[:, 16:, 16:]), pictures[:, 3], atol=1e-6)
    both = jax.jit(column)(pictures[:, 0], pictures[:, 1])
    np.testing.assert_allclose(both[:, 16:], normal[:, 1], atol=1e-6)
    assert cells((4, 4)).tolist() == [
        [0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15],
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"3 x 4 patches has no four cells"):
        cells((3, 4))


def test_rows_become_the_pairs_that_they_were_made_of(vqgan):
    task = tasks(vqgan)["seggpt"]
    pairs = jax.jit(task._pairs)(batch(2))
    assert pairs.counted_B.tolist() == [1, 1, 0]
    for i in range(2):
        for j in range(2):
            one = pair(2 * i + j)
            np.testing.assert_array_equal(pairs.codes_BP2N[i, j], [one.picture, one.answer])
            expected = decode_codes(vqgan, np.stack([one.picture, one.answer]))
            np.testing.assert_allclose(pairs.pixels_BP2HWC[i, j], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mae_vqgan", "seggpt"])
def test_the_answer_is_what_counts_and_is_not_seen(vqgan, name):
    """By the gradient of the loss outside of training; a row of padding counts nothing."""
    task = tasks(vqgan)[name]

    @jax.jit
    def run(key):
        model, pairs = task.network(task.config, rngs=nnx.Rngs(key)), task._pairs(batch(2))

        def loss(pixels):
            return task.loss_of(model, pairs._replace(pixels_BP2HWC=pixels), None)

        (_, weight), gradient = jax.value_and_grad(loss, has_aux=True)(pairs.pixels_BP2HWC)
        return weight, jnp.abs(gradient).sum((3, 4, 5))

    weight, by_picture = run(jax.random.key(0))
    assert weight == 2 * (TOKENS if name == "mae_vqgan" else 16 * 16 * 3)
    # SegGPT is compared with the pixels of the answer; MAE-VQGAN with its codes.
    assert (by_picture[0] > 0).tolist() == [[True, True], [True, name == "seggpt"]]
    assert by_picture[2].sum() == 0


@pytest.mark.parametrize("name", ["mae_vqgan", "seggpt"])
def test_a_batch_is_learnt_by_heart_whatever_is_hidden(vqgan, name):
    task = tasks(vqgan, optax.adam(1e-2), hiding="random")[name]
    state, step, losses = jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step), []
    for number in range(60):
        state, metrics = step(state, batch(), jax.random.key(number))
        losses.append(metrics["loss"].compute())
    whole = 4 * TOKENS if name == "mae_vqgan" else 2 * 16 * 16 * 3
    assert metrics["loss"].weight == 3 * 0.75 * whole
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


def test_the_batch_is_what_the_loader_gives(vqgan):
    for task in tasks(vqgan).values():
        found = batch()
        assert {name: (x.shape, x.dtype) for name, x in task.batch_spec(4).items()} == {
            name: (x.shape, x.dtype) for name, x in found.items()
        }
        assert task.items_per_batch(4) == ("rows", 4)
        assert task.flops_per_batch(4) == 4 * task.flops_per_batch(1) > 0


def test_networks_that_do_not_fit_the_tokenizer_are_one_line(vqgan):
    tx = optax.sgd(0.0)
    for make, message in (
        (lambda: MaeVqganTask(presets.mae_vqgan("debug", codes=9), vqgan, tx), r"codes=9, and a"),
        (
            lambda: MaeVqganTask(presets.mae_vqgan("debug", patch_size=4), vqgan, tx),
            r"patch_size=4, and a tokenizer of 16 pixels and patches of 8 makes it 8",
        ),
        (
            lambda: SegGptTask(presets.seggpt("debug", image_size=(32, 32)), vqgan, tx),
            r"image_size=\(32, 32\), and two pictures of 16 pixels make it \(32, 16\)",
        ),
        (lambda: SegGptTask(SEGGPT, vqgan, tx, share=1.0), r"share is 1.0: it must lie between"),
    ):
        with pytest.raises(UserError, match=message):
            make()
