"""The unified recipe: from pools to a folder that answers, resumed bit for bit, and settings that do not fit."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from test_recipes import experiment

from lvm_jax.data.in_context.format_folder import (
    FORMAT_FILE,
    has_format,
    read_format,
    read_questions,
)
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.errors import UserError
from lvm_jax.inference.in_context import InContextEngine, InContextPrompt
from lvm_jax.models import Decoder
from lvm_jax.recipes import RECIPES
from lvm_jax.training.loop import train

sys.path.append(str(Path(__file__).parent.parent / "data"))
from pool_fakes import CODES, PER_IMAGE, records, write_pool
from text_fakes import FOLDER as TEXT

UNIFIED = RECIPES["unified"]
PAIR = (PER_IMAGE + 1, PER_IMAGE + 2)
ARGUMENT = f"debug,text=400,image={CODES},bins=11,tokens={PER_IMAGE},runlocal"


def configured(shards="", text=TEXT, **changes):
    config = experiment("unified", ARGUMENT)
    rows = dataclasses.replace(config.rows, shots=(1.0, 1.0), category={"none": 1.0})
    sizes = {"max_position_embeddings": 160, "tokens_per_image": sum(PAIR)}
    model = dataclasses.replace(config.model, **sizes)
    data = dataclasses.replace(config.data, shards=str(shards), text_tokenizer=str(text))
    evaluation = dataclasses.replace(config.evaluation, rows=8, episodes=4)
    form = dataclasses.replace(config.format, category_room=0)
    moe = {"dispatch": "spans", "spans": PAIR}
    model = dataclasses.replace(model, moe=dataclasses.replace(model.moe, **moe))
    whole = {"rows": rows, "model": model, "data": data, "evaluation": evaluation, "format": form}
    return dataclasses.replace(config, **whole | changes)


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    root = tmp_path_factory.mktemp("pools")
    write_pool(root, records(30))
    write_pool(root, records(12), name="held", split="validation")
    return root


def run(config, workdir):
    made = UNIFIED.prepare(config, epath.Path(workdir))
    state = train(
        made.task,
        made.batches,
        config.train,
        mesh=made.mesh,
        workdir=workdir,
        evaluations=made.evaluations,
        experiment=made.record,
    )
    return made, state


@pytest.mark.slow
def test_from_pools_to_answers_with_a_stop_between(pools, tmp_path):
    config = configured(pools)
    short = {"log_every": 1, "eval_every": 0, "checkpoint_every": 2, "steps": 4}
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **short))
    made, whole = run(config, tmp_path / "whole")
    half = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2))
    run(half, tmp_path / "stopped")
    path = tmp_path / "stopped" / "config.json"
    saved = json.loads(path.read_text())
    saved["train"]["steps"] = 4
    path.write_text(json.dumps(saved))
    _, resumed = run(config, tmp_path / "stopped")
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)

    lines = [json.loads(x) for x in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    named = {name for line in lines for name in line}
    for name in ("segmentation", "captioning"):
        assert {f"train/loss/{name}", f"validation/{name}/loss"} <= named

    folder = epath.Path(tmp_path / "model")
    made.export(whole, folder)
    assert has_format(folder)
    form, model = read_format(folder), Decoder.from_pretrained(folder)
    prompt = InContextPrompt((), np.arange(PER_IMAGE), Question.SEGMENTATION)
    masks = InContextEngine(model, form).masks([prompt])
    assert masks.shape == (1, 1, PER_IMAGE)
    assert 0 <= masks.min() <= masks.max() < CODES
    assert read_questions(folder) == (Question.SEGMENTATION, Question.CAPTIONING)
    fields = json.loads((folder / FORMAT_FILE).read_text())
    (folder / FORMAT_FILE).write_text(json.dumps(fields | {"questions": ["depth"]}))
    with pytest.raises(UserError, match="the list questions of some of segmentation, captioning"):
        read_questions(folder)
    (folder / FORMAT_FILE).write_text("{}")
    with pytest.raises(UserError, match=r"in_context.json must hold the whole numbers bins"):
        read_format(folder)


def changed(part, **fields):
    config = configured()
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **fields)}
    )


def with_spans(spans):
    config = configured()
    moe = dataclasses.replace(config.model.moe, spans=spans)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, moe=moe))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("vocabulary", bins=0), r"vocab_size is \d+ and the vocabulary makes it"),
        (changed("data", one_question=False), r"balance is True and config.data.one_question False"),
        (changed("format", category_room=6), r"tokens_per_image is 51 and a pair has 57 tokens: set it to"),
        (changed("model", look_back=24), r"look_back is 24 and a picture's codes stand 25 tokens before"),
        (changed("optimizer", weights=(1.0,)), r"weights has 1 numbers for the questions segm"),
        (changed("optimizer", balance=False, weights=(1.0, 2.0)), r"\(1.0, 2.0\) and config.optimizer.b"),
        (changed("data", shares="segmentation=1"), r"give each of segmentation, captioning a number"),
        (changed("data", questions=()), r"the questions are none: ask at least one"),
        (changed("optimizer", clip_norm=0.5), r"clip_norm=0.5 with gradients of norm 1.0"),
        (with_spans((3, 4)), r"moe.spans is \(3, 4\) and pairs have \(25, 26\)"),
        (
            dataclasses.replace(
                configured(),
                data=changed("data", one_question=False).data,
                optimizer=changed("optimizer", balance=False).optimizer,
            ),
            r"'spans' and config.data.one_question is False: spans need batches whose rows are al",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_one_line(config, message):
    with pytest.raises(UserError, match=message):
        UNIFIED.make_task(config)


def test_data_that_is_missing_or_does_not_fit_is_one_line(pools, tmp_path):
    for config, message in (
        (configured(), r"config.data.shards is empty"),
        (configured(pools, text=""), r"config.data.text_tokenizer is empty"),
    ):
        with pytest.raises(UserError, match=message):
            UNIFIED.prepare(config, epath.Path(tmp_path))
    few = dataclasses.replace(configured(pools).model, max_position_embeddings=60)
    with pytest.raises(UserError, match=r"1 examples and a query have 102 tokens, the decoder 60"):
        UNIFIED.prepare(dataclasses.replace(configured(pools), model=few), epath.Path(tmp_path))
    config = dataclasses.replace(configured(pools), evaluators={"answer": 1})
    with pytest.raises(UserError, match=r"config.evaluators.answer does not exist"):
        UNIFIED.prepare(config, epath.Path(tmp_path))
    config = dataclasses.replace(configured(pools), evaluators={"controls": -1})
    with pytest.raises(UserError, match=r"config.evaluators.controls is -1: a number of steps, 0"):
        UNIFIED.prepare(config, epath.Path(tmp_path))
    config = dataclasses.replace(configured(pools), evaluators={"answers": 1})
    with pytest.raises(UserError, match=r"answers is on and config.evaluation.tokenizer empty"):
        UNIFIED.prepare(config, epath.Path(tmp_path))
