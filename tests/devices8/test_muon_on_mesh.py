"""Muon on eight devices: its momentum is split like the parameters, and a step is that of one device."""

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from lvm_jax.models import presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.decoder_optimizer import DecoderOptimizerConfig, make_decoder_optimizer
from lvm_jax.training.step import compile_step, init_state

CONFIG = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    attention="xla",
    positions="rotary_2d",
    place_embeddings=True,
    look_back=4,
    tokens_per_image=4,
    qk_norm=True,
)
T, B = 8, 8


def stepped(mesh):
    """The state after two steps."""
    optimizer = DecoderOptimizerConfig(
        kind="muon", learning_rate=0.01, warmup_steps=0, decay_steps=10
    )
    task = DecoderTask(CONFIG, make_decoder_optimizer(optimizer), seq_len=T)
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
        step = compile_step(task, 0)
        for _ in range(2):
            state, _ = step(state, BatchPlacement(mesh, B).put(batch), {})
    return state


def test_a_step_on_a_mesh_equals_one_device():
    many = stepped(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    one = stepped(make_mesh(MeshConfig(), devices=jax.devices()[:1]))
    momentum = many["opt"][1]["muon"][0].mu["layers"]["attention"]
    assert momentum["query"].get_value().sharding.spec == P(None, "fsdp", "tensor")
    assert momentum["out"].get_value().sharding.spec == P(None, "tensor", None, "fsdp")
    moments = many["opt"][1]["adamw"][0].mu
    assert moments["embedding"].get_value().sharding.spec == P("tensor", "fsdp")
    assert many["params"]["positions"]["places"].get_value().sharding.spec == P(None, "fsdp")
    for a, b in zip(jax.tree.leaves(many["params"]), jax.tree.leaves(one["params"]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
