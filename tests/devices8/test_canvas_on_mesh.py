"""MAE-VQGAN and SegGPT on eight simulated devices: the losses and parameters of one."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.data.in_context.sequences import Pair, SequenceFormat, stacked
from lvm_jax.models import VQGAN, presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.mae_vqgan import MaeVqganTask
from lvm_jax.tasks.seggpt import SegGptTask
from lvm_jax.training.optimizer import OptimizerConfig, make_optimizer
from lvm_jax.training.step import compile_step, init_state

ROWS, CODES, N = 8, 32, 64
MAE = presets.mae_vqgan("debug", patch_size=2, codes=CODES, remat="none")
SEGGPT = presets.seggpt("debug", remat="none")


def batch():
    form, rng = SequenceFormat.of_masks(CODES, N), np.random.default_rng(0)
    pairs = [Pair(*rng.integers(0, CODES, (2, N))) for _ in range(2 * ROWS)]
    rows = [form.row(pairs[i : i + 2]) for i in range(0, 2 * ROWS, 2)]
    return {**stacked(rows), "question": np.array(0, np.int32)}


def trained(make, mesh):
    # A large eps: otherwise the first steps divide gradients that are rounding alone by their own size.
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, decay_steps=10, eps=1e-2)
    vqgan = jax.jit(lambda: VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0)))()
    task = make(vqgan, make_optimizer(optimizer))
    with jax.set_mesh(mesh):
        state, step, seen = init_state(task, 0, mesh), compile_step(task, 0), []
        fed = BatchPlacement(mesh, ROWS).put(batch())
        for _ in range(2):
            state, metrics = step(state, fed, task.constants)
            seen.append({name: mean.compute() for name, mean in metrics.items()})
    return seen, state


@pytest.mark.parametrize(
    "make",
    [
        lambda vqgan, tx: MaeVqganTask(MAE, vqgan, tx, hiding="random"),
        lambda vqgan, tx: SegGptTask(SEGGPT, vqgan, tx),
    ],
    ids=["mae_vqgan", "seggpt"],
)
def test_a_mesh_trains_as_one_device(make):
    alone, one = trained(make, make_mesh(devices=jax.devices()[:1]))
    together, many = trained(make, make_mesh(MeshConfig(fsdp=4, tensor=2)))
    for ours, theirs in zip(together, alone, strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=2e-5, err_msg=name)
    assert many["params"]["layers"]["mlp"]["up"]["kernel"][...].sharding.spec == P(
        None, "fsdp", "tensor"
    )
    for x, y in zip(jax.tree.leaves(many["params"]), jax.tree.leaves(one["params"]), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=1e-5)
