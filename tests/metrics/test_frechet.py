"""The Frechet distance against closed forms; its sums merge exactly."""

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.metrics.frechet import Gaussian, frechet_distance


def features(count: int = 500, dim: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def test_equal_sets_are_at_zero_and_a_shift_at_its_squared_length():
    x = features()
    a = Gaussian.of(x)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, Gaussian.of(x + np.float32(0.5))) == pytest.approx(
        6 * 0.25, rel=1e-5
    )


def test_commuting_covariances_have_a_closed_form():
    """For diagonal covariances the distance is the sum of (standard deviation a - standard deviation b)^2."""
    x = features(400, 3)
    x = np.concatenate([x, -x])
    q = np.linalg.qr(x - x.mean(0))[0] * np.sqrt(len(x) - 1)  # mean 0, covariance the identity
    scale = np.array([1.0, 2.0, 0.5])
    distance = frechet_distance(Gaussian.of(q), Gaussian.of(q * scale))
    assert distance == pytest.approx(np.sum((1 - scale) ** 2), rel=1e-6)


def test_parts_merge_into_the_whole():
    x = features(50)
    whole, merged = Gaussian.of(x), Gaussian.of(x[:17]).merge(Gaussian.of(x[17:]))
    for a, b in zip(whole.moments(), merged.moments()):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_few_images_have_no_full_rank_and_one_has_no_covariance():
    distance = frechet_distance(Gaussian.of(features(3, 8)), Gaussian.of(features(4, 8, seed=1)))
    assert np.isfinite(distance)
    assert distance > 0
    with pytest.raises(UserError, match="1 images have no covariance"):
        Gaussian.of(features(1)).moments()
