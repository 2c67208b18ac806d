"""The patches architecture: codes that depend on their own patch, networks that begin as the identity, k-means."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.cluster.vq import kmeans2

from lvm_jax.errors import UserError
from lvm_jax.models import VQGAN, presets
from lvm_jax.models.tokenizer.kmeans import kmeans
from lvm_jax.models.tokenizer.patches import to_image, to_patches
from lvm_jax.weights import model_folder

TINY = {
    "resolution": 16,
    "channel_mult": (1, 1, 1),
    "hidden_channels": 8,
    "num_res_blocks": 2,
    "num_embeddings": 40,
    "z_channels": 48,
    "quantized_embed_dim": 48,
    "norm_groups": 1,
}


def fresh(**overrides) -> VQGAN:
    """As training begins: all corrections are zero."""
    return VQGAN(presets.vqgan("patches", **{**TINY, **overrides}), rngs=nnx.Rngs(0))


def trained(**overrides) -> VQGAN:
    """With random weights everywhere, so that corrections do something."""
    abstract = VQGAN.abstract(presets.vqgan("patches", **{**TINY, **overrides}))
    generator = np.random.default_rng(0)
    tensors = {
        name: generator.normal(name.endswith("scale"), 0.3, variable.shape)
        for name, variable in model_folder.named_parameters(abstract).items()
    }
    return model_folder.from_tensors(abstract, tensors, where="test")


def images(batch: int = 2, seed: int = 3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).random((batch, 16, 16, 3), np.float32))


encode, decode = nnx.jit(VQGAN.encode), nnx.jit(VQGAN.decode)
features = nnx.jit(VQGAN.encode_features)


def test_patches_are_squares_in_raster_order():
    picture = np.arange(4 * 4 * 3, dtype=np.float32).reshape(1, 4, 4, 3)
    patches = to_patches(jnp.asarray(picture), 2)
    np.testing.assert_array_equal(patches[0, 1, 0].reshape(2, 2, 3), picture[0, 2:, :2])
    np.testing.assert_array_equal(to_image(patches, 2), picture)


def test_before_training_a_code_decodes_to_its_own_patch():
    vqgan = fresh(encoder_blocks=2, encoder_reach=1)
    picture = images(1)
    patches = to_patches(2 * picture - 1, 4)
    np.testing.assert_allclose(features(vqgan, picture), patches, rtol=1e-6)
    vqgan.quantizer.codebook[...] = jnp.resize(patches.reshape(16, 48), (40, 48))
    np.testing.assert_allclose(decode(vqgan, encode(vqgan, picture)), picture, atol=1e-6)


@pytest.mark.parametrize(("blocks", "reach"), [(0, 0), (2, 0), (2, 1), (2, 2)])
def test_the_encoder_looks_exactly_as_far_as_it_says(blocks: int, reach: int):
    vqgan = trained(encoder_blocks=blocks, encoder_reach=reach)
    before = images(1)
    after = before.at[0, :4, :4].set(1 - before[0, :4, :4])  # the first cell
    changed = np.asarray(jnp.any(features(vqgan, before) != features(vqgan, after), -1))[0]
    rows, columns = np.indices((4, 4))
    np.testing.assert_array_equal(changed, np.maximum(rows, columns) <= reach)


def test_the_decoder_looks_around():
    vqgan = trained()
    ids = jnp.zeros((1, 16), jnp.int32)
    difference = decode(vqgan, ids.at[0, 0].set(9)) - decode(vqgan, ids)
    assert to_patches(difference, 4)[0, 1, 1].any()


def test_the_folder_keeps_its_shape_and_others_keep_their_fingerprint(tmp_path):
    vqgan = trained(encoder_blocks=1, encoder_reach=1)
    vqgan.save_pretrained(tmp_path)
    loaded = VQGAN.from_pretrained(tmp_path)
    assert loaded.config == vqgan.config
    assert loaded.fingerprint() == vqgan.fingerprint()
    np.testing.assert_array_equal(encode(loaded, images()), encode(vqgan, images()))

    other = tmp_path / "other"
    VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0)).save_pretrained(other)
    # Fields that only patches have would change the fingerprints of all published folders.
    assert "encoder_reach" not in json.loads((other / "config.json").read_text())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"z_channels": 8}, "48 values of a patch of 4 x 4"),
        ({"channel_mult": (1, 2, 1)}, "channel_mult=.1, 2, 1."),
        ({"encoder_reach": 1}, "encoder_reach=1"),
        ({"architecture": "taming", "encoder_blocks": 1}, "the taming architecture has neither"),
    ],
)
def test_a_shape_that_cannot_be(fields: dict, said: str):
    with pytest.raises(UserError, match=said):
        presets.vqgan("patches", **{**TINY, **fields})


def test_kmeans_is_as_good_as_scipys():
    generator = np.random.default_rng(0)
    scales = generator.uniform(0.2, 3, (20, 1))  # clusters of unequal size, that overlap
    centres = generator.normal(size=(20, 5)) * 3
    points = np.repeat(centres, 60, axis=0) + np.repeat(scales, 60, axis=0) * generator.normal(
        size=(1200, 5)
    )
    points = generator.permutation(points).astype(np.float32)

    def error(codes: np.ndarray) -> float:
        return float(np.square(points[:, None] - codes[None]).sum(-1).min(1).mean())

    found, errors = kmeans(jnp.asarray(points), 32, iterations=30, key=jax.random.key(0))
    theirs, _ = kmeans2(points, 32, iter=30, minit="++", seed=0)
    assert error(np.asarray(found)) < 1.05 * error(theirs)
    assert np.all(np.diff(errors) < 1e-3 * errors[0])
    assert errors[-1] == pytest.approx(error(np.asarray(found)), rel=1e-2)


def test_kmeans_needs_as_many_features_as_codes():
    with pytest.raises(UserError, match="3 features for 4 codes"):
        kmeans(jnp.zeros((3, 2)), 4, iterations=1, key=jax.random.key(0))
