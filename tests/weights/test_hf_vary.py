"""Whole published models give what their halves composed in PyTorch give; fixtures are made by make_hf_vary.py."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from lvm_jax.errors import UserError
from lvm_jax.models import VisionLanguage, VitDet, presets
from lvm_jax.models.decoder.resized import load_resized
from lvm_jax.models.vision_language import parts
from lvm_jax.models.vision_language.config import CLIP, VITDET
from lvm_jax.tasks.image_text import ImageTextTask

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
GIVEN = ("config", "tokens", "loss_weights", "images", "images_clip", "logits", "loss")
TOKENS, FIRST, PAD = 4, 2, 1  # of a picture, and where they begin; id of padding


class Fixture:
    """What PyTorch saved and computed."""

    def __init__(self, name: str):
        with np.load(FIXTURES / f"{name}.npz") as data:
            arrays = dict(data)
        self.config = json.loads(str(arrays.pop("config", "{}")))
        self.given = {name: arrays[name] for name in GIVEN if name in arrays}
        self.gradients = {
            name.removeprefix("gradient/"): array
            for name, array in arrays.items()
            if name.startswith("gradient/")
        }
        self.tensors = {
            name: array
            for name, array in arrays.items()
            if name not in GIVEN and not name.startswith("gradient/")
        }

    def folder(self, path: pathlib.Path, tensors: dict | None = None) -> pathlib.Path:
        path.mkdir()
        (path / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors if tensors is None else tensors, path / "model.safetensors")
        return path

    def batch(self) -> dict:
        tokens = self.given["tokens"].astype(np.int32)
        B, T = tokens.shape
        pictures = {
            name: self.given[name][:, None] for name in (CLIP, VITDET) if name in self.given
        }
        return {
            "tokens": tokens,
            "segment_ids": (tokens != PAD).astype(np.int32),
            "positions": np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)),
            "loss_weights": self.given.get("loss_weights", np.ones((B, T), np.float32)),
            "image_places": np.broadcast_to(np.arange(TOKENS, dtype=np.int32) + FIRST, (B, 1, 4)),
            **pictures,
        }


def loss_and_gradients(model, batch, frozen=()):
    """Of the task, by trained parameters."""
    task = ImageTextTask(
        model.config,
        optax.sgd(1.0),
        seq_len=batch["tokens"].shape[1] - 1,
        max_images=1,
        frozen=frozen,
    )
    params = task._split.apart(nnx.state(model, nnx.Param))

    def loss(trained):
        total, weight = task.loss(task._split.updated(params, trained), batch)
        return total / weight

    return jax.jit(jax.value_and_grad(loss))(task._split.trained(params))


def logits_of(model, batch):
    return nnx.jit(lambda m, b: m(b["tokens"], b, b["image_places"], b["segment_ids"]))(
        model, {name: jnp.asarray(x) for name, x in batch.items()}
    )


def assert_same(ours, theirs):
    theirs = dict(nnx.to_flat_state(theirs))
    for path, one in nnx.to_flat_state(ours):
        one, other = np.asarray(one[...]), np.asarray(theirs[path][...])
        # Softmax does not see what is added to all keys: the gradient of their bias is rounding.
        bound = 1e-5 * max(np.linalg.norm(other), 1.0)
        assert np.linalg.norm(one - other) <= bound, path


@pytest.fixture(scope="module")
def tiny():
    return Fixture("vary_tiny")


@pytest.fixture(scope="module")
def base():
    return Fixture("vary_base")


def test_vary_tiny_loss_and_all_gradients(tiny, tmp_path):
    model = VisionLanguage.from_pretrained(tiny.folder(tmp_path / "model"))
    assert model.config.clip is None
    assert model.config.image_ids == (20, 21, 22)
    real = tiny.given["tokens"] != 1
    logits = np.asarray(logits_of(model, tiny.batch()))
    np.testing.assert_allclose(logits[real], tiny.given["logits"][real], atol=1e-5)
    loss, gradients = loss_and_gradients(model, tiny.batch())
    np.testing.assert_allclose(loss, tiny.given["loss"], rtol=1e-5)
    theirs = VisionLanguage.from_pretrained(tiny.folder(tmp_path / "gradients", tiny.gradients))
    assert_same(gradients, nnx.state(theirs, nnx.Param))
    assert len(nnx.to_flat_state(gradients)) == len(nnx.to_flat_state(nnx.state(model, nnx.Param)))


def test_vary_base_loss_and_gradients_of_what_is_trained(base, tmp_path):
    model = VisionLanguage.from_pretrained(base.folder(tmp_path / "model"))
    assert model.config.clip.tower.num_attention_heads == 1
    real = base.given["tokens"] != 1
    logits = np.asarray(logits_of(model, base.batch()))
    np.testing.assert_allclose(logits[real], base.given["logits"][real], atol=1e-5)
    frozen = ("vitdet/tower", "clip/tower")
    loss, gradients = loss_and_gradients(model, base.batch(), frozen)
    np.testing.assert_allclose(loss, base.given["loss"], rtol=1e-5)
    zeros = {name: np.zeros_like(x) for name, x in base.tensors.items()}
    folder = base.folder(tmp_path / "gradients", zeros | base.gradients)
    assert_same(gradients, nnx.state(VisionLanguage.from_pretrained(folder), nnx.Param))


def test_got_ocr2_in_and_out(tmp_path):
    """Transformers' logits; and the folder that we write is the one that it wrote."""
    published, asked = Fixture("hf_got_ocr2"), Fixture("got_ocr2_logits")
    published.config["text_config"] |= {"bos_token_id": 0, "eos_token_id": 0}
    published.tensors.pop("result")
    published.tensors.pop("weights")
    model = VisionLanguage.from_pretrained(published.folder(tmp_path / "theirs"))
    assert model.config.image_ids == (3, 1, 2)
    logits = logits_of(
        model, asked.batch() | {"segment_ids": np.ones(asked.given["tokens"].shape, np.int32)}
    )
    np.testing.assert_allclose(logits, asked.given["logits"], atol=1e-5)
    model.save_got_ocr2(tmp_path / "ours")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert written.keys() == published.tensors.keys()
    for name, tensor in published.tensors.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    again = VisionLanguage.from_pretrained(tmp_path / "ours")
    assert again.config == model.config


