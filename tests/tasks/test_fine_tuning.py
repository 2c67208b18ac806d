"""Training from imported weights, all of them or low-rank adapters; and a batch computed in parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lvm_jax.data.sentences.row_assembly import label_weights
from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets
from lvm_jax.models.decoder.config import LoRAConfig, train_flops_per_token
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.loop import TrainConfig, train

PLAIN = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_key_value_heads=2,
    attention="xla",
)
LORA = dataclasses.replace(
    PLAIN, lora=LoRAConfig(rank=2, alpha=4.0, targets=("query", "value", "out", "gate", "down"))
)
T, B = 12, 4


def _task(config, **options):
    return DecoderTask(config, optax.adamw(3e-2), seq_len=T, **options)


def _batch(step=0):
    rng = np.random.default_rng(step)
    segments = np.asarray([[1] * 7 + [2] * 6, [1] * 13, [1] * 5 + [0] * 8, [1] * 2 + [0] * 11])
    positions = np.broadcast_to(np.arange(T + 1), (B, T + 1))
    rows = {"tokens": rng.integers(0, 12, (B, T + 1)), "segment_ids": segments}
    rows = {name: np.asarray(x, np.int32) for name, x in (rows | {"positions": positions}).items()}
    return rows | {"loss_weights": label_weights(rows["segment_ids"])}


class Batches:
    """The same batch for ever."""

    step = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.step += 1
        return _batch()

    def get_state(self):
        return self.step

    def set_state(self, step):
        self.step = step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    nnx.jit(lambda: Llama(PLAIN, rngs=nnx.Rngs(7)))().save_pretrained(directory)
    return directory


def _train(task, folder, workdir, steps=6):
    return train(
        task,
        Batches(),
        TrainConfig(steps=steps, batch_size=B, checkpoint_every=2, log_every=2),
        mesh=make_mesh(devices=jax.devices()[:1]),
        workdir=workdir,
        experiment={"name": "fine-tuning"},
        warm_start=lambda state: task.load(state, folder),
    )


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def tuned(folder, tmp_path_factory):
    """The state of a whole run over adapters, and its task."""
    task = _task(LORA)
    return task, _train(task, folder, tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_only_adapters_train_and_only_they_have_moments(tuned, folder):
    _, state = tuned
    imported = nnx.state(Llama.from_pretrained(folder))
    for one, other in zip(_leaves(state["params"]["base"]), _leaves(imported), strict=True):
        np.testing.assert_array_equal(one, other)
    adapters = {path[-1]: v for path, v in nnx.to_flat_state(state["params"]["lora"])}
    assert set(adapters) == {f"{n}_{s}" for n in LORA.lora.targets for s in "ab"}
    assert all((v[...] != 0).any() for v in adapters.values())
    trained = sum(v.size for v in adapters.values())
    moments = sum(leaf.size for leaf in _leaves(state["opt"]) if leaf.ndim)
    assert moments == 2 * trained < sum(leaf.size for leaf in _leaves(imported))


@pytest.mark.slow
def test_adapters_learn_what_the_loss_asks(tuned, folder):
    task, state = tuned
    total, weight = jax.jit(task.loss)(state["params"], _batch())
    base = {**state["params"], "lora": jax.tree.map(jnp.zeros_like, state["params"]["lora"])}
    before, _ = jax.jit(task.loss)(base, _batch())
    assert total / weight < before / weight - 0.1


@pytest.mark.slow
def test_merged_export_gives_the_same_logits(tuned, tmp_path):
    task, state = tuned
    model, tokens = task.model(state), jnp.asarray(_batch()["tokens"])
    model.save_pretrained(tmp_path)
    merged = Llama.from_pretrained(tmp_path, attention="xla")
    assert merged.config == dataclasses.replace(PLAIN, attention="xla")
    forward = nnx.jit(lambda model, tokens: model(tokens))
    np.testing.assert_allclose(forward(merged, tokens), forward(model, tokens), atol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_never_stopped(tuned, folder, tmp_path):
    task, whole = tuned
    _train(task, folder, tmp_path, steps=4)
    resumed = _train(task, tmp_path / "gone", tmp_path)  # the folder is not needed any more
    for one, other in zip(_leaves(resumed), _leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_full_fine_tuning_starts_from_the_folder(folder):
    task = _task(PLAIN)
    state = task.load(jax.jit(task.init)(jax.random.key(0)), folder)
    for one, other in zip(
        _leaves(state["params"]), _leaves(nnx.state(Llama.from_pretrained(folder))), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_weights_of_another_decoder_are_refused(folder):
    task = _task(dataclasses.replace(PLAIN, num_hidden_layers=3))
    with pytest.raises(UserError, match=r"num_hidden_layers=2 and config\.model\.\w+ is 3"):
        task.load({}, folder)
    with pytest.raises(UserError, match=r"lora targets=\('head',\): choose at least one of query"):
        LoRAConfig(rank=1, targets=("head",))


def test_frozen_weights_cost_no_gradient_product():
    assert train_flops_per_token(LORA, T) < train_flops_per_token(PLAIN, T)


def test_gradients_of_parts_are_those_of_the_whole_batch():
    """Rows count different numbers of labels, so a mean of the parts' means would be another loss."""
    whole, parts = _task(PLAIN), _task(PLAIN, accumulation=4)
    state = jax.jit(whole.init)(jax.random.key(0))
    key = jax.random.key(1)
    (one, metrics), (other, metrics_of_parts) = (
        jax.jit(task.step)(state, {**_batch(), "constants": {}}, key)  # as the loop gives it
        for task in (whole, parts)
    )
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(
            metrics[name].compute(), metrics_of_parts[name].compute(), rtol=1e-5
        )
    for a, b in zip(_leaves(one["opt"]), _leaves(other["opt"]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(UserError, match="batch of 4 does not divide into 3 parts"):
        _task(PLAIN, accumulation=3).step(state, _batch(), key)
