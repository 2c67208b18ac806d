"""The image-text task: pictures are used, frozen towers stay, one batch is learnt, and a run resumes as it was."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.evaluation.documents.image_use import ImageUse, between_images
from lvm_jax.metrics.states import Mean
from lvm_jax.models import presets
from lvm_jax.models.decoder.config import LoRAConfig, train_flops_per_token
from lvm_jax.models.towers import vitdet_config
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.image_text import ImageTextTask
from lvm_jax.training.loop import TrainConfig, train
from lvm_jax.training.rate_groups import with_rates

B, T, N = 4, 11, 4
TOWERS = ("vitdet/tower", "clip/tower")
ANSWER = slice(2 + N, 3 + N)  # an id that only the picture tells


def small(name="debug", **decoder):
    config = presets.vary(name)
    options = {"attention": "xla", "num_hidden_layers": 1, "remat": "none", **decoder}
    branches = {}
    for field in ("vitdet", "clip"):
        if (branch := vars(config)[field]) is not None:
            tower = dataclasses.replace(branch.tower, remat="none", attention="xla")
            branches[field] = dataclasses.replace(branch, tower=tower)
    decoder = dataclasses.replace(config.decoder, **options)
    return dataclasses.replace(config, decoder=decoder, **branches)


def make(config=None, tx=None, **options):
    tx = optax.adam(3e-3) if tx is None else tx
    return ImageTextTask(config or small(), tx, seq_len=T, max_images=1, **options)


def batch(task, seed=0, rows=B):
    """Each row's picture has a dark half that tells its answer: rows differ by nothing else."""
    config, rng = task.vision, np.random.default_rng(seed)
    answers = rng.permutation(np.arange(10, 10 + rows))
    tokens = np.full((rows, T + 1), config.decoder.pad_token_id)
    tokens[:, 0], tokens[:, 1 : 1 + N] = config.image_start_id, config.image_patch_id
    tokens[:, 1 + N] = config.image_end_id
    tokens[:, ANSWER] = answers[:, None]
    weights = np.zeros((rows, T + 1), np.float32)
    weights[:, ANSWER] = 1
    pictures = {}
    for name, branch in config.branches.items():
        height, width = branch.tower.image_size
        shown = np.full((rows, 1, height, width, 3), 255, np.uint8)
        for row, answer in enumerate(answers - 10):
            shown[row, 0, :, answer * width // rows : (answer + 1) * width // rows] = 0
        pictures[name] = shown
    ids = {
        "tokens": tokens,
        "segment_ids": tokens != config.decoder.pad_token_id,
        "positions": np.broadcast_to(np.arange(T + 1), tokens.shape),
        "image_places": np.broadcast_to(np.arange(N) + 1, (rows, 1, N)),
    }
    whole = {name: np.ascontiguousarray(x, np.int32) for name, x in ids.items()}
    return {**whole, "loss_weights": weights, **pictures}


def paths(state):
    return {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def test_one_batch_is_learnt_and_only_by_its_pictures():
    """The control fails when pictures are not used: another row's picture and a blank one must then cost nothing."""
    task = make()
    rows = batch(task)
    state, step = jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step)
    for number in range(150):
        state, metrics = step(state, rows, jax.random.key(number))
    assert float(metrics["loss"].total / metrics["loss"].weight) < 0.05
    mesh = make_mesh(devices=jax.devices()[:1])
    kinds = np.array([0, 1, 1, 1])
    evaluator = ImageUse(
        task, lambda: [(rows, kinds)], ("lines", "charts", "none"), BatchPlacement(mesh, B)
    )
    found = evaluator.run(state["params"])
    assert found["loss"] < 0.05
    assert found["loss_other_image"] > 2
    assert found["loss_blank_image"] > 0.5
    assert 0.01 < found["share_between_images"] < 1
    by_kind = (found["lines/loss"] + 3 * found["charts/loss"]) / 4
    assert found["loss"] == pytest.approx(by_kind, abs=1e-5)
    assert not any(name.startswith("none") for name in found)


class Shades:
    """A task whose loss is how far a row's picture is from its first token."""

    vision = types.SimpleNamespace(branches={"view": None})

    def losses(self, params, batch, rows):
        del params
        far_B = jnp.abs(batch["view"][:, 0] - batch["tokens"][:, 0])
        weight_B = batch["loss_weights"][:, 0]
        return {
            name: Mean(jnp.sum(far_B * weight_B * counted_B), jnp.sum(weight_B * counted_B))
            for name, counted_B in rows.items()
        }

    def image_tokens(self, params, batch):
        del params
        return batch["view"][:, :, None, None]


@pytest.mark.parametrize(
    ("batches", "other"),
    [
        # A bad record leaves an empty row (0) anywhere in a batch: nobody sees its picture, nor its own.
        ([[10, 0, 30, 60]], (20 + 30 + 50) / 3),
        # Alone in its batch, a row has no other picture.
        ([[10, 30, 0, 0], [90, 0, 0, 0]], 20),
        ([[90, 0, 0, 0]], None),
    ],
)
def test_the_other_picture_is_that_of_another_record(batches, other):
    def rows(shades):
        column = np.array(shades)[:, None]
        real = (column > 0).astype(np.int32)
        ids = {"tokens": column, "segment_ids": real, "image_places": np.zeros((B, 1, 1), int)}
        return {**ids, "view": column, "loss_weights": real.astype(np.float32)}

    placement = BatchPlacement(make_mesh(devices=jax.devices()[:1]), B)
    given = [(rows(shades), np.zeros(B, int)) for shades in batches]
    found = ImageUse(Shades(), lambda: given, ("lines",), placement).run({})
    assert found["loss"] == 0
    assert found.get("loss_other_image") == (None if other is None else pytest.approx(other))


def test_a_model_that_looks_at_nothing_is_found_out():
    """Blind: its projector is zero."""
    task = make()
    state = jax.jit(task.init)(jax.random.key(0))
    projector = state["params"]["vitdet"]["projector"]
    projector["linear"]["kernel"] = projector["linear"]["kernel"].replace(
        jnp.zeros_like(projector["linear"]["kernel"][...])
    )
    placement = BatchPlacement(make_mesh(devices=jax.devices()[:1]), B)
    evaluator = ImageUse(task, lambda: [(batch(task), np.zeros(B, int))], ("lines",), placement)
    found = evaluator.run(state["params"])
    assert found["loss_other_image"] == pytest.approx(found["loss"], abs=1e-6)
    assert found["share_between_images"] == 0.0


def test_the_share_between_images():
    tokens_MND = np.random.default_rng(0).normal(size=(50, 3, 2))
    tokens_MND += 2 * np.random.default_rng(1).normal(size=(1, 3, 2))
    count, total, squares = len(tokens_MND), tokens_MND.sum(0), np.square(tokens_MND).sum(0)
    whole = tokens_MND.var(axis=(0, 1)).mean()
    expected = tokens_MND.var(axis=0).mean() / whole
    assert between_images(np.float32(count), total, squares) == pytest.approx(expected)
    assert between_images(np.float32(0), 0 * total, 0 * squares) == 0.0


class Batches:
    """The batch of a step is a function of the step."""

    def __init__(self, task):
        self.task, self.step = task, 0

    def __next__(self):
        self.step += 1
        return batch(self.task, self.step - 1)

    def get_state(self):
        return self.step

    def set_state(self, step):
        self.step = step


def run(workdir, steps):
    task = make(small("debug-two"), frozen=TOWERS)
    return train(
        task,
        Batches(task),
        TrainConfig(steps=steps, batch_size=B, checkpoint_every=2, log_every=2),
        mesh=make_mesh(devices=jax.devices()[:1]),
        workdir=workdir,
        experiment={"name": "vary"},
    )


@pytest.mark.slow
def test_frozen_towers_stay_bit_for_bit_and_a_run_resumes(tmp_path):
    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    resumed = run(tmp_path / "cut", 3)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = jax.jit(make(small("debug-two"), frozen=TOWERS).init)(jax.random.key(0))
    frozen, moved = whole["params"]["frozen"], whole["params"]["trained"]
    assert {path.split("/")[1] for path in paths(frozen)} == {"tower"}
    assert {"/".join(path.split("/")[:2]) for path in paths(moved)} > {
        "vitdet/projector",
        "clip/projector",
        "decoder/embedding",
    }
    for a, b in zip(jax.tree.leaves(frozen), jax.tree.leaves(fresh["params"]["frozen"])):
        np.testing.assert_array_equal(a, b)
    moments = sum(leaf.size for leaf in jax.tree.leaves(whole["opt"]) if leaf.ndim)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(moved))


