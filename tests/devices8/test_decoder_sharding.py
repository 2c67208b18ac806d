"""OPT, GPT-2 and a period of blocks that differ on eight simulated devices: same numbers, sharded parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.errors import UserError
from lvm_jax.models import Decoder, presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import batch_sharding, state_shardings
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.ahead_of_time import lower_step
from lvm_jax.training.loop import TrainConfig

SMALL = {
    "vocab_size": 140,
    "hidden_size": 64,
    "intermediate_size": 48,
    "max_position_embeddings": 30,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
CONFIGS = {
    "opt": presets.opt("debug", **SMALL),
    "gpt2": presets.gpt2("debug", **SMALL),
    "period": presets.llama(
        "debug", vocab_size=140, hidden_size=64, intermediate_size=48, mlps=("swiglu", "gelu_tanh")
    ),
}
MESHES = {
    "fsdp": {"fsdp": 8},
    "hsdp_tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "context": {"fsdp": 2, "context": 4},
}
TOKENS = np.random.default_rng(0).integers(0, 140, (8, 20))
# Of OPT's parameters on the mesh (2, 2, 2), those that LLaMA does not have.
SPECS = {
    "positions.table": P(None, "fsdp"),
    "norm.bias": P(),
    "layers.attention_norm.bias": P(),
    "layers.attention.query_bias": P(None, "tensor"),
    "layers.attention.out_bias": P(),
    "layers.mlp.up": P(None, "fsdp", "tensor"),
    "layers.mlp.up_bias": P(None, "tensor"),
    "layers.mlp.down_bias": P(),
}


def _init(config):
    return nnx.state(Decoder(config, rngs=nnx.Rngs(0)), nnx.Param)


def _loss(config):
    graphdef = nnx.graphdef(Decoder.abstract(config))

    def loss(params, tokens):
        log_probs = jax.nn.log_softmax(nnx.merge(graphdef, params)(tokens))
        return -log_probs[:, :-1].mean()

    return jax.value_and_grad(loss)


@pytest.fixture(scope="module", params=CONFIGS)
def one_device(request):
    config = CONFIGS[request.param]
    params = jax.jit(lambda: _init(config))()
    return config, params, *jax.jit(_loss(config))(params, TOKENS)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gives_the_numbers_of_one_device(one_device, mesh):
    config, params, loss, grads = one_device
    mesh = make_mesh(MeshConfig(**MESHES[mesh]))
    with jax.set_mesh(mesh):
        shardings = state_shardings(jax.eval_shape(lambda: _init(config)), mesh)
        sharded = jax.device_put(params, shardings)
        tokens = jax.device_put(TOKENS, batch_sharding(mesh))
        step = jax.jit(_loss(config), out_shardings=(None, shardings))
        sharded_loss, sharded_grads = step(sharded, tokens)
    np.testing.assert_allclose(sharded_loss, loss, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(sharded_grads), jax.tree.leaves(grads), strict=True):
        # Softmax does not see what is added to all keys: without rotations the gradient of their bias is rounding.
        assert np.linalg.norm(ours - theirs) <= max(1e-5 * np.linalg.norm(theirs), 1e-10)


def test_cached_decoding_on_a_mesh_equals_the_full_pass(one_device):
    config, params, *_ = one_device
    graphdef, tokens = nnx.graphdef(Decoder.abstract(config)), TOKENS[:2, :6]
    full = jax.jit(lambda p, t: nnx.merge(graphdef, p)(t))(params, tokens)

    @jax.jit
    def decode(params, tokens):
        model = nnx.merge(graphdef, params)
        first, cache = model.extend(tokens[:, :4], model.init_cache(2, 6))
        return jnp.concatenate([first, model.extend(tokens[:, 4:], cache)[0]], axis=1)

    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, state_shardings(params, mesh))
        np.testing.assert_allclose(decode(sharded, tokens), full, atol=1e-5)


def test_parameters_are_born_where_the_rules_put_them():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(lambda: _init(CONFIGS["opt"]))
        params = jax.jit(
            lambda: _init(CONFIGS["opt"]), out_shardings=state_shardings(shapes, mesh)
        )()
    specs = {
        ".".join(map(str, path)): v[...].sharding.spec for path, v in nnx.to_flat_state(params)
    }
    assert {name: specs[name] for name in SPECS} == SPECS
    assert params["positions"]["table"][...].addressable_shards[0].data.shape == (32, 32)


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_only_the_slices_of_each_device_are_read(name, tmp_path):
    """GPT-2's queries, keys and values are pieces of one tensor: a device reads its heads of each."""
    model = nnx.jit(lambda: Decoder(CONFIGS[name], rngs=nnx.Rngs(0)))()
    attention = model.layers.attention
    for i, bias in enumerate((attention.query_bias, attention.key_bias, attention.value_bias)):
        bias[...] += np.arange(2 * 64).reshape(2, 64) + 1000 * i
    model.save_pretrained(tmp_path)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        loaded = Decoder.from_pretrained(tmp_path)
    for (path, one), (_, other) in zip(
        nnx.to_flat_state(nnx.state(model)), nnx.to_flat_state(nnx.state(loaded)), strict=True
    ):
        np.testing.assert_array_equal(one[...], other[...], err_msg=str(path))
    assert loaded.layers.attention.key[...].sharding.spec == P(None, "fsdp", "tensor")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_training_step_lowers_for_a_mesh(name):
    """What experiments/compile_only.py asks for."""
    task = DecoderTask(CONFIGS[name], optax.adamw(1e-3), seq_len=20)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    text = lower_step(task, TrainConfig(steps=1, batch_size=8), mesh).as_text()
    assert '"fsdp"' in text
    assert task.flops_per_batch(8) > 0


def test_rows_that_the_mesh_cannot_split_are_refused():
    """Left whole, they would be computed four times."""
    task = DecoderTask(CONFIGS["opt"], optax.sgd(0.1), seq_len=18)
    mesh = make_mesh(MeshConfig(fsdp=2, context=4))
    with pytest.raises(UserError, match=r"inputs: seq=18 does not divide over .* context=4"):
        lower_step(task, TrainConfig(steps=1, batch_size=8), mesh)


def test_attention_dropout_of_a_split_sequence_is_refused():
    config = presets.opt("debug", **SMALL, attention_dropout=0.1)
    graphdef, state = nnx.split(Decoder.abstract(config))
    with (
        jax.set_mesh(make_mesh(MeshConfig(fsdp=2, context=4))),
        pytest.raises(UserError, match=r"attention of a split sequence cannot draw"),
    ):
        jax.eval_shape(
            lambda p: nnx.merge(graphdef, p)(TOKENS, dropout_key=jax.random.key(0)), state
        )
