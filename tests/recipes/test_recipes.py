"""Experiments and what they build, used as a library: no launch script is imported."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.pictures.pixels import to_float
from lvm_jax.recipes import RECIPES
from lvm_jax.recipes import tokenizer as tokenizer_recipe
from lvm_jax.recipes.lvm import open_batches
from lvm_jax.training.ahead_of_time import lower_step
from lvm_jax.training.loop import init_state

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
FILES = {
    "in_context_peers": "mae_vqgan,size=debug,runlocal",
    "lvm": "debug,runlocal",
    "tokenizer": "quickstart,runlocal",
    "unified": "debug,runlocal",
    "vary": "tiny,runlocal",
}


def experiment(name, argument="", **changes):
    """What the config file of a recipe gives."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(argument or FILES[name])
    for key, value in changes.items():
        config[key] = value
    return from_mapping(RECIPES[name].experiment, config)


def test_every_recipe_has_a_config_file():
    assert set(FILES) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_step_of_a_recipe_is_lowered_without_its_data(name):
    """All that compile_only asks of a recipe."""
    config = experiment(name)
    task = RECIPES[name].make_task(config)
    mesh = make_mesh(config.mesh, devices=jax.devices()[:1])
    assert "func.func public @main" in lower_step(task, config.train, mesh).as_text()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("in_context_peers", "shards"),
        ("lvm", "shards"),
        ("tokenizer", "images"),
        ("unified", "shards"),
        ("vary", "tokenizer"),
    ],
)
def test_data_that_is_not_named_is_asked_for(name, key, tmp_path):
    with pytest.raises(UserError, match=rf"config\.data\.{key} is empty"):
        RECIPES[name].prepare(experiment(name), epath.Path(tmp_path))


def test_what_the_config_freezes_the_task_freezes():
    config = experiment("lvm", frozen=("embedding",))
    state = jax.eval_shape(RECIPES["lvm"].make_task(config).init, jax.random.key(0))
    assert set(state["params"]["frozen"]) == {"embedding"}


@pytest.fixture
def folder(tmp_path):
    for name in ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    (tmp_path / "list.txt").write_text("a/1.png\nb/0.png\n")
    return tmp_path


def split_with(folder, **repeats):
    images, held_out = tokenizer_recipe.open_split(
        tokenizer_recipe.DataConfig(
            images=str(folder / "images"), held_out=str(folder / "list.txt"), repeats=repeats
        )
    )
    root = f"{folder / 'images'}/"
    return [[name.removeprefix(root) for name in part.names] for part in (images, held_out)]


def test_images_of_a_sub_folder_come_as_often_as_asked_and_held_out_ones_never(folder):
    images, held_out = split_with(folder, b=3, a=2)
    assert images == ["a/0.png", "a/2.png", "b/1.png", "b/1.png", "b/1.png", "a/0.png", "a/2.png"]
    assert held_out == ["a/1.png", "b/0.png"]
    with pytest.raises(UserError, match=r"repeats names 'c': .* has no such sub-folder"):
        split_with(folder, c=2)
    with pytest.raises(UserError, match=r"config\.data\.repeats has 'a' 0 times: at least once"):
        split_with(folder, a=0)


def test_a_codebook_starts_from_kmeans_of_training_images(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(12):
        picture = generator.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number:02}.png")
    config = experiment("tokenizer", argument="patches,runlocal")
    model = dataclasses.replace(config.model, resolution=16, num_embeddings=30)
    config = dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, images=str(tmp_path), held_out_fraction=0.2),
        kmeans=tokenizer_recipe.KMeansConfig(images=16, iterations=10),
    )
    run = RECIPES["tokenizer"].prepare(config, epath.Path(tmp_path / "work"))
    assert run.warm_start is not None
    state = init_state(run.task, 0, run.mesh)
    begun, again = run.warm_start(state), run.warm_start(state)

    def error(state) -> float:
        vqgan = run.task.export(state)
        quantized = vqgan.quantize(vqgan.encode_features(to_float(next(run.batches)["images"])))
        return float(np.square(quantized.inputs_BhwD - quantized.codes_BhwD).mean())

    # 30 codes for at most 64 features of 12 pictures: nearly every feature has a code of its own.
    assert error(begun) < 0.6 * error(state)
    codes, average = (
        each["quantizer"]["codebook"][...] for each in (begun["params"]["generator"], begun["ema"])
    )
    np.testing.assert_array_equal(codes, average)
    np.testing.assert_array_equal(codes, again["params"]["generator"]["quantizer"]["codebook"][...])
    step = jax.jit(run.task.step, donate_argnums=0)  # two leaves in one buffer could not be donated
    step(begun, next(run.batches), jax.random.key(0))


def test_kmeans_without_a_round_is_refused():
    with pytest.raises(UserError, match="iterations=0"):
        tokenizer_recipe.KMeansConfig(images=8, iterations=0)


@pytest.fixture
def pairs(tmp_path, write_shards):
    write_shards(tmp_path, {"pairs": ("image,depth,image,depth", 2)}, "0123456789abcdef")
    return str(tmp_path / "tiny")


def of_shards(shards, model=None, **data):
    """The LVM experiment on tiny shards: 24 codes, 4 of them an image."""
    config = experiment("lvm")
    shape = {"vocab_size": 124, "bos_token_id": 24, "eos_token_id": 25, "pad_token_id": 26}
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **shape, **(model or {})),
        data=dataclasses.replace(config.data, shards=shards, seq_len=17, **data),
    )


def test_what_the_config_weighs_the_batches_weigh(pairs):
    for weight in (1.0, 0.1):
        with open_batches(of_shards(pairs, question_weight=weight)) as batches:
            found = batches.batch_at(0)["loss_weights"]
        assert set(np.unique(found)) == {np.float32(0), np.float32(weight), np.float32(1)}


@pytest.mark.parametrize(
    "option",
    [
        {"place_embeddings": True, "tokens_per_image": 4},
        {"positions": "rotary_2d", "tokens_per_image": 4},
        {"look_back": 4},
    ],
)
def test_positions_that_know_images_fit_the_shards(pairs, option):
    with open_batches(of_shards(pairs, option)):
        pass
    others = {name: 16 if value == 4 else value for name, value in option.items()}
    with pytest.raises(UserError, match=r"(image|back) is 16 and .* 4 codes: set --config"):
        open_batches(of_shards(pairs, others))
    with pytest.raises(UserError, match=r"packing is 'concat', whose positions run through"):
        open_batches(of_shards(pairs, option, packing="concat"))