def test_only_got_ocr2s_shape_is_written_as_got_ocr2(tmp_path):
    for name, message in (("debug-two", "one branch"), ("debug", "decoder is a Qwen2")):
        model = VisionLanguage(presets.vary(name), rngs=nnx.Rngs(0))
        with pytest.raises(UserError, match=message):
            model.save_got_ocr2(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_what_is_wrong_with_a_folder_is_named(tiny, tmp_path):
    folder = tiny.folder(tmp_path / "model")
    text = json.dumps(tiny.config | {"model_type": "mgm"})
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"model_type='mgm': VisionLanguage reads 'vision_lang"):
        VisionLanguage.from_pretrained(folder)
    config = {name: value for name, value in tiny.config.items() if name != "im_start_token"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"'im_start_token': None.*add the ids"):
        VisionLanguage.from_pretrained(folder)
    cut = {name: x for name, x in tiny.tensors.items() if "fc1.weight" not in name}
    with pytest.raises(UserError, match=r"missing: model.decoder.layers.0.fc1.weight"):
        VisionLanguage.from_pretrained(tiny.folder(tmp_path / "cut", cut))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small model of one branch in our own format."""
    folder = tmp_path_factory.mktemp("own")
    model = VisionLanguage(presets.vary("debug"), rngs=nnx.Rngs(3))
    model.tokenizer_fingerprint = "0123456789abcdef"
    model.save_pretrained(folder)
    return model, folder


def test_our_folder_round_trips(saved):
    model, folder = saved
    loaded = VisionLanguage.from_pretrained(folder, dtype="bfloat16", remat="none")
    assert loaded.tokenizer_fingerprint == "0123456789abcdef"
    assert loaded.config.decoder.dtype == loaded.config.vitdet.tower.dtype == "bfloat16"
    ours, theirs = (dict(nnx.to_flat_state(nnx.state(m, nnx.Param))) for m in (model, loaded))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value[...], theirs[path][...], err_msg=str(path))


def test_a_tower_comes_out_of_a_whole_model(saved, tiny, tmp_path):
    """Vary-tiny's tower into Vary-base: out of our folder, and out of the authors'."""
    model, folder = saved
    expected = nnx.to_flat_state(nnx.state(model.vitdet.tower, nnx.Param))
    for path, value in nnx.to_flat_state(
        parts.load_vitdet(folder, model.config.vitdet.tower, seed=0)
    ):
        np.testing.assert_array_equal(value[...], dict(expected)[path][...], err_msg=str(path))
    published = tiny.folder(tmp_path / "published")
    tower = VitDet.from_pretrained(published)
    found = parts.load_vitdet(published, tower.config, seed=0)
    assert len(nnx.to_flat_state(found)) == len(nnx.to_flat_state(nnx.state(tower)))
    other = presets.vitdet("debug", patch_size=4)
    with pytest.raises(UserError, match=r"holds another tower \(tower.patch_size: 8 -> 4\)"):
        parts.load_vitdet(folder, other, seed=0)
    with pytest.raises(UserError, match=r"is a model without such a tower"):
        parts.load_clip(folder, presets.clip("debug"))


def test_a_decoder_gets_new_ids_and_more_positions(tmp_path):
    """OPT with 40 of 44 rows known and 8 positions, for 43 ids of which the last three are new, and 16 positions."""
    from lvm_jax.models import Decoder

    shape = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}
    ids = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    theirs = presets.opt("debug", vocab_size=44, max_position_embeddings=8, **shape, **ids)
    source = Decoder(theirs, rngs=nnx.Rngs(0))
    source.save_pretrained(tmp_path)
    ours = dataclasses.replace(theirs, vocab_size=43, max_position_embeddings=16)
    found = load_resized(tmp_path, ours, new_ids=(40, 41, 42))
    before, after = np.asarray(source.embedding[...]), np.asarray(found["embedding"][...])
    np.testing.assert_array_equal(after[:40], before[:40])
    np.testing.assert_allclose(after[40:43], np.tile(before[:40].mean(axis=0), (3, 1)), atol=1e-7)
    assert not after[43:].any()
    before = np.asarray(source.positions.table[...])
    after = np.asarray(found["positions"]["table"][...])
    np.testing.assert_array_equal(after[:2], before[:2])
    np.testing.assert_allclose(after[2::2], before[2:], atol=1e-7)
    np.testing.assert_allclose(after[3:-1:2], (before[2:-1] + before[3:]) / 2, atol=1e-7)
    np.testing.assert_array_equal(
        found["layers"]["mlp"]["up"][...], nnx.state(source)["layers"]["mlp"]["up"][...]
    )
    wider = dataclasses.replace(ours, hidden_size=16)
    with pytest.raises(UserError, match=r"has hidden_size=8 and"):
        load_resized(tmp_path, wider, new_ids=(40,))
