"""The recipe of MAE-VQGAN and SegGPT: from pools to a folder that answers, and what is missing is asked for."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx
from test_recipes import experiment

from lvm_jax.data.in_context.sequences import Question
from lvm_jax.errors import UserError
from lvm_jax.inference.answerers import read_answerer
from lvm_jax.inference.in_context import InContextPrompt
from lvm_jax.models import VQGAN, presets
from lvm_jax.recipes import RECIPES
from lvm_jax.training.loop import train

sys.path.append(str(Path(__file__).parent.parent / "data"))
from pool_fakes import records, write_pool

PEERS = RECIPES["in_context_peers"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pools of 16 pixels, and their tokenizer."""
    root = tmp_path_factory.mktemp("pools")
    vqgan = jax.jit(lambda: VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0)))()
    vqgan.save_pretrained(root / "tokenizer")
    sizes = {
        "codebook_size": vqgan.codebook_size,
        "tokens_per_image": vqgan.tokens_per_image,
        "tokenizer_fingerprint": vqgan.fingerprint(),
    }
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 9)):
        made = [
            dataclasses.replace(
                one,
                picture=rng.integers(0, 32, vqgan.tokens_per_image),
                mask=rng.integers(0, 32, vqgan.tokens_per_image),
                boxed=None,
            )
            for one in records(count)
        ]
        write_pool(root / "pools", made, name=split, split=split, **sizes)
    return root


def configured(data, kind="mae_vqgan", **changes):
    config = experiment("in_context_peers", f"{kind},size=debug,runlocal")
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, shards=str(data / "pools"), tokenizer=str(data / "tokenizer")
        ),
        evaluation=dataclasses.replace(config.evaluation, rows=8, episodes=4, answers=2),
        train=dataclasses.replace(config.train, steps=2, eval_every=2, checkpoint_every=0),
    )
    return dataclasses.replace(config, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mae_vqgan", "seggpt"])
def test_from_pools_to_answers(data, kind, tmp_path):
    config = configured(data, kind)
    made = PEERS.prepare(config, epath.Path(tmp_path))
    state = train(
        made.task,
        made.batches,
        config.train,
        mesh=made.mesh,
        workdir=tmp_path,
        evaluations=made.evaluations,
        experiment=made.record,
    )
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    named = {name for line in lines for name in line}
    assert {"train/loss", "validation/segmentation/loss"} <= named
    assert {"answers/segmentation/model/miou", "answers/segmentation/copy/miou"} <= named
    made.export(state, epath.Path(tmp_path / "model"))
    vqgan = VQGAN.from_pretrained(data / "tokenizer")
    answerer = read_answerer(tmp_path / "model", vqgan)
    codes = np.arange(64) % 32
    (mask,) = answerer.draw_masks([InContextPrompt((), codes, Question.SEGMENTATION)])
    assert mask.shape == (16, 16, 3)
    if kind == "mae_vqgan":
        assert answerer.model.tokenizer_fingerprint == vqgan.fingerprint()


def test_what_does_not_fit_is_one_line(data, tmp_path):
    config = configured(data)
    for change, message in (
        (
            {"data": dataclasses.replace(config.data, tokenizer="")},
            r"config.data.tokenizer is empty: name the folder of the pools' tokenizer",
        ),
        (
            {"mae_vqgan": dataclasses.replace(config.mae_vqgan, codes=99)},
            r"MAE-VQGAN has codes=99, and a tokenizer of 16 pixels and patches of 2 makes it 32",
        ),
    ):
        with pytest.raises(UserError, match=message):
            PEERS.prepare(dataclasses.replace(config, **change), epath.Path(tmp_path))
    with pytest.raises(UserError, match=r"answers=-1: rows and answers are at least 0"):
        dataclasses.replace(config.evaluation, answers=-1)
