"""Frozen and trained parameters on eight devices: both split over the mesh, moved as on one device, or not at all."""

import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from lvm_jax.models import presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.step import compile_step, init_state

CONFIG = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    attention="xla",
)
T, B = 8, 8


def stepped(mesh):
    """The state at step 0, on the host, and the state after two steps."""
    task = DecoderTask(
        CONFIG, optax.sgd(0.1), seq_len=T, frozen=("embedding", "layers/mlp"), accumulation=1
    )
    rows = {
        "tokens": np.random.default_rng(0).integers(0, 40, (B, T + 1)),
        "segment_ids": np.ones((B, T + 1)),
        "positions": np.broadcast_to(np.arange(T + 1), (B, T + 1)),
    }
    weights = np.ones((B, T + 1), np.float32)
    weights[:, 0] = 0
    batch = {name: np.ascontiguousarray(x, np.int32) for name, x in rows.items()}
    batch["loss_weights"] = weights
    with jax.set_mesh(mesh):
        state = init_state(task, 0, mesh)
        first = jax.device_get(state)
        step = compile_step(task, 0)
        for _ in range(2):
            state, _ = step(state, BatchPlacement(mesh, B).put(batch), {})
    return first, state


def test_a_step_on_a_mesh_equals_one_device_and_frozen_parameters_stay():
    first, many = stepped(make_mesh(MeshConfig(data=2, fsdp=4)))
    _, one = stepped(make_mesh(MeshConfig(), devices=jax.devices()[:1]))
    frozen, moved = many["params"]["frozen"], many["params"]["trained"]
    assert frozen["layers"]["mlp"]["gate"].get_value().sharding.spec == P(None, "fsdp")
    assert moved["layers"]["attention"]["query"].get_value().sharding.spec == P(None, "fsdp")
    for a, b in zip(jax.tree.leaves(frozen), jax.tree.leaves(first["params"]["frozen"])):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(one["params"]["trained"])):
        np.testing.assert_allclose(a, b, atol=1e-5)
