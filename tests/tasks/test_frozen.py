"""What is trained is a filter: frozen parameters stay bit for bit, without moments, and a run resumes as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.decoder.config import LoRAConfig
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.loop import TrainConfig, train

CONFIG = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_key_value_heads=2,
    attention="xla",
)
T, B = 12, 4


def make(frozen=(), config=CONFIG, **options):
    return DecoderTask(config, optax.adamw(3e-2), seq_len=T, frozen=frozen, **options)


def batch(step=0):
    tokens = np.random.default_rng(step).integers(0, 40, (B, T + 1))
    rows = {
        "tokens": tokens,
        "segment_ids": np.ones((B, T + 1)),
        "positions": np.broadcast_to(np.arange(T + 1), (B, T + 1)),
    }
    weights = np.ones((B, T + 1), np.float32)
    weights[:, 0] = 0
    integers = {name: np.asarray(x, np.int32) for name, x in rows.items()}
    return integers | {"loss_weights": weights}


class Batches:
    """The batch of a step is a function of the step."""

    step = 0

    def __next__(self):
        self.step += 1
        return batch(self.step - 1)

    def get_state(self):
        return self.step

    def set_state(self, step):
        self.step = step


def run(workdir, steps):
    return train(
        make(("embedding", "layers/*/query")),
        Batches(),
        TrainConfig(steps=steps, batch_size=B, checkpoint_every=2, log_every=2),
        mesh=make_mesh(devices=jax.devices()[:1]),
        workdir=workdir,
        experiment={"name": "frozen"},
    )


def paths(state):
    return {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), steps=5)


def test_frozen_parameters_stay_bit_for_bit_and_have_no_moments(whole):
    fresh = jax.jit(make(("embedding", "layers/*/query")).init)(jax.random.key(0))
    frozen, moved = whole["params"]["frozen"], whole["params"]["trained"]
    assert paths(frozen) == {"embedding", "layers/attention/query"}
    assert "layers/attention/key" in paths(moved)
    for a, b in zip(jax.tree.leaves(frozen), jax.tree.leaves(fresh["params"]["frozen"])):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(fresh["params"]["trained"])):
        assert not np.array_equal(a, b)
    moments = sum(leaf.size for leaf in jax.tree.leaves(whole["opt"]) if leaf.ndim)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(moved))


def test_a_resumed_run_ends_as_one_that_never_stopped(whole, tmp_path):
    run(tmp_path, steps=4)
    resumed = run(tmp_path, steps=5)
    assert jax.tree.structure(resumed) == jax.tree.structure(whole)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
        np.testing.assert_array_equal(a, b)


def test_the_gradient_of_what_is_trained_is_that_of_plain_training():
    """One step of plain descent moves the trained ones exactly as it would if all were trained."""
    key = jax.random.key(0)
    plain = DecoderTask(CONFIG, optax.sgd(0.1), seq_len=T)
    partly = DecoderTask(CONFIG, optax.sgd(0.1), seq_len=T, frozen=["embedding"])
    (one, _), (other, _) = (
        jax.jit(task.step)(jax.jit(task.init)(key), batch(), key) for task in (plain, partly)
    )
    expected = dict(nnx.to_flat_state(one["params"]))
    for path, parameter in nnx.to_flat_state(other["params"]["trained"]):
        np.testing.assert_allclose(parameter[...], expected[path][...], atol=1e-7)
    assert nnx.to_flat_state(plain.init(key)["params"])  # no names of ours in plain checkpoints
    assert "layers/mlp/gate" in paths(one["params"])


def test_adapters_may_be_frozen_too():
    config = presets.llama("debug", lora=LoRAConfig(rank=2, targets=("query", "value")))
    state = jax.eval_shape(make(("layers/attention/query_*",), config).init, jax.random.key(0))
    assert paths(state["params"]["lora"]) == {f"layers/attention/value_{s}" for s in "ab"}
    assert "layers/attention/query_a" in paths(state["params"]["base"])


def test_mistakes_are_named():
    with pytest.raises(
        UserError, match=r"frozen has 'embeding', which no parameter matches.*embedd"
    ):
        make(("embeding",))
    with pytest.raises(UserError, match=r"all \d+ parameters are frozen"):
        make(("*",))


def test_frozen_matrices_cost_no_gradient_product():
    """Six FLOPs a weight and token, four where it is frozen; a table that is only looked up costs none."""
    all_trained = make().flops_per_batch(1)
    assert make(("embedding", "layers/*_norm")).flops_per_batch(1) == all_trained
    query = CONFIG.num_hidden_layers * CONFIG.hidden_size**2
    saved = all_trained - make(("layers/attention/query",)).flops_per_batch(1)
    assert saved == 2 * query * T
    saved = all_trained - make(("head",)).flops_per_batch(1)
    assert saved == 2 * CONFIG.vocab_size * CONFIG.hidden_size * T


def scaled_by_task() -> optax.GradientTransformationExtraArgs:
    """A toy: the update of task n is n times the gradient."""

    def update(updates, state, params=None, *, task_id, **others):
        del params, others
        return jax.tree.map(lambda g: task_id.astype(g.dtype) * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_optimizer_hears_of_the_batch_s_task(accumulation):
    tx = optax.chain(scaled_by_task(), optax.sgd(1e-2))
    task = DecoderTask(
        CONFIG,
        tx,
        seq_len=T,
        accumulation=accumulation,
        optimizer_args=lambda batch: {"task_id": batch["task_id"][0]},
    )
    state = jax.jit(task.init)(jax.random.key(0))
    step = jax.jit(task.step)

    def moved(task_id):
        rows = {**batch(), "task_id": jnp.full(B, task_id, jnp.int32)}
        new, _ = step(state, rows, jax.random.key(0))
        return [
            np.asarray(a - b)
            for a, b in zip(jax.tree.leaves(new["params"]), jax.tree.leaves(state["params"]))
        ]

    assert all((x == 0).all() for x in moved(0))
    for once, thrice in zip(moved(1), moved(3), strict=True):
        np.testing.assert_allclose(thrice, 3 * once, atol=1e-6)
