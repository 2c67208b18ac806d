"""MAE-VQGAN and SegGPT give what transformers gives, losses and gradients too; fixtures by make_hf_canvas.py."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_hf_towers import FIXTURES, assert_equal_states

from lvm_jax.errors import UserError
from lvm_jax.losses.next_token import cross_entropy
from lvm_jax.losses.smooth_l1 import smooth_l1
from lvm_jax.models import MaeVqgan, SegGpt
from lvm_jax.models.canvas import published_mae
from lvm_jax.weights import model_folder


class Fixture:
    """What transformers saved and computed."""

    def __init__(self, name):
        with np.load(FIXTURES / f"hf_{name}.npz") as data:
            arrays = dict(data)
        self.config = json.loads(str(arrays.pop("config")))
        self.given = {n: a for n, a in arrays.items() if "." not in n}
        self.gradients = {
            n.removeprefix("gradient/"): a for n, a in arrays.items() if n.startswith("gradient/")
        }
        self.tensors = {n: a for n, a in arrays.items() if "." in n and "/" not in n}

    def folder(self, path, tensors=None, **changes):
        model_folder.save_folder(path, self.config | changes, tensors or self.tensors)
        return path


@pytest.fixture(scope="module")
def mae():
    return Fixture("vit_mae")


@pytest.fixture(scope="module")
def seggpt():
    return Fixture("seggpt")


def loss_and_gradients(model, loss):
    graphdef, params = nnx.split(model)

    def mean(params):
        (total, weight), output = loss(nnx.merge(graphdef, params))
        return total / weight, output

    return jax.jit(jax.value_and_grad(mean, has_aux=True))(params)


def test_a_masked_autoencoder_over_codes(mae, tmp_path):
    folder, given = mae.folder(tmp_path / "model"), mae.given
    model = MaeVqgan.from_pretrained(folder, remat="none")
    assert (model.config.codes, model.config.grid) == (9, (4, 4))
    hidden = np.ones((2, 16), "f4")
    np.put_along_axis(hidden, given["shown"], 0, axis=1)

    def loss(model):
        logits = model(jnp.asarray(given["canvas"]), jnp.asarray(given["shown"]))
        return cross_entropy(logits, jnp.asarray(given["codes"]), jnp.asarray(hidden)), logits

    (value, logits), gradients = loss_and_gradients(model, loss)
    np.testing.assert_allclose(logits, given["logits"], atol=1e-5)
    np.testing.assert_allclose(value, given["loss"], atol=1e-5)
    theirs = MaeVqgan.from_pretrained(mae.folder(tmp_path / "gradients", mae.gradients))
    assert_equal_states(gradients, theirs)


def test_seggpt_its_loss_and_examples_together(seggpt, tmp_path):
    folder, given = seggpt.folder(tmp_path / "model"), seggpt.given
    model = SegGpt.from_pretrained(folder, remat="none")
    pictures, masks, hidden = (jnp.asarray(given[n]) for n in ("pictures", "masks", "hidden"))

    def loss(model):
        painted = model(pictures[:, None], masks[:, None], hidden, semantic=True)[:, 0]
        counted = model.hidden_pixels(hidden).astype(jnp.float32)
        return smooth_l1(painted, masks, counted, model.config.beta), painted

    (value, painted), gradients = loss_and_gradients(model, loss)
    np.testing.assert_allclose(painted, given["painted"], atol=1e-5)
    np.testing.assert_allclose(value, given["loss"], atol=1e-5)
    theirs = SegGpt.from_pretrained(seggpt.folder(tmp_path / "gradients", seggpt.gradients))
    assert_equal_states(gradients, theirs)
    pictures, masks = (jnp.asarray(given[f"ensemble_{n}"]) for n in ("pictures", "masks"))
    answer = jnp.arange(18)[None] >= 9
    together = nnx.jit(lambda m, *args: m(*args))(model, pictures[None], masks[None], answer)
    np.testing.assert_allclose(together[0], given["ensemble_painted"], atol=1e-5)


def test_our_folders_are_read_again(mae, seggpt, tmp_path):
    for number, (cls, fixture) in enumerate(((MaeVqgan, mae), (SegGpt, seggpt))):
        model = cls.from_pretrained(fixture.folder(tmp_path / f"theirs{number}"), remat="full")
        model.save_pretrained(tmp_path / f"ours{number}")
        again = cls.from_pretrained(tmp_path / f"ours{number}")
        assert again.config == model.config
        for one, other in zip(
            *(jax.tree.leaves(nnx.state(m)) for m in (model, again)), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_settings_left_out_of_a_masked_autoencoder_are_those_of_transformers():
    """Ours are of ViT-L, with 16 heads, and no tensor's shape tells how many heads there are."""
    shapes = {"decoder.decoder_pred.weight": (9, 512)}
    found = published_mae.config({"model_type": "vit_mae"}, shapes, "folder")
    assert (found.hidden_size, found.num_hidden_layers, found.num_attention_heads) == (768, 12, 12)
    assert (found.image_size, found.layer_norm_eps) == ((224, 224), 1e-12)


def test_folders_that_do_not_fit_are_one_line(mae, seggpt, tmp_path):
    wrong = mae.tensors | {"decoder.decoder_pred.weight": np.ones((48, 12), "f4")}
    for cls, fixture, tensors, changes, message in (
        (MaeVqgan, mae, wrong, {}, r"decoder_pred has 48 outputs, the pixels of a patch"),
        (MaeVqgan, seggpt, None, {}, r"model_type='seggpt': expected 'mae_vqgan' or 'vit_mae'"),
        (SegGpt, mae, None, {}, r"model_type='vit_mae': expected 'lvm_seggpt' or 'seggpt'"),
        (SegGpt, seggpt, None, {"use_relative_position_embeddings": False}, r"only True is supp"),
        (SegGpt, seggpt, None, {"merge_index": 2}, r"merge_index=2: name blocks in rising order"),
        (SegGpt, seggpt, None, {"num_hidden_layers": 4}, r"missing: model.encoder.layers.3"),
    ):
        with pytest.raises(UserError, match=message):
            cls.from_pretrained(fixture.folder(tmp_path / "wrong", tensors, **changes))
