"""A vision-language step on eight simulated devices: the numbers of one, and frozen towers without gathered moments."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.analysis.costs import program_cost
from lvm_jax.models import VisionLanguage, presets
from lvm_jax.models.vision_language import parts
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.image_text import ImageTextTask
from lvm_jax.training.ahead_of_time import lower_step
from lvm_jax.training.step import abstract_state, compile_step, init_state
from lvm_jax.training.train_config import TrainConfig

B, T, N = 8, 16, 4
FROZEN = ("vitdet/tower", "clip/tower")
MESHES = {
    "hsdp_tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "context": {"fsdp": 4, "context": 2},
}


def config():
    whole = presets.vary("debug-two")
    tower = presets.vitdet("debug", output_channels=64, merge_channels=(64, 64))
    decoder = dataclasses.replace(whole.decoder, hidden_size=32, attention="xla")
    vitdet = dataclasses.replace(whole.vitdet, tower=tower)
    return dataclasses.replace(whole, decoder=decoder, vitdet=vitdet)


def rows(model):
    rng = np.random.default_rng(0)
    tokens = rng.integers(6, 100, (B, T + 1)).astype(np.int32)
    tokens[:, 2 : 2 + N] = model.image_patch_id
    places = np.broadcast_to(np.arange(N, dtype=np.int32) + 2, (B, 1, N)).copy()
    places[0] = T + 1  # a row without a picture
    return {
        "tokens": tokens,
        "segment_ids": np.ones((B, T + 1), np.int32),
        "positions": np.broadcast_to(np.arange(T + 1, dtype=np.int32), (B, T + 1)).copy(),
        "loss_weights": rng.uniform(size=(B, T + 1)).astype(np.float32),
        "image_places": places,
        **{
            name: rng.integers(0, 256, (B, 1, *branch.tower.image_size, 3)).astype(np.uint8)
            for name, branch in model.branches.items()
        },
    }


def stepped(mesh):
    """The losses of two steps, and the state after them."""
    model = config()
    task = ImageTextTask(model, optax.sgd(0.1), seq_len=T, max_images=1, frozen=FROZEN)
    losses = []
    with jax.set_mesh(mesh):
        state, step = init_state(task, 0, mesh), compile_step(task, 0)
        batch = BatchPlacement(mesh, B).put(rows(model))
        for _ in range(2):
            state, metrics = step(state, batch, {})
            losses.append(float(metrics["loss"].total / metrics["loss"].weight))
    return losses, state


@pytest.fixture(scope="module")
def one_device():
    return stepped(make_mesh(MeshConfig(), devices=jax.devices()[:1]))


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gives_the_numbers_of_one_device(one_device, mesh):
    losses, state = stepped(make_mesh(MeshConfig(**MESHES[mesh])))
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(state["params"]), jax.tree.leaves(one_device[1]["params"]), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    moved = state["params"]["trained"]
    kernel = moved["vitdet"]["projector"]["linear"]["kernel"]
    assert kernel.get_value().sharding.spec == P(None, "fsdp")


@pytest.mark.slow
def test_a_tower_is_read_into_its_shards(tmp_path):
    model = VisionLanguage(config(), rngs=nnx.Rngs(0))
    model.save_pretrained(tmp_path)
    tower = config().vitdet.tower
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        loaded = parts.load_vitdet(tmp_path, tower, seed=0)
    assert loaded["positions"].get_value().sharding.spec == P(None, None, "fsdp")
    expected = dict(nnx.to_flat_state(nnx.state(model.vitdet.tower, nnx.Param)))
    for path, value in nnx.to_flat_state(loaded):
        np.testing.assert_array_equal(value[...], expected[path][...], err_msg=str(path))


def test_a_frozen_tower_has_no_optimizer_state():
    task, mesh = frozen_task(FROZEN), make_mesh(MeshConfig(fsdp=8))
    moments = jax.tree_util.tree_leaves_with_path(abstract_state(task, mesh)["opt"])
    paths = [jax.tree_util.keystr(path) for path, _ in moments]
    assert any("projector" in path for path in paths)
    assert not any("tower" in path for path in paths)


@pytest.mark.slow
def test_a_frozen_tower_is_gathered_once_and_its_gradient_never_summed():
    mesh = make_mesh(MeshConfig(fsdp=8))
    lowered = lower_step(frozen_task(FROZEN), TrainConfig(steps=1, batch_size=B), mesh)
    cost = program_cost(lowered.compile().as_text(), 8)
    params = jax.eval_shape(frozen_task(FROZEN).init, jax.random.key(0))["params"]
    frozen, trained = (
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params[name]))
        for name in ("frozen", "trained")
    )
    assert frozen > 5 * trained
    # What is trained is gathered for both passes. Moments would add twice what is frozen.
    assert cost.payload("all-gather") <= frozen + 2 * trained
    assert cost.payload("all-reduce") + cost.payload("reduce-scatter") <= trained


def frozen_task(frozen):
    return ImageTextTask(config(), optax.adamw(0.1), seq_len=T, max_images=1, frozen=frozen)
