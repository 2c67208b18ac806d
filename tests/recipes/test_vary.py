"""Both stages of Vary on tiny shards: a run, what it logs and exports, and its tower in the next stage's model."""

import dataclasses
import importlib.util
import io
import json
import pathlib

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx
from PIL import Image

from data_pipelines.train_text_tokenizer import character_table, small_settings
from lvm_jax.config import defaults, from_mapping
from lvm_jax.data.image_text.conversation import Conversation, Turn
from lvm_jax.data.image_text.record import ImageText, ImageTextWriter
from lvm_jax.data.records.manifest import Manifest, shard_name
from lvm_jax.data.text_tokenizer import TextTokenizer, save_folder
from lvm_jax.errors import UserError
from lvm_jax.models import VisionLanguage
from lvm_jax.recipes.vary import RECIPE, DataConfig, Experiment, StartConfig
from lvm_jax.training.loop import init_state, train

CONFIG = pathlib.Path(__file__).parents[2] / "experiments" / "configs" / "vary.py"


def experiment(argument, data, **changes):
    spec = importlib.util.spec_from_file_location("config_vary", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_mapping(RECIPE.experiment, module.get_config(argument))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    return dataclasses.replace(config, **changes)


def picture(number):
    file = io.BytesIO()
    Image.fromarray(np.full((40, 48, 3), 40 * number, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Lines and charts, eight to train on and four held out."""
    root = tmp_path_factory.mktemp("shards")
    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    for split, numbers in (("train", range(8)), ("validation", range(8, 12))):
        with ImageTextWriter(folder / shard_name("tiny", split, 0, 1)) as writer:
            for i in numbers:
                source = ("lines", "charts")[i % 2]
                turns = Conversation((Turn("<image>\nread", str(i % 5)),))
                key = f"{source}/{i:02d}"
                writer.add(ImageText((picture(i % 5),), turns, source, key, "CC0-1.0"))
    about = {"category": 0, "licence": "CC0-1.0", "origin": "drawn", "sentences": 6, "images": 6}
    Manifest(
        tokenizer_fingerprint="",
        codebook_size=0,
        image_size=0,
        tokens_per_image=0,
        splits={
            split: {"sentences": n, "images": n, "shards": 1}
            for split, n in (("train", 8), ("validation", 4))
        },
        sources={"lines": about, "charts": about},
        encoding="image_text",
    ).save(folder)
    return str(root)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Template -> the folder of a table of characters."""
    root = tmp_path_factory.mktemp("tokenizers")
    for template in ("opt", "mpt"):
        settings = small_settings(template)
        save_folder(root / template, character_table(["0123456789 read\n"], settings), settings)
    return {template: str(root / template) for template in ("opt", "mpt")}


def run_of(config, workdir):
    run = RECIPE.prepare(config, epath.Path(workdir))
    state = train(
        run.task,
        run.batches,
        config.train,
        mesh=run.mesh,
        workdir=workdir,
        evaluations=run.evaluations,
        experiment=run.record,
        defaults=defaults(RECIPE.experiment),
        warm_start=run.warm_start,
    )
    run.export(state, epath.Path(workdir) / "model")
    run.batches.close()
    return state


@pytest.mark.slow
def test_both_stages(shards, tokenizers, tmp_path):
    data = {"shards": shards, "tokenizer": tokenizers["opt"]}
    config = experiment("tiny,runlocal", data)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=3))
    state = run_of(config, tmp_path / "one")
    exported = VisionLanguage.from_pretrained(tmp_path / "one" / "model")
    trained = dict(nnx.to_flat_state(state["params"]))
    for path, value in nnx.to_flat_state(nnx.state(exported, nnx.Param)):
        np.testing.assert_array_equal(value[...], trained[path][...], err_msg=str(path))
    beside = TextTokenizer(tmp_path / "one" / "model")
    assert exported.tokenizer_fingerprint == beside.fingerprint
    lines = [json.loads(x) for x in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    logged = {name for line in lines for name in line}
    assert {"evaluation/image_use/share_between_images", "validation/loss"} <= logged
    assert {
        f"evaluation/image_use/{kind}/loss_other_image" for kind in ("lines", "charts")
    } <= logged

    # A run may begin with all of it.
    start = StartConfig(model=str(tmp_path / "one" / "model"))
    run = RECIPE.prepare(dataclasses.replace(config, init_from=start), epath.Path(tmp_path))
    begun = run.warm_start(init_state(run.task, 0, run.mesh))
    for a, b in zip(*(jax.tree.leaves(s["params"]) for s in (begun, state)), strict=True):
        np.testing.assert_array_equal(a, b)
    other = RECIPE.make_task(experiment("base,runlocal", {}))
    with pytest.raises(UserError, match=r"holds another model \(config.model.decoder\.\w+: "):
        other.load({}, start.model)

    # The second stage begins with that tower, which is frozen; its projector and decoder are new.
    data = {"shards": shards, "tokenizer": tokenizers["mpt"], "seq_len": 47}
    start = StartConfig(tower=str(tmp_path / "one" / "model"))
    run = RECIPE.prepare(experiment("base,runlocal", data, init_from=start), epath.Path(tmp_path))
    fresh = init_state(run.task, 0, run.mesh)
    begun = run.warm_start(fresh)
    tower = dict(nnx.to_flat_state(begun["params"]["frozen"]["vitdet"]["tower"]))
    assert tower.keys() == {path[2:] for path in trained if path[:2] == ("vitdet", "tower")}
    for path, value in tower.items():
        np.testing.assert_array_equal(value[...], trained["vitdet", "tower", *path][...])
    for a, b in zip(
        *(jax.tree.leaves(s["params"]["trained"]) for s in (begun, fresh)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    jax.jit(run.task.step)(begun, next(run.batches), jax.random.key(0))
    run.batches.close()


def test_what_does_not_fit_is_named(shards, tokenizers, tmp_path):
    data = {"shards": shards, "tokenizer": tokenizers["opt"]}

    def prepare(argument="tiny,runlocal", **changes):
        RECIPE.prepare(
            experiment(argument, {**data, **changes.pop("data", {})}, **changes), tmp_path
        )

    with pytest.raises(UserError, match=r"image_patch has id 2 in .* and config.model.image_patch"):
        prepare("base,runlocal")
    with pytest.raises(UserError, match=r"seq_len is 200 and the decoder has 128 positions"):
        prepare(data={"seq_len": 200})
    with pytest.raises(UserError, match=r"config.data.shards is empty"):
        prepare(data={"shards": ""})
    with pytest.raises(UserError, match=r"evaluators.imge_use does not exist; known: image_use"):
        prepare(evaluators={"imge_use": 1})
    with pytest.raises(UserError, match=r"init_from.model names a whole model: leave"):
        StartConfig(model="a", tower="b")
    with pytest.raises(UserError, match=r"the first at step 0, in order"):
        DataConfig("", "", 8, stages=((3, 0),))
    with pytest.raises(UserError, match=r"each stage is \(step, longest answer"):
        DataConfig("", "", 8, stages=((0, 0, 0),))
    config = experiment("tiny,runlocal", data, init_from=StartConfig(clip="somewhere"))
    run = RECIPE.prepare(config, tmp_path)
    with pytest.raises(UserError, match=r"init_from.clip is set, and config.model.clip is None"):
        run.warm_start(init_state(run.task, 0, run.mesh))
    assert isinstance(config, Experiment)
