"""The loop on a mesh: state born sharded, the same training as on one device, restored onto another mesh."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.training.loop import TrainConfig, train
from lvm_jax.training.step import init_state

sys.path.append(str(Path(__file__).parent.parent / "training"))
from linear_task import LinearBatches, LinearTask

CONFIG = TrainConfig(steps=8, batch_size=8, log_every=4, eval_every=0, checkpoint_every=4)


def kernel(state):
    return state["params"]["kernel"].get_value()


def test_the_state_is_born_sharded_moments_included():
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    state = init_state(LinearTask(), 0, mesh)
    mu = state["opt"][0].mu["kernel"].get_value()
    for x in (kernel(state), mu):
        assert x.sharding.spec == P("fsdp", "tensor")
        assert {shard.data.shape for shard in x.addressable_shards} == {(4, 4)}
    np.testing.assert_array_equal(
        kernel(state), kernel(init_state(LinearTask(), 0, make_mesh(devices=jax.devices()[:1])))
    )


@pytest.mark.parametrize(
    "sizes", [{"data": 8, "fsdp": 1}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}]
)
def test_training_on_a_mesh_equals_one_device(tmp_path, sizes):
    one = train(
        LinearTask(), LinearBatches(), CONFIG,
        mesh=make_mesh(devices=jax.devices()[:1]), workdir=tmp_path / "one",
    )  # fmt: skip
    many = train(
        LinearTask(), LinearBatches(), CONFIG, mesh=make_mesh(MeshConfig(**sizes)), workdir=tmp_path / "many"
    )  # fmt: skip
    np.testing.assert_allclose(kernel(many), kernel(one), rtol=1e-5, atol=1e-6)


def test_a_checkpoint_restores_onto_another_mesh(tmp_path):
    first = TrainConfig(steps=8, batch_size=8, log_every=4, eval_every=0, checkpoint_every=4)
    state = train(
        LinearTask(), LinearBatches(), first, mesh=make_mesh(MeshConfig(fsdp=8)), workdir=tmp_path
    )
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    moved = train(LinearTask(), LinearBatches(), first, mesh=mesh, workdir=tmp_path)
    assert kernel(moved).sharding.spec == P("fsdp", "tensor")
    np.testing.assert_array_equal(kernel(moved), kernel(state))


def test_eight_devices_to_one_and_back(tmp_path):
    """A run that moves twice ends where one that stayed on one device ends."""
    one, eight = make_mesh(devices=jax.devices()[:1]), make_mesh(MeshConfig(fsdp=8))
    whole = train(LinearTask(), LinearBatches(), CONFIG, mesh=one, workdir=tmp_path / "whole")
    config = tmp_path / "moved" / "config.json"
    for steps, mesh in ((4, eight), (6, one), (8, eight)):
        if config.exists():
            config.write_text(json.dumps({**json.loads(config.read_text()), "steps": steps}))
        part = dataclasses.replace(CONFIG, steps=steps)
        moved = train(LinearTask(), LinearBatches(), part, mesh=mesh, workdir=tmp_path / "moved")
        assert len(kernel(moved).sharding.device_set) == mesh.size
        assert int(moved["step"]) == steps
    np.testing.assert_allclose(kernel(moved), kernel(whole), rtol=1e-5, atol=1e-6)


def test_bad_steps_are_left_out_on_a_mesh_as_on_one_device(tmp_path):
    config = dataclasses.replace(CONFIG, on_bad_step="skip", spike_factor=5.0)
    states = {}
    for name, mesh in (
        ("one", make_mesh(devices=jax.devices()[:1])),
        ("many", make_mesh(MeshConfig(fsdp=4, tensor=2))),
    ):
        task = LinearTask()
        batches = LinearBatches(poisoned_step=5)
        states[name] = train(task, batches, config, mesh=mesh, workdir=tmp_path / name)
        assert task.traces == 1
    assert kernel(states["many"]).sharding.spec == P("fsdp", "tensor")
    assert np.isfinite(kernel(states["one"])).all()
    assert int(states["many"]["guard"]["counted"]) == 7
    np.testing.assert_allclose(kernel(states["many"]), kernel(states["one"]), rtol=1e-5, atol=1e-6)