@pytest.mark.slow
def test_microbatches_give_the_gradient_of_the_batch():
    key, moved = jax.random.key(0), []
    for accumulation in (1, 2):
        task = make(tx=optax.sgd(0.1), accumulation=accumulation)
        rows = batch(task)
        rows["loss_weights"][0] = 0  # microbatches of unequal weight
        state = jax.jit(task.init)(key)
        moved.append(jax.jit(task.step)(state, rows, key)[0]["params"])
    for a, b in zip(*map(jax.tree.leaves, moved), strict=True):
        assert np.linalg.norm(a - b) <= 1e-6 * max(np.linalg.norm(a), 1.0)


def test_adapters_are_the_decoders_and_the_rest_trains_as_ever():
    config = small("debug-two", lora=LoRAConfig(rank=2))
    task = make(config, frozen=TOWERS)
    state = jax.eval_shape(task.init, jax.random.key(0))
    trained = paths(state["params"]["trained"])
    assert {path for path in trained if path.startswith("decoder")} == {
        f"decoder/layers/attention/{name}_{side}" for name in ("query", "value") for side in "ab"
    }
    assert {path for path in trained if not path.startswith("decoder")} == {
        f"{branch}/projector/linear/{x}"
        for branch in ("clip", "vitdet")
        for x in ("kernel", "bias")
    }


