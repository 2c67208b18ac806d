"""Experts on eight simulated devices: one device's numbers, where parameters lie, and how often tokens travel."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.decoder.mlp import Tokens
from lvm_jax.models.decoder.moe import MixtureOfExperts
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import batch_sharding, state_shardings

B, T, D, F = 8, 16, 32, 64
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
ATTRIBUTES = np.tile(np.array([5] * 6 + [9] * 10, np.int32), (B, 1))
KEY = jax.random.key(0)
MESHES = {
    "expert": {"expert": 8},
    "mixed": {"fsdp": 2, "expert": 2, "tensor": 2},
    "data": {"data": 2, "expert": 4},
}
WAYS = {
    "capacity": {},
    "all_experts": {"dispatch": "all_experts"},
    "spans": {"router": "attribute", "dispatch": "spans", "spans": (6, 10)},
    "merged": {"router": "attribute", "dispatch": "spans", "spans": (6, 10), "mix": "weights"},
}


def config(**moe):
    return presets.gpt2(
        "debug",
        hidden_size=D,
        intermediate_size=F,
        initializer_range=0.3,
        mlps=("moe",),
        moe=MoEConfig(**moe),
    )


def parameters(**moe):
    return nnx.state(MixtureOfExperts(config(**moe), rngs=nnx.Rngs(0)), nnx.Param)


def loss_of(**moe):
    abstract = nnx.eval_shape(lambda: MixtureOfExperts(config(**moe), rngs=nnx.Rngs(0)))
    graphdef = nnx.graphdef(abstract)

    def loss(params, x, attributes):
        y, losses = nnx.merge(graphdef, params)(x, KEY, Tokens(attributes, None, True))
        return jnp.sum(jnp.square(y)) + losses["load_balance"], (y, losses)

    return loss


def on(mesh, **moe):
    """Parameters, inputs and attributes where the rules put them."""
    params = parameters(**moe)
    shardings = state_shardings(params, mesh)
    place = batch_sharding(mesh)
    x = jax.device_put(X, batch_sharding(mesh, 3))
    return jax.device_put(params, shardings), x, jax.device_put(ATTRIBUTES, place), shardings


@pytest.mark.parametrize("way", WAYS)
def test_a_mesh_gives_the_numbers_of_one_device(way):
    moe = WAYS[way]
    step = jax.value_and_grad(loss_of(**moe), has_aux=True)
    (_, (y, losses)), grads = jax.jit(step)(parameters(**moe), X, ATTRIBUTES)
    for sizes in MESHES.values():
        mesh = make_mesh(MeshConfig(**sizes))
        with jax.set_mesh(mesh):
            *placed, shardings = on(mesh, **moe)
            sharded = jax.jit(step, out_shardings=((None, None), shardings))
            (_, (z, others)), found = sharded(*placed)
        np.testing.assert_allclose(z, y, atol=2e-5 * np.abs(y).max())
        for name in losses:
            np.testing.assert_allclose(
                others[name], losses[name], rtol=1e-5, atol=1e-6, err_msg=name
            )
        for one, two in zip(jax.tree.leaves(grads), jax.tree.leaves(found), strict=True):
            assert np.linalg.norm(one - two) <= 1e-5 * np.linalg.norm(one)


def collectives(function, *arguments):
    """How often each collective occurs in the compiled program, and the bytes of all-to-alls."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    kinds = ("all-to-all", "all-gather", "all-reduce", "collective-permute", "reduce-scatter")
    counts = {kind: len(re.findall(rf" {kind}(?:-start)?\(", text)) for kind in kinds}
    return {kind: count for kind, count in counts.items() if count}


def test_tokens_travel_to_their_experts_and_back():
    """Two all-to-alls forward. The gradient by the parameters has a third, of what comes back from the outputs."""
    mesh = make_mesh(MeshConfig(expert=8))
    loss = loss_of()
    with jax.set_mesh(mesh):
        params, x, attributes, _ = on(mesh)
        forward = collectives(lambda *given: loss(*given)[1][0], params, x, attributes)
        backward = collectives(jax.grad(loss, has_aux=True), params, x, attributes)
    assert forward == {"all-to-all": 2}
    assert backward["all-to-all"] == 3
    assert "all-gather" not in backward


def test_experts_are_born_on_their_devices():
    mesh = make_mesh(MeshConfig(fsdp=2, expert=4))
    with jax.set_mesh(mesh):
        params = on(mesh)[0]
    specs = {path[-1]: v[...].sharding.spec for path, v in nnx.to_flat_state(params)}
    assert specs["up"] == P("expert", "fsdp")
    assert specs["down"] == P("expert", None, "fsdp")
    assert specs["up_bias"] == P("expert")


def test_what_does_not_fit_the_mesh_is_refused():
    mesh = make_mesh(MeshConfig(expert=8))
    with pytest.raises(UserError, match=r"experts=6 does not divide over mesh axes expert=8"):
        state_shardings(jax.eval_shape(lambda: parameters(experts=6)), mesh)
    split = make_mesh(MeshConfig(fsdp=2, context=4))
    layer = MixtureOfExperts(config(), rngs=nnx.Rngs(0))
    with jax.set_mesh(split), pytest.raises(UserError, match=r"set the mesh's context to 1"):
        jax.eval_shape(layer, X)
