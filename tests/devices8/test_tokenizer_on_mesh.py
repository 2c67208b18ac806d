"""The tokenizer's step with every term on eight devices: that of one device, its state split over the mesh."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from lvm_jax.models import presets
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.tokenizer import (
    CausalPriorConfig,
    TokenizerLoss,
    TokenizerStep,
    TokenizerTask,
)
from lvm_jax.training.step import compile_step, init_state

CONFIG = presets.vqgan(
    "debug",
    l2_normalize=True,
    channel_mult=(1, 2),
    hidden_channels=64,
    norm_groups=8,
    num_res_blocks=1,
    attn_resolutions=(),
    no_attn_mid_block=True,
)
LOSS = TokenizerLoss(
    perceptual="gradient",
    straight_through="all_codes",
    entropy_weight=0.1,
    entropy_temperature=0.5,
    discriminator_start=0,
    lecam_weight=0.1,
    causal_weight=0.1,
)
HOW = TokenizerStep(accumulation=2, ema_decay=0.9, revive_after=1)


def two_steps(mesh) -> dict:
    task = TokenizerTask(
        CONFIG,
        optax.sgd(0.1),
        optax.sgd(0.1),
        loss=LOSS,
        discriminator=DiscriminatorConfig(hidden_channels=4, n_layers=1, norm_groups=4),
        how=HOW,
        prior=CausalPriorConfig(hidden_size=16, num_layers=1),
    )
    placement = BatchPlacement(mesh, 16)
    with jax.set_mesh(mesh):
        state, step = init_state(task, 0, mesh), compile_step(task, 0)
        for number in range(2):
            images = np.random.default_rng(number).integers(0, 256, (16, 16, 16, 3), np.uint8)
            state, _ = step(state, placement.put({"images": images}), {})
    return state


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"data": 8, "fsdp": 1}, {"data": 2, "fsdp": 4}])
def test_a_step_on_a_mesh_equals_one_device(sizes):
    one = two_steps(make_mesh(MeshConfig(), devices=jax.devices()[:1]))
    many = two_steps(make_mesh(MeshConfig(**sizes)))
    codebook = many["ema"]["quantizer"]["codebook"].get_value()
    assert codebook.sharding.spec == (P("fsdp") if sizes["fsdp"] > 1 else P())
    assert many["idle"].sharding.is_fully_replicated
    named = jax.tree_util.tree_leaves_with_path(one)
    for (path, a), b in zip(named, jax.tree.leaves(many), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-3, err_msg=name)
