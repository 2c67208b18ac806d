"""Wide convolutions of images that are split over devices."""

import jax
import jax.numpy as jnp

from lvm_jax.models.tokenizer.convolution import WIDE, convolve
from lvm_jax.parallel.mesh import make_mesh


def test_split_images_are_not_summed_band_by_band():
    x, kernel = jnp.ones((8, 4, 4, WIDE)), jnp.ones((3, 3, WIDE, 2))
    gradient = jax.grad(lambda k: jnp.sum(convolve(x, k, padding=((1, 1), (1, 1)))))
    assert "scan" in str(jax.make_jaxpr(gradient)(kernel))
    with jax.set_mesh(make_mesh()):
        assert "scan" not in str(jax.make_jaxpr(gradient)(kernel))