@pytest.mark.slow
def test_a_rate_for_each_group_of_parameters():
    """The towers move a tenth, the projector not at all, as they would at that learning rate."""
    key, moves = jax.random.key(0), {}
    for name, rates in {"one": {}, "groups": {"vitdet/tower": 0.1, "vitdet": 0.0}}.items():
        task = make(tx=with_rates(optax.adam(1e-3), rates))
        state = jax.jit(task.init)(key)
        new, _ = jax.jit(task.step)(state, batch(task), key)
        moves[name] = {
            path: np.asarray(after[...]) - np.asarray(before[...])
            for (path, after), (_, before) in zip(
                nnx.to_flat_state(new["params"]), nnx.to_flat_state(state["params"]), strict=True
            )
        }
    for path, one in moves["one"].items():
        factor = 1.0 if path[0] == "decoder" else 0.1 if path[1] == "tower" else 0.0
        np.testing.assert_allclose(moves["groups"][path], factor * one, atol=1e-7, err_msg=path)
    with pytest.raises(UserError, match=r"learning_rates has 'vitdet/twer', which no trained"):
        jax.eval_shape(make(tx=with_rates(optax.sgd(1.0), {"vitdet/twer": 2.0})).init, key)
    with pytest.raises(UserError, match=r"learning rate of 'vitdet' is -1"):
        with_rates(optax.sgd(1.0), {"vitdet": -1})


def test_flops_know_frozen_towers():
    config = small()
    tower = vitdet_config.forward_flops(config.vitdet.tower)
    linear = 2.0 * N * 24 * config.decoder.hidden_size  # of the projector, forward
    text = train_flops_per_token(config.decoder, T) * T
    assert make().flops_per_batch(2) == pytest.approx(2 * (text + 3 * tower + 3 * linear))
    frozen = make(frozen=("vitdet/tower",)).flops_per_batch(2)
    assert frozen == pytest.approx(2 * (text + tower + 2 * linear))
    deaf = make(frozen=("vitdet", "decoder/layers/mlp")).flops_per_batch(2)
    mlp = 2 * config.decoder.hidden_size * config.decoder.intermediate_size
    assert deaf == pytest.approx(2 * (text - 2 * mlp * T + tower + linear))


def test_the_batch_is_what_the_step_takes():
    task = make(small("debug-two"))
    spec = task.batch_spec(B)
    rows = batch(task)
    assert {name: (x.shape, x.dtype) for name, x in rows.items()} == {
        name: (x.shape, x.dtype) for name, x in spec.items()
    }


def test_bf16_with_remat_gives_nearly_the_same_loss():
    task = make()
    rows = batch(task)
    params = jax.jit(task.init)(jax.random.key(0))["params"]
    expected = jax.jit(task.loss)(params, rows)[0]
    config = small(dtype="bfloat16", remat="full")
    tower = dataclasses.replace(config.vitdet.tower, dtype="bfloat16", remat="full")
    config = dataclasses.replace(config, vitdet=dataclasses.replace(config.vitdet, tower=tower))
    found = jax.jit(make(config).loss)(params, rows)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-2)
