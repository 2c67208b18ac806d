"""Vision towers on eight simulated devices: the numbers of one, sharded parameters, slices read from files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.models import ClipVision, VitDet, presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import batch_sharding, state_shardings

MESHES = {
    "hsdp_tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "context": {"fsdp": 4, "context": 2},
}
TOWERS = {
    # 64 channels, so that kernels are split too.
    "vitdet": (VitDet, presets.vitdet("debug", output_channels=64, merge_channels=(64, 64))),
    "clip": (ClipVision, presets.clip("debug")),
}
SPECS = {
    "positions": P(None, None, "fsdp"),
    "layers.places.0.attention.inner.query.kernel": P(None, "fsdp", "tensor"),
    "layers.places.0.attention.inner.query.bias": P(None, "tensor"),
    "layers.places.0.attention.inner.out.kernel": P(None, "tensor", None, "fsdp"),
    "layers.places.1.attention.positions.rows": P(),
    "layers.places.1.mlp.down.kernel": P(None, "tensor", "fsdp"),
    "neck.conv2.kernel": P(None, None, None, "fsdp"),
    "merge.convs.1.kernel": P(None, None, None, "fsdp"),
}


def _state(cls, config):
    return nnx.state(cls(config, rngs=nnx.Rngs(0)), nnx.Param)


def _loss(cls, config):
    graphdef = nnx.graphdef(cls.abstract(config))

    def loss(params, images):
        tokens = nnx.merge(graphdef, params)(images)
        return jnp.mean(jnp.sin(tokens))

    return jax.value_and_grad(loss)


@pytest.fixture(scope="module", params=TOWERS)
def one_device(request):
    cls, config = TOWERS[request.param]
    params = jax.jit(lambda: _state(cls, config))()
    images = np.random.default_rng(0).normal(size=(8, *config.image_size, 3)).astype("f4")
    return cls, config, params, images, *jax.jit(_loss(cls, config))(params, images)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gives_the_numbers_of_one_device(one_device, mesh):
    cls, config, params, images, loss, grads = one_device
    mesh = make_mesh(MeshConfig(**MESHES[mesh]))
    with jax.set_mesh(mesh):
        shardings = state_shardings(jax.eval_shape(lambda: _state(cls, config)), mesh)
        sharded = jax.device_put(params, shardings)
        step = jax.jit(_loss(cls, config), out_shardings=(None, shardings))
        images = jax.device_put(images, batch_sharding(mesh, 4))
        sharded_loss, sharded_grads = step(sharded, images)
    np.testing.assert_allclose(sharded_loss, loss, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(sharded_grads), jax.tree.leaves(grads), strict=True):
        # Softmax does not see what is added to all keys: the gradient of their bias is rounding.
        assert np.linalg.norm(ours - theirs) <= max(1e-5 * np.linalg.norm(theirs), 1e-8)


def test_slices_are_read_to_where_the_rules_put_them(one_device, tmp_path):
    cls, config, params, *_ = one_device
    model = nnx.merge(nnx.graphdef(cls.abstract(config)), params)
    model.save_pretrained(tmp_path)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        loaded = cls.from_pretrained(tmp_path)
    specs = {}
    for (path, one), (_, other) in zip(
        nnx.to_flat_state(params), nnx.to_flat_state(nnx.state(loaded)), strict=True
    ):
        np.testing.assert_array_equal(one[...], other[...], err_msg=str(path))
        specs[".".join(map(str, path))] = other[...].sharding.spec
    if cls is VitDet:
        assert {name: specs[name] for name in SPECS} == SPECS


def _constraints(jaxpr):
    """The specs of all constraints in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "sharding_constraint":
            yield equation.params["sharding"].spec
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _constraints(inner)


def test_a_split_context_leaves_images_whole():
    """A tower's tokens are no sequence of the decoder: these 12 could be split two ways."""
    cls, config = TOWERS["clip"]
    config = dataclasses.replace(config, image_size=(8, 88))
    graphdef, params = nnx.split(cls.abstract(config))
    images = jax.ShapeDtypeStruct((8, 8, 88, 3), jnp.float32)
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=4, context=2))):
        program = jax.make_jaxpr(lambda p, x: nnx.merge(graphdef, p)(x))(params, images)
    specs = list(_constraints(program.jaxpr))
    assert P("fsdp") in specs
    assert not any("context" in spec for spec in specs)
