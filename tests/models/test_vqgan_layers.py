"""Layers that compute in another way than they are defined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.models import presets
from lvm_jax.models.tokenizer.vqgan_layers import Upsample


def defined(upsample: Upsample, x: jax.Array) -> jax.Array:
    """The published way: the doubled array, then the convolution."""
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return upsample.conv(doubled)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1, 1, 3)])
def test_upsampling_is_the_convolution_of_the_doubled_image(shape: tuple[int, ...]):
    upsample = Upsample(shape[-1], presets.vqgan("debug"), rngs=nnx.Rngs(0))
    generator = np.random.default_rng(0)
    upsample.conv.bias = nnx.Param(jnp.asarray(generator.normal(size=shape[-1:]), jnp.float32))
    x, weights = (jnp.asarray(generator.normal(size=s), jnp.float32) for s in (shape, (2, 2)))
    # Each of the four pixels counts otherwise.
    weights = jnp.tile(weights, (shape[1], shape[2]))[None, :, :, None]
    graphdef, params = nnx.split(upsample)

    @jax.jit
    def both(params, x):
        def loss(run, params, x):
            y = run(nnx.merge(graphdef, params), x)
            return jnp.sum(jnp.sin(y) * weights), y

        return [
            jax.value_and_grad(lambda p, x, run=run: loss(run, p, x), (0, 1), has_aux=True)(
                params, x
            )
            for run in (Upsample.__call__, defined)
        ]

    ours, published = both(params, x)
    assert ours[0][1].shape == (shape[0], 2 * shape[1], 2 * shape[2], shape[3])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, published)
