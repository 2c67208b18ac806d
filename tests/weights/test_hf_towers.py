"""Published towers give what transformers gives, gradients too; fixtures are made by make_hf_towers.py."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from lvm_jax.errors import UserError
from lvm_jax.models import ClipVision, Projector, VitDet

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
GIVEN = ("config", "images", "result", "weights", "features", "pooled")
PROJECTOR = "multi_modal_projector.multimodal_projector."


class Fixture:
    """What transformers saved and computed."""

    def __init__(self, name: str):
        with np.load(FIXTURES / f"hf_{name}.npz") as data:
            arrays = dict(data)
        self.config = str(arrays["config"])
        self.given = {name: arrays[name] for name in GIVEN[1:] if name in arrays}
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
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(self.config)
        save_file(self.tensors if tensors is None else tensors, path / "model.safetensors")
        return path


def as_segment_anything(tensors: dict) -> dict:
    """The names of SAM's and Vary's authors."""
    renamed = {}
    for name, array in tensors.items():
        name = name.replace("vision_encoder.", "").replace(
            "patch_embed.projection", "patch_embed.proj"
        )
        name = re.sub(r"^layers\.(\d+)\.layer_norm", r"blocks.\1.norm", name)
        name = name.replace("layers.", "blocks.", 1) if name.startswith("layers.") else name
        for theirs, number in (("conv1", 0), ("layer_norm1", 1), ("conv2", 2), ("layer_norm2", 3)):
            name = name.replace(f"neck.{theirs}.", f"neck.{number}.")
        renamed[f"image_encoder.{name}"] = array
    return renamed


def value_and_gradients(model, given):
    """The result, and the gradients of sum(result * weights) to all parameters."""
    graphdef, params = nnx.split(model)

    def loss(params):
        result = nnx.merge(graphdef, params)(jnp.asarray(given["images"]))
        return jnp.sum(result * given["weights"]), result

    (_, result), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return result, gradients


def assert_equal_states(ours, theirs, but=()):
    for (path, one), (_, other) in zip(
        nnx.to_flat_state(ours), nnx.to_flat_state(nnx.state(theirs)), strict=True
    ):
        name = ".".join(map(str, path))
        if name.startswith(tuple(but)):
            continue
        one, other = np.asarray(one[...]), np.asarray(other[...])
        # Softmax does not see what is added to all keys: the gradient of their bias is rounding.
        bound = 1e-5 * max(np.linalg.norm(other), 1.0)
        assert np.linalg.norm(one - other) <= bound, name


@pytest.fixture(scope="module")
def sam():
    return Fixture("sam_vision")


@pytest.fixture(scope="module")
def got():
    return Fixture("got_ocr2")


@pytest.fixture(scope="module")
def clip():
    return Fixture("clip_vision")


def test_sam_and_two_convolutions_by_the_authors_names(sam, tmp_path):
    """One file without config.json, and more in it than the tower."""
    tensors = as_segment_anything(sam.tensors) | {"mask_decoder.x.weight": np.ones((2, 2), "f4")}
    save_file(tensors, tmp_path / "sam.safetensors")
    save_file(as_segment_anything(sam.gradients), tmp_path / "gradients.safetensors")
    model = VitDet.from_pretrained(tmp_path / "sam.safetensors")
    assert (model.config.window_size, model.config.global_attn_indexes) == (4, (1, 3))
    assert (model.config.num_attention_heads, model.config.merge_channels) == (2, (16, 20))
    result, gradients = value_and_gradients(model, sam.given)
    np.testing.assert_allclose(result, sam.given["result"], atol=1e-5)
    features = nnx.jit(lambda model, x: model.features(x))(model, jnp.asarray(sam.given["images"]))
    np.testing.assert_allclose(features, sam.given["features"], atol=1e-5)
    assert_equal_states(gradients, VitDet.from_pretrained(tmp_path / "gradients.safetensors"))


class _TowerAndProjector(nnx.Module):
    def __init__(self, tower, projector):
        self.tower, self.projector = tower, projector

    def __call__(self, images):
        return self.projector(self.tower(images))


def test_got_ocr2s_tower_and_projector(got, tmp_path):
    folder = got.folder(tmp_path / "model")
    # In memory transformers' names begin with "model.".
    gradients = got.folder(tmp_path / "gradients", got.gradients)
    model = _TowerAndProjector(
        VitDet.from_pretrained(folder), Projector.from_pretrained(folder, prefix=PROJECTOR)
    )
    result, ours = value_and_gradients(model, got.given)
    np.testing.assert_allclose(result, got.given["result"], atol=1e-5)
    theirs = _TowerAndProjector(
        VitDet.from_pretrained(gradients),
        Projector.from_pretrained(gradients, prefix=f"model.{PROJECTOR}"),
    )
    assert_equal_states(ours, theirs)


@pytest.mark.parametrize("prefix", ["", "vision_model.", "vision_tower.vision_model."])
def test_clip_with_any_prefix(clip, tmp_path, prefix):
    beside = {"logit_scale": np.ones((), "f4")} if prefix else {}
    tensors = {prefix + name: array for name, array in clip.tensors.items()} | beside
    tensors[f"{prefix}embeddings.position_ids"] = np.arange(10)[None]
    config = json.loads(clip.config)
    if prefix:
        config = {"model_type": "clip", "vision_config": config, "text_config": {}}
    folder = clip.folder(tmp_path / "model", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    model = ClipVision.from_pretrained(folder)
    if prefix:
        result = nnx.jit(lambda model, x: model(x))(model, jnp.asarray(clip.given["images"]))
        np.testing.assert_allclose(result, clip.given["result"], atol=1e-5)
        return
    result, gradients = value_and_gradients(model, clip.given)
    np.testing.assert_allclose(result, clip.given["result"], atol=1e-5)
    # The last block and the last norm are not on the way to these tokens.
    zeros = {name: np.zeros_like(array) for name, array in clip.tensors.items()}
    theirs = clip.folder(tmp_path / "gradients", zeros | clip.gradients)
    assert_equal_states(gradients, ClipVision.from_pretrained(theirs))
    pooled = nnx.jit(lambda model, x: model.pooled(x))(model, jnp.asarray(clip.given["images"]))
    np.testing.assert_allclose(pooled, clip.given["pooled"], atol=1e-5)


def test_sam_without_convolutions_gets_new_ones_only_if_asked(sam, tmp_path):
    tensors = {name: array for name, array in sam.tensors.items() if "net_" not in name}
    folder = sam.folder(tmp_path, tensors)
    with pytest.raises(UserError, match=r"missing: .*conv_upsampler1.weight.*; pass rngs=nnx.Rngs"):
        VitDet.from_pretrained(folder)
    model = VitDet.from_pretrained(folder, rngs=nnx.Rngs(3), dtype="bfloat16")
    assert model.config.dtype == "bfloat16"
    assert model.merge.convs[1].kernel.shape == (3, 3, 16, 32)
    assert 0.01 < float(jnp.std(model.merge.convs[0].kernel[...])) < 1
    other = VitDet.from_pretrained(folder, rngs=nnx.Rngs(4))
    assert not jnp.allclose(other.merge.convs[0].kernel[...], model.merge.convs[0].kernel[...])


def test_tensors_that_do_not_fit_are_named(sam, clip, tmp_path):
    tensors = as_segment_anything(sam.tensors)
    wrong = tensors | {"image_encoder.blocks.9.x": np.ones(3, "f4")}
    del wrong["image_encoder.neck.1.bias"]
    wrong["image_encoder.neck.3.bias"] = np.ones(5, "f4")
    save_file(wrong, tmp_path / "sam.safetensors")
    with pytest.raises(
        UserError,
        match=r"missing: image_encoder.neck.1.bias; .*not part of the model: image_encoder.blocks.9.x; "
        r"misshapen: image_encoder.neck.3.bias \(5,\) instead of \(8,\)",
    ):
        VitDet.from_pretrained(tmp_path / "sam.safetensors")
    save_file({"other.weight": np.ones(3, "f4")}, tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="holds no ViTDet tower"):
        VitDet.from_pretrained(tmp_path / "none.safetensors")
    two = tensors | {f"second.{name}": array for name, array in tensors.items()}
    save_file(two, tmp_path / "two.safetensors")
    with pytest.raises(
        UserError, match=r"holds 2 towers, 'image_encoder.', 'second.image_encoder.'"
    ):
        VitDet.from_pretrained(tmp_path / "two.safetensors")
    cut = {name: array for name, array in clip.tensors.items() if "layers.2.mlp.fc1" not in name}
    folder = clip.folder(tmp_path / "clip", cut)
    with pytest.raises(UserError, match=r"missing: encoder.layers.2.mlp.fc1.weight"):
        ClipVision.from_pretrained(folder)
    # Vary's config.json says nothing of the tower.
    (folder / "config.json").write_text('{"model_type": "vary"}')
    for missing in ("layers.0.mlp.fc1.weight", "position_embedding.weight"):
        cut = {name: array for name, array in clip.tensors.items() if missing not in name}
        save_file(cut, folder / "model.safetensors")
        with pytest.raises(UserError, match=f"is no whole CLIP tower .*{missing}"):
            ClipVision.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, r"hidden_act='relu': only 'gelu' is supported"),
        ({"use_rel_pos": False}, r"use_rel_pos=False: only True is supported"),
        ({"hidden_size": "16"}, r"hidden_size is '16' \(str\): it must be of type int"),
        ({"window_size": 0}, r"window_size=0: it must be at least 1"),
        ({"rope": 1}, r"rope=1, a setting that the tower does not know"),
        ({"patch_size": [8, 4]}, r"patch_size=\(8, 4\): patches must be square"),
        ({"model_type": "sam", "vision_config": [1]}, r"settings \[1\] of the tower: they must be"),
    ],
)
def test_settings_that_would_change_the_result_are_refused(sam, tmp_path, change, message):
    folder = sam.folder(tmp_path)
    (folder / "config.json").write_text(json.dumps(json.loads(sam.config) | change))
    with pytest.raises(UserError, match=message):
        VitDet.from_pretrained(folder, rngs=nnx.Rngs(0))


def test_only_how_to_compute_can_be_changed_on_loading(clip, tmp_path):
    folder = clip.folder(tmp_path)
    with pytest.raises(UserError, match=r"'image_size' cannot be changed on loading: only dtype"):
        ClipVision.from_pretrained(folder, image_size=(8, 8))
    model = ClipVision.from_pretrained(folder, remat="none", scan_layers=False)
    assert (model.config.remat, model.config.scan_layers) == ("none", False)
