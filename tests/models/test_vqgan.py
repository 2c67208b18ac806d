"""Shapes, ranges, parameter counts, gradients, and the folder a tokenizer travels in."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_annotations import unchecked
from flax import nnx

from lvm_jax.analysis.flops import count_flops
from lvm_jax.errors import UserError
from lvm_jax.models import VQGAN, VQGANConfig, presets
from lvm_jax.weights import model_folder


def make(**overrides) -> VQGAN:
    """A debug-sized tokenizer: numpy draws its weights, which compiles nothing."""
    abstract = VQGAN.abstract(presets.vqgan("debug", **overrides))
    generator = np.random.default_rng(0)
    tensors = {
        name: generator.normal(name.endswith("scale"), 0.2, variable.shape)
        for name, variable in model_folder.named_parameters(abstract).items()
    }
    return model_folder.from_tensors(abstract, tensors, where="test")


def images(batch: int = 2, side: int = 16) -> jax.Array:
    return jnp.asarray(np.random.default_rng(3).random((batch, side, side, 3), np.float32))


# One program each, instead of one for every operation.
encode, decode = nnx.jit(VQGAN.encode), nnx.jit(VQGAN.decode)
encode_features, decode_features = nnx.jit(VQGAN.encode_features), nnx.jit(VQGAN.decode_features)


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("lvm-f16-8192", 277, 146_244_675),
        ("maskgit-f16-8192", 168, 64_349_219),
        ("taming-f16-1024", 343, 72_141_699),
    ],
)
def test_published_sizes(name: str, tensors: int, parameters: int):
    config = presets.vqgan(name)
    named = model_folder.named_parameters(VQGAN.abstract(config))
    assert len(named) == tensors
    assert sum(math.prod(variable.shape) for variable in named.values()) == parameters
    assert (config.downsampling, config.tokens_per_image) == (16, 256)


def test_published_cost_of_the_released_tokenizer():
    abstract = VQGAN.abstract(presets.vqgan("lvm-f16-8192"))
    graphdef, state = nnx.split(abstract)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    codes = jax.ShapeDtypeStruct((1, 16, 16, 64), jnp.float32)
    encode = count_flops(lambda s, x: nnx.merge(graphdef, s).encode_features(x), state, image)
    decode = count_flops(lambda s, x: nnx.merge(graphdef, s).decode_features(x), state, codes)
    assert encode / 2e9 == pytest.approx(108.2, abs=0.1)  # GMAC
    # After a doubling to side 2s, 4 x 4 products at each of (s+1)^2 windows are enough for 9 at each of (2s)^2 pixels.
    doublings = [(768, 16), (512, 32), (256, 64), (256, 128)]
    saved = sum(width**2 * (9 * (2 * s) ** 2 - 16 * (s + 1) ** 2) for width, s in doublings)
    assert (decode / 2 + saved) / 1e9 == pytest.approx(238.7, abs=0.1)


@pytest.mark.parametrize("architecture", ["taming", "maskgit"])
@pytest.mark.parametrize("pixel_range", ["0_1", "-1_1"])
def test_encode_and_decode_surfaces(architecture: str, pixel_range: str):
    vqgan = make(architecture=architecture, pixel_range=pixel_range, z_channels=4)
    ids = encode(vqgan, images())
    assert ids.shape == (2, vqgan.tokens_per_image) == (2, 64)
    assert ids.dtype == jnp.int32
    assert 0 <= ids.min() <= ids.max() < vqgan.codebook_size == 32
    decoded = decode(vqgan, ids)
    assert decoded.shape == (2, 16, 16, 3)
    assert decoded.dtype == jnp.float32
    assert 0 <= decoded.min() <= decoded.max() <= 1


def test_decode_clamps():
    vqgan = make()
    vqgan.decoder.conv_out.bias[...] = jnp.array([-90.0, 0.5, 90.0])
    decoded = decode(vqgan, jnp.zeros((1, 64), jnp.int32))
    assert not decoded[..., 0].any()
    assert (decoded[..., 2] == 1).all()


@pytest.mark.parametrize(("row", "column"), [(1, 6), (6, 1)])
def test_ids_are_in_raster_order(row: int, column: int):
    """Changing the code of a row and column changes the image mostly there; codes find their own ids."""
    vqgan = make()
    before = jnp.zeros((1, 64), jnp.int32)
    after = before.at[0, row * 8 + column].set(9)
    difference = jnp.abs(decode(vqgan, after) - decode(vqgan, before))[0].sum(-1)
    place = jnp.arange(16) / difference.sum()
    assert jnp.sign(difference.sum(0) @ place - difference.sum(1) @ place) == np.sign(column - row)

    ids = jnp.arange(64)[None] % 32
    codes = vqgan.quantizer.lookup(ids).reshape(1, 8, 8, 4)
    np.testing.assert_array_equal(vqgan.quantizer.nearest(codes), ids)


def test_gradient_reaches_the_encoder_through_the_codes():
    vqgan = make()
    graphdef, params = nnx.split(vqgan)

    def loss(params: nnx.State) -> jax.Array:
        model = nnx.merge(graphdef, params)
        quantized = model.quantize(model.encode_features(images()))
        return jnp.mean(jnp.abs(model.decode_features(quantized.straight_through_BhwD) - images()))

    gradients = jax.jit(jax.grad(loss))(params)
    assert jnp.abs(gradients["encoder"]["conv_in"]["kernel"][...]).max() > 0
    assert not gradients["quantizer"]["codebook"][...].any()


def test_bf16_computes_in_bf16_and_keeps_fp32_parameters():
    vqgan = make(dtype="bfloat16")
    assert {v.dtype for v in model_folder.named_parameters(vqgan).values()} == {
        jnp.dtype("float32")
    }
    exact, close = encode_features(make(), images()), encode_features(vqgan, images())
    assert close.dtype == jnp.float32
    assert 0 < jnp.abs(exact - close).max() < 0.1 * jnp.abs(exact).max()


def test_every_parameter_names_its_logical_axes():
    abstract = VQGAN.abstract(presets.vqgan("taming-f16-1024"))
    for name, variable in model_folder.named_parameters(abstract).items():
        assert len(variable.get_metadata()["axes"]) == len(variable.shape), name


def test_folder_round_trip_is_bit_exact(tmp_path):
    vqgan = make()
    vqgan.save_pretrained(tmp_path / "model")
    loaded = VQGAN.from_pretrained(tmp_path / "model")
    assert loaded.config == vqgan.config
    for name, tensor in model_folder.to_tensors(vqgan).items():
        np.testing.assert_array_equal(model_folder.to_tensors(loaded)[name], tensor)
    np.testing.assert_array_equal(encode(loaded, images()), encode(vqgan, images()))
    assert loaded.fingerprint() == vqgan.fingerprint()
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert VQGAN.from_pretrained(tmp_path / "model", dtype="bfloat16").config.dtype == "bfloat16"


def test_fingerprint_follows_weights_and_config_but_not_the_compute_dtype():
    vqgan = make()
    first = vqgan.fingerprint()
    assert len(first) == 16
    assert make(dtype="bfloat16").fingerprint() == first
    assert make(pixel_range="-1_1").fingerprint() != first
    codebook = vqgan.quantizer.codebook
    codebook[...] = codebook[...].at[3, 1].add(1e-6)
    assert vqgan.fingerprint() != first


def test_a_folder_that_does_not_fit_is_named(tmp_path):
    vqgan = make()
    vqgan.save_pretrained(tmp_path)
    tensors = model_folder.read_tensors(tmp_path)
    kernel = tensors.pop("encoder.conv_in.kernel")
    tensors["encoder.conv_in.bias"] = np.zeros(3, np.float32)
    model_folder.save_folder(
        tmp_path, model_folder.read_config(tmp_path), {**tensors, "more": kernel}
    )
    with pytest.raises(UserError) as caught:
        VQGAN.from_pretrained(tmp_path)
    for part in (
        "missing: encoder.conv_in.kernel",
        "more",
        "encoder.conv_in.bias (3,) instead of (8,)",
    ):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"config\.json"):
        VQGAN.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(UserError, match="damaged"):
        VQGAN.from_pretrained(tmp_path)


def test_a_failed_save_leaves_the_old_folder_whole(tmp_path, monkeypatch):
    vqgan = make()
    vqgan.save_pretrained(tmp_path)

    def fail(tensors: dict, path: str, **kwargs) -> None:
        del tensors, kwargs
        with open(path, "wb") as file:
            file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(model_folder, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        make(num_embeddings=16).save_pretrained(tmp_path)
    assert VQGAN.from_pretrained(tmp_path).fingerprint() == vqgan.fingerprint()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_calls_the_architecture_layout_and_keeps_its_fingerprint(tmp_path):
    """Folders written before the field was renamed must load, and shards made with them must still fit."""
    vqgan = make(architecture="maskgit", z_channels=4)
    vqgan.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["layout"] == "maskgit"
    assert "architecture" not in fields
    assert VQGAN.from_pretrained(tmp_path).config == vqgan.config
    released = pathlib.Path(__file__).parents[2] / "release/lvm"
    trained_with = json.loads((released / "decoder" / "config.json").read_text())
    fingerprint = VQGAN.from_pretrained(released / "tokenizer").fingerprint()
    assert fingerprint == trained_with["tokenizer_fingerprint"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"resolution": 17}, "multiple of 2"),
        ({"norm_groups": 3}, "3 groups"),
        ({"architecture": "maskgit"}, "z_channels 8"),
        ({"norm_groups": 0}, "norm_groups=0: it must be at least 1"),
        ({"num_res_blocks": 0}, "num_res_blocks=0: it must be at least 1"),
        ({"channel_mult": ()}, r"channel_mult=\(\): give each"),
        ({"channel_mult": (1, 0)}, r"channel_mult=\(1, 0\): give each"),
    ],
)
def test_impossible_configs_are_refused(kwargs: dict, message: str):
    with pytest.raises(UserError, match=message):
        presets.vqgan("debug", **kwargs)


def test_wrong_images_and_ids_are_refused():
    vqgan = make()
    with pytest.raises(UserError, match="resize"):
        vqgan.encode(images(side=32))
    with pytest.raises(UserError, match="divide by 255"), unchecked():
        vqgan.encode(jnp.zeros((1, 16, 16, 3), jnp.uint8))
    with pytest.raises(UserError, match="64"):
        vqgan.decode(jnp.zeros((1, 63), jnp.int32))


def test_preset_mistakes_are_named():
    with pytest.raises(UserError, match="lvm-f16-8192"):
        presets.vqgan("lvm")
    with pytest.raises(UserError, match="'chanels'"):
        presets.vqgan("debug", chanels=3)
    assert VQGANConfig() == presets.vqgan("taming-f16-1024", pixel_range="0_1")
