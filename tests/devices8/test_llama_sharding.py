"""The decoder on eight simulated devices: same numbers as on one, parameters where the rules put them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.analysis.costs import program_cost
from lvm_jax.data.sentences.row_assembly import label_weights
from lvm_jax.losses.next_token import cross_entropy
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
# Layout -> sizes of the mesh axes.
LAYOUTS = {
    "data": {"data": 8, "fsdp": 1},
    "fsdp": {"fsdp": 8},
    "hsdp": {"data": 2, "fsdp": 4},
    "hsdp_tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "context": {"fsdp": 2, "context": 4},
    "context_tensor": {"fsdp": 2, "context": 2, "tensor": 2},
}
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
    total, weight = cross_entropy(logits, tokens[:, 1:], batch["loss_weights"][:, 1:])
    return total / weight


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    segments = np.repeat([[1] * 9 + [2] * 8 + [0] * 4], 8, axis=0)
    positions = np.repeat([[*range(9), *range(8), *range(4)]], 8, axis=0)
    tokens = rng.integers(0, CONFIG.vocab_size, (8, 21))
    rows = {"tokens": tokens, "segment_ids": segments, "positions": positions}
    return rows | {"loss_weights": label_weights(segments)}


@pytest.fixture(scope="module")
def one_device():
    params = jax.jit(_init)()
    return params, *jax.jit(jax.value_and_grad(_loss))(params, _batch())


def compile_layout(params: nnx.State, sizes: dict[str, int]):
    """The compiled loss and gradients of a layout, and its arguments."""
    mesh = make_mesh(MeshConfig(**sizes))
    with jax.set_mesh(mesh):
        shardings = state_shardings(jax.eval_shape(_init), mesh)
        arguments = (
            jax.device_put(params, shardings),
            {name: jax.device_put(x, batch_sharding(mesh)) for name, x in _batch().items()},
        )
        step = jax.jit(jax.value_and_grad(_loss), out_shardings=(None, shardings))
        return step.lower(*arguments).compile(), arguments


def bytes_by_kind(text: str) -> dict[tuple[str, int], float]:
    """(kind, devices of a group) -> bytes of all such collectives of a step."""
    total: dict[tuple[str, int], float] = {}
    for c in program_cost(text, 8).collectives:
        key = (c.kind, len(c.group))
        total[key] = total.get(key, 0.0) + c.times * c.payload
    return total


def needed(sizes: dict[str, int]) -> dict[str, float]:
    """What a layout has to send, in bytes of fp32: see the words at each entry."""
    fsdp, context, tensor = (sizes.get(axis, 1) for axis in ("fsdp", "context", "tensor"))
    D, F, P, H = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.padded_vocab_size, 16
    N, K = CONFIG.num_attention_heads, CONFIG.num_key_value_heads
    layers = CONFIG.num_hidden_layers * (2 * D * N * H + 2 * D * K * H + 3 * D * F)
    rows = 8 // (sizes.get("data", 1) * fsdp)
    keys_and_values = CONFIG.num_hidden_layers * rows * 20 * 2 * (K // tensor) * H
    tables = 2 if tensor == 1 else 3
    return {
        # every matrix of a layer before its forward and its backward pass; each table once, a split head once more
        "parameters": 4 * (2 * layers + tables * P * D) // tensor if fsdp > 1 else 0,
        # all keys, all values and the ids of their sentences, in both passes; their gradients back once
        "context": 4 * (2 * keys_and_values + rows * 20) if context > 1 else 0,
        "context_gradients": 4 * keys_and_values if context > 1 else 0,
        # every gradient once: the CPU's compiler sums it whole and cuts its part
        "gradients": 4 * (layers + 2 * P * D) // tensor,
    }


@pytest.fixture
def uncached():
    """Programs are not kept between runs of the suite: the compiler's warnings come anew."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 1e9)
    yield
    jax.config.update(name, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_the_numbers_of_one_device_and_sends_what_it_must(
    one_device, layout, capfd, uncached
):
    params, loss, grads = one_device
    sizes = LAYOUTS[layout]
    compiled, arguments = compile_layout(params, sizes)
    assert "rematerialization" not in capfd.readouterr().err

    sharded_loss, sharded_grads = compiled(*arguments)
    np.testing.assert_allclose(sharded_loss, loss, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(sharded_grads), jax.tree.leaves(grads), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)

    sent, must = bytes_by_kind(compiled.as_text()), needed(sizes)
    fsdp, context = sizes.get("fsdp", 1), sizes.get("context", 1)
    gathered = sum(total for (kind, _), total in sent.items() if kind == "all-gather")
    assert gathered == must["parameters"] + must["context"]
    if fsdp != context:
        assert sent.get(("all-gather", fsdp), 0) == must["parameters"]
    scattered = sum(total for (kind, _), total in sent.items() if kind == "reduce-scatter")
    assert scattered == must["context_gradients"]
    summed = sum(total for (kind, _), total in sent.items() if kind == "all-reduce")
    split_twice = 2 if len([n for n in sizes.values() if n > 1]) > 1 else 1
    assert must["gradients"] <= summed
    if "tensor" not in sizes:  # which adds sums of activations
        assert summed <= 1.02 * split_twice * must["gradients"]
    assert not [kind for kind, _ in sent if kind == "all-to-all"]


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
    """Only the products of an unsplit sequence fold it into the batch."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=4 // context, context=context))
    with jax.set_mesh(mesh):
        program = str(jax.make_jaxpr(_loss)(one_device[0], _batch()))
    assert ("f32[160,64]" in program) == (context == 1)  # 8 rows of 20 tokens
