"""The nearest-code search, its slicing, and what its gradient reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.models.tokenizer import quantizer
from lvm_jax.models.tokenizer.quantizer import VectorQuantizer


def make(codes: int = 24, dim: int = 4, **kwargs) -> VectorQuantizer:
    module = VectorQuantizer(codes, dim, rngs=nnx.Rngs(0), **kwargs)
    module.codebook[...] = np.random.default_rng(5).normal(size=(codes, dim)).astype(np.float32)
    return module


def features(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def brute_force(z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.argmin(np.sum((z[..., None, :] - codes) ** 2, axis=-1), axis=-1)


def test_ids_are_those_of_the_nearest_code_in_raster_order():
    module, z = make(), features(2, 3, 5, 4)
    expected = brute_force(np.asarray(z), np.asarray(module.codebook[...])).reshape(2, 15)
    ids = module.nearest(z)
    np.testing.assert_array_equal(ids, expected)
    assert ids.dtype == jnp.int32
    assert len(np.unique(expected)) > 5


@pytest.mark.parametrize("max_pairs", [1, 30, 100])
def test_slicing_the_codebook_changes_nothing(monkeypatch, max_pairs: int):
    module, z = make(), features(2, 3, 5, 4)
    whole = module.nearest(z)
    monkeypatch.setattr(quantizer, "MAX_PAIRS", max_pairs)
    np.testing.assert_array_equal(module.nearest(z), whole)


def test_lowest_id_wins_a_tie_also_across_slices(monkeypatch):
    module, z = make(), features(1, 2, 2, 4)
    module.codebook[...] = jnp.tile(jnp.ones((1, 4)), (24, 1))
    monkeypatch.setattr(quantizer, "MAX_PAIRS", 8)
    np.testing.assert_array_equal(module.nearest(z), np.zeros((1, 4)))


def test_features_that_are_not_numbers_still_get_ids_of_the_codebook():
    ids = make().nearest(features(1, 2, 2, 4) * jnp.nan)
    assert set(np.asarray(ids).ravel().tolist()) <= set(range(24))


def test_no_features_have_no_ids():
    assert make().nearest(features(0, 2, 2, 4)).shape == (0, 4)


def test_search_never_holds_more_pairs_than_allowed(monkeypatch):
    monkeypatch.setattr(quantizer, "MAX_PAIRS", 64)
    module = make()
    jaxpr = jax.make_jaxpr(lambda z: module.nearest(z))(features(1, 4, 4, 4))
    scan = next(e for e in jaxpr.eqns if e.primitive.name == "scan")
    sizes = [v.aval.size for e in scan.params["jaxpr"].eqns for v in e.outvars]
    assert max(sizes) <= 64


def test_normalised_codes_ignore_length():
    module, z = make(l2_normalize=True), features(1, 3, 3, 4)
    before = module.nearest(z)
    module.codebook[...] = module.codebook[...] * jnp.linspace(0.1, 9, 24)[:, None]
    np.testing.assert_array_equal(module.nearest(7 * z), before)
    np.testing.assert_allclose(jnp.linalg.norm(module.lookup(before), axis=-1), 1, rtol=1e-6)


def test_straight_through_gradient_is_the_identity_and_spares_the_codebook():
    module, z = make(), features(1, 2, 2, 4)
    weights = features(1, 2, 2, 4) + 3
    graphdef, params = nnx.split(module)

    def loss(z: jax.Array, params: nnx.State) -> jax.Array:
        return jnp.sum(weights * nnx.merge(graphdef, params)(z).straight_through_BhwD)

    to_z, to_params = jax.grad(loss, (0, 1))(z, params)
    np.testing.assert_allclose(to_z, weights, rtol=1e-6)
    assert not np.any(to_params["codebook"][...])


def test_codes_gradient_reaches_only_the_chosen_codes():
    module, z = make(), features(1, 2, 2, 4)
    graphdef, params = nnx.split(module)
    gradient = jax.grad(lambda p: jnp.sum(nnx.merge(graphdef, p)(z).codes_BhwD))(params)
    touched = np.flatnonzero(np.any(np.asarray(gradient["codebook"][...]), axis=-1))
    np.testing.assert_array_equal(touched, np.unique(module.nearest(z)))


def test_distances_are_fp32_whatever_the_features():
    module, z = make(), features(1, 2, 2, 4).astype(jnp.bfloat16)
    assert module.affinities(z.reshape(4, 4)).dtype == jnp.float32


@pytest.mark.parametrize("l2_normalize", [False, True])
def test_all_codes_learn_through_the_softmax_and_the_forward_pass_is_bit_exact(l2_normalize: bool):
    """The gradient is that of (onehot + p - sg(p)) @ C, written out; the value is the chosen codes'."""
    module, z = make(8, 4, l2_normalize=l2_normalize), features(6, 4)
    graphdef, params = nnx.split(module)
    weights = features(6, 4) + 3
    ids = module.nearest(z[None, None])[0]

    def ours(z: jax.Array, params: nnx.State) -> jax.Array:
        quantizer = nnx.merge(graphdef, params)
        codes = quantizer.all_codes(quantizer.lookup(ids), quantizer.affinities(z), temperature=0.5)
        return jnp.sum(weights * codes)

    def written_out(z: jax.Array, params: nnx.State) -> jax.Array:
        codes = params["codebook"][...]
        if l2_normalize:
            codes = codes / jnp.linalg.norm(codes, axis=-1, keepdims=True)
            z = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
        p = jax.nn.softmax(-jnp.sum((z[:, None] - codes[None]) ** 2, -1) / 0.5, axis=-1)
        onehot = jax.nn.one_hot(ids, 8)
        chosen = onehot @ codes + (p - jax.lax.stop_gradient(p)) @ jax.lax.stop_gradient(codes)
        return jnp.sum(weights * chosen)

    codes = module.all_codes(module.lookup(ids), module.affinities(z), temperature=0.5)
    np.testing.assert_array_equal(codes, module.lookup(ids))
    (to_z, to_params), (z_expected, expected) = (
        jax.grad(f, (0, 1))(z, params) for f in (ours, written_out)
    )
    np.testing.assert_allclose(to_z, z_expected, atol=1e-5)
    np.testing.assert_allclose(
        to_params["codebook"][...], expected["codebook"][...], rtol=1e-4, atol=1e-5
    )
    assert np.any(np.asarray(to_params["codebook"][...]), axis=-1).all()


def test_the_compiled_search_keeps_to_its_memory(monkeypatch):
    """4,096 tokens x 1,024 codes x 64 would be 1 GiB; all pairs 16 MiB; the slices that are allowed 1 MiB."""
    monkeypatch.setattr(quantizer, "MAX_PAIRS", 2**18)
    module = make(1024, 64)
    search = jax.jit(lambda codes, z: nearest_with(module, codes, z))
    spec = jax.ShapeDtypeStruct((1, 64, 64, 64), jnp.float32)
    codes = jax.ShapeDtypeStruct((1024, 64), jnp.float32)
    memory = search.lower(codes, spec).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 2**20


def nearest_with(module: VectorQuantizer, codes: jax.Array, z: jax.Array) -> jax.Array:
    graphdef, state = nnx.split(module)
    state["codebook"] = state["codebook"].replace(codes)
    return nnx.merge(graphdef, state).nearest(z)
