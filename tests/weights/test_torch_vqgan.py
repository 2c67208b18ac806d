"""Parity with three published PyTorch tokenizers at full size, and the errors of state dicts that do not fit.

fixtures/NAME.json lists the tensors of the published network and the rule that makes their values from their names;
fixtures/NAME.npz holds what that network answered, in fp32, for an image made by the same rule.
"""

import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import VQGAN, presets
from lvm_jax.models.tokenizer import torch_vqgan
from lvm_jax.weights import model_folder

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
NAMES = ("lvm-f16-8192", "maskgit-f16-8192", "taming-f16-1024")


def description(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def state_dict(published: dict) -> dict[str, np.ndarray]:
    """The values that the fixture's rule gives each tensor."""
    tensors = {}
    for name, shape in published["tensors"].items():
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        x = generator.standard_normal(shape).astype(np.float32)
        if name == published["codebook"]:
            x *= np.float32(published["codebook_std"])
        elif len(shape) == 1:
            x = np.float32(0.1) * x + np.float32(name.endswith(".weight"))
        else:
            x /= np.float32(np.sqrt(np.prod(shape[1:])))
        tensors[name] = x
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_full_size_parity(name: str):
    published = description(name)
    with np.load(FIXTURES / f"{name}.npz") as answers:
        ids, margin, reconstruction = (answers[k] for k in ("ids", "margin", "reconstruction"))
    config = presets.vqgan(name, pixel_range="0_1")  # the fixture feeds the image as it is
    vqgan = torch_vqgan.from_state_dict(config, state_dict(published))
    image = np.random.default_rng(7).random((1, 3, 256, 256), np.float32).transpose(0, 2, 3, 1)

    np.testing.assert_array_equal(nnx.jit(VQGAN.encode)(vqgan, jnp.asarray(image)), ids)
    assert margin.min() > 1e-5  # no id hangs on rounding
    codes = vqgan.quantizer.lookup(jnp.asarray(ids)).reshape(1, 16, 16, -1)
    decoded = nnx.jit(VQGAN.decode_features)(vqgan, codes)
    np.testing.assert_allclose(decoded[:, ::4, ::4], reconstruction, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_the_published_ones(name: str):
    config = presets.vqgan(name)
    ours = model_folder.named_parameters(VQGAN.abstract(config))
    shapes = {
        torch_vqgan.torch_name(config, k): torch_vqgan.torch_shape(v.shape) for k, v in ours.items()
    }
    assert shapes == {k: tuple(v) for k, v in description(name)["tensors"].items()}


@pytest.mark.parametrize("architecture", ["taming", "maskgit"])
def test_state_dict_round_trip_is_bit_exact(architecture: str):
    config = presets.vqgan("debug", architecture=architecture, z_channels=4)
    generator = np.random.default_rng(0)
    shapes = {k: v.shape for k, v in model_folder.named_parameters(VQGAN.abstract(config)).items()}
    tensors = {
        torch_vqgan.torch_name(config, k): generator.random(torch_vqgan.torch_shape(s), np.float32)
        for k, s in shapes.items()
    }
    back = torch_vqgan.to_state_dict(torch_vqgan.from_state_dict(config, tensors))
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_misfits_are_named():
    config = presets.vqgan("debug")
    abstract = model_folder.named_parameters(VQGAN.abstract(config))
    tensors = {
        torch_vqgan.torch_name(config, k): np.zeros(torch_vqgan.torch_shape(v.shape), np.float32)
        for k, v in abstract.items()
    }
    tensors["loss.discriminator.weight"] = np.zeros(
        3
    )  # training checkpoints carry it: no part of the tokenizer
    torch_vqgan.from_state_dict(config, tensors)
    del tensors["encoder.conv_in.bias"]
    tensors["encoder.mid.attn_1.q.weight"] = np.zeros((8, 8, 1, 1))
    tensors["quantize.embedding.weight"] = np.zeros((64, 4))
    with pytest.raises(UserError) as caught:
        torch_vqgan.from_state_dict(config, tensors)
    message = str(caught.value)
    assert "missing: encoder.conv_in.bias" in message
    assert "encoder.mid.attn_1.q.weight" in message
    assert "quantize.embedding.weight (64, 4) instead of (32, 4)" in message


def test_open_muse_config():
    published = description("lvm-f16-8192")["config"]
    assert torch_vqgan.config_from_muse(published) == presets.vqgan("lvm-f16-8192")
    with pytest.raises(UserError, match=r"dropout is 0\.1"):
        torch_vqgan.config_from_muse({**published, "dropout": 0.1})
    with pytest.raises(UserError, match="num_codes"):
        torch_vqgan.config_from_muse({**published, "num_codes": 5})


def test_kernels_turn_from_oihw_to_hwio():
    """A kernel that only looks right and down must still do so: PyTorch's answer, written out."""
    config = presets.vqgan("debug")
    abstract = VQGAN.abstract(config)
    tensors = {
        torch_vqgan.torch_name(config, k): np.zeros(torch_vqgan.torch_shape(v.shape), np.float32)
        for k, v in model_folder.named_parameters(abstract).items()
    }
    tensors["encoder.conv_in.weight"][5, 1, 0, 2] = (
        1  # output 5 reads input 1, one row up, one column right
    )
    vqgan = torch_vqgan.from_state_dict(config, tensors)
    image = jnp.zeros((1, 16, 16, 3)).at[0, 6, 9, 1].set(1.0)
    response = jax.jit(vqgan.encoder.conv_in)(image)
    assert response[0, 7, 8, 5] == 1
    assert response.sum() == 1
