"""The decoder on eight simulated devices: same numbers as on one, parameters where the rules put them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.losses.next_token import cross_entropy, label_weights
from lvm_jax.models import Llama, presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import batch_sharding, state_shardings

CONFIG = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=64,
    intermediate_size=48,
    num_attention_heads=4,
    num_key_value_heads=2,
)
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]
# On the mesh (2, 2, 2), from the table of rules: embed over fsdp; heads, MLP and vocabulary over tensor.
SPECS = {
    "embedding": P("tensor", "fsdp"),
    "head": P("fsdp", "tensor"),
    "norm.scale": P(),
    "layers.attention_norm.scale": P(),
    "layers.attention.query": P(None, "fsdp", "tensor"),
    "layers.attention.key": P(None, "fsdp", "tensor"),
    "layers.attention.value": P(None, "fsdp", "tensor"),
    "layers.attention.out": P(None, "tensor", None, "fsdp"),
    "layers.mlp_norm.scale": P(),
    "layers.mlp.gate": P(None, "fsdp", "tensor"),
    "layers.mlp.up": P(None, "fsdp", "tensor"),
    "layers.mlp.down": P(None, "tensor", "fsdp"),
}


def _init() -> nnx.State:
    return nnx.state(Llama(CONFIG, rngs=nnx.Rngs(0)), nnx.Param)


def _loss(params: nnx.State, batch: dict[str, jax.Array]) -> jax.Array:
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Llama(CONFIG, rngs=nnx.Rngs(0))))
    tokens, segments, positions = batch["tokens"], batch["segment_ids"], batch["positions"]
    logits = nnx.merge(graphdef, params)(tokens[:, :-1], segments[:, :-1], positions[:, :-1])
    total, weight = cross_entropy(logits, tokens[:, 1:], label_weights(segments))
    return total / weight


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    segments = np.repeat([[1] * 9 + [2] * 8 + [0] * 4], 8, axis=0)
    positions = np.repeat([[*range(9), *range(8), *range(4)]], 8, axis=0)
    tokens = rng.integers(0, CONFIG.vocab_size, (8, 21))
    return {"tokens": tokens, "segment_ids": segments, "positions": positions}


@pytest.fixture(scope="module")
def one_device():
    params = jax.jit(_init)()
    return params, *jax.jit(jax.value_and_grad(_loss))(params, _batch())


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_loss_and_gradients_equal_those_of_one_device(one_device, sizes):
    params, loss, grads = one_device
    mesh = make_mesh(MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2]))
    with jax.set_mesh(mesh):
        shardings = state_shardings(jax.eval_shape(_init), mesh)
        sharded = jax.device_put(params, shardings)
        batch = {
            name: jax.device_put(rows, batch_sharding(mesh)) for name, rows in _batch().items()
        }
        step = jax.jit(jax.value_and_grad(_loss), out_shardings=(None, shardings))
        sharded_loss, sharded_grads = step(sharded, batch)
    np.testing.assert_allclose(sharded_loss, loss, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(sharded_grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_parameters_are_born_where_the_rules_put_them():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        params = jax.jit(_init, out_shardings=state_shardings(jax.eval_shape(_init), mesh))()
    specs = {
        ".".join(map(str, path)): v[...].sharding.spec for path, v in nnx.to_flat_state(params)
    }
    assert specs == SPECS
    query = params["layers"]["attention"]["query"][...]
    assert query.addressable_shards[0].data.shape == (2, 32, 2, 16)


def test_cached_decoding_on_a_mesh_equals_the_full_pass(one_device):
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Llama(CONFIG, rngs=nnx.Rngs(0))))
    tokens = _batch()["tokens"][:2, :6]
    full = jax.jit(lambda p, t: nnx.merge(graphdef, p)(t))(one_device[0], tokens)

    @jax.jit
    def decode(params: nnx.State, tokens: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, params)
        first, cache = model.extend(tokens[:, :4], model.init_cache(2, 6))
        second, cache = model.extend(tokens[:, 4:5], cache)
        return jnp.concatenate([first, second, model.extend(tokens[:, 5:], cache)[0]], axis=1)

    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(one_device[0], state_shardings(one_device[0], mesh))
        np.testing.assert_allclose(decode(sharded, tokens), full, atol=1e-5)


@pytest.mark.parametrize("context", [1, 2])
def test_a_sequence_split_over_devices_is_never_gathered_for_a_product(one_device, context):
    """The loss is right with the sequence split, and only the products of an unsplit one fold it into the batch."""
    params, loss, _ = one_device
    mesh = make_mesh(MeshConfig(data=2, fsdp=4 // context, context=context))
    with jax.set_mesh(mesh):
        program = str(jax.make_jaxpr(_loss)(params, _batch()))
        np.testing.assert_allclose(jax.jit(_loss)(params, _batch()), loss, rtol=1e-5)
    assert ("f32[160,64]" in program) == (context == 1)  # 8 rows of 20 tokens
