"""The engine on eight simulated devices: the same pictures as on one, heads and rows of the cache split."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.inference.images import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models import Llama, presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import state_shardings

CODES, TOKENS = 40, 4
CONFIG = presets.llama(
    "debug",
    vocab_size=CODES + 100,
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    max_position_embeddings=4 * TOKENS,
    initializer_range=0.3,
)


def _init() -> nnx.State:
    return nnx.state(Llama(CONFIG, rngs=nnx.Rngs(0)), nnx.Param)


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.0)], ids=["greedy", "sampled"])
def test_pictures_equal_those_of_one_device(sampling):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, CODES, (n, TOKENS)) for n in (2, 1)]
    params = jax.jit(_init)()
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Llama(CONFIG, rngs=nnx.Rngs(0))))

    def generate(params: nnx.State) -> tuple[Engine, np.ndarray]:
        engine = Engine(nnx.merge(graphdef, params), TOKENS, CODES)
        return engine, engine.generate_batch(prompts, 2, n_candidates=2, sampling=sampling, seed=1)

    expected = generate(params)[1]
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        engine, made = generate(jax.device_put(params, state_shardings(params, mesh)))
        assert np.array_equal(made, expected)
        started = engine.start(prompts, 4, 1)
    keys, _ = started.rows.cache.layers[0]
    assert keys.x_BKSH.sharding.spec == P(("data", "fsdp"), "tensor")
    shared, _ = started.prefix.layers[
        0
    ]  # two prompts do not divide over four devices: their heads do
    assert shared.x_BKSH.sharding.spec == P(None, "tensor")
