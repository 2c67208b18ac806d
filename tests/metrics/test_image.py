"""PSNR and SSIM agree with scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lvm_jax.errors import UserError
from lvm_jax.metrics.image import psnr, ssim


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 1, 24 * 20 * 3).reshape(1, 24, 20, 3)
    a = np.concatenate([smooth, rng.random((2, 24, 20, 3))]).astype(np.float32)
    noise = np.array([0.02, 0.1, 0.5]).reshape(3, 1, 1, 1)
    return a, np.clip(a + noise * rng.standard_normal(a.shape), 0, 1).astype(np.float32)


def test_psnr(pairs):
    expected = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(*pairs)]
    np.testing.assert_allclose(psnr(*map(jnp.asarray, pairs)), expected, rtol=1e-5)


def test_identical_images_have_100_db(pairs):
    assert np.asarray(psnr(pairs[0], pairs[0])).tolist() == [100.0] * 3


def test_ssim(pairs):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        structural_similarity(a, b, data_range=1.0, channel_axis=-1, **options)
        for a, b in zip(*[x.astype(np.float64) for x in pairs])
    ]
    np.testing.assert_allclose(ssim(*map(jnp.asarray, pairs)), expected, atol=1e-5)
    np.testing.assert_allclose(ssim(pairs[0], pairs[0]), 1, atol=1e-5)


def test_ssim_of_a_tiny_image_is_refused():
    with pytest.raises(UserError, match="8x20 are too small"):
        ssim(jnp.zeros((1, 8, 20, 3)), jnp.zeros((1, 8, 20, 3)))
