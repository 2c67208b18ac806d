"""Evaluators called by the training loop: the numbers of the evaluator itself, when they are due, and their time."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.token_loader import TokenLoader
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import check_periods
from lvm_jax.evaluation.lvm.controls import ControlsEvaluator
from lvm_jax.evaluation.lvm.in_context import AnnotationPerplexityEvaluator
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.lvm.while_training import NAMES, EvaluationConfig, make_evaluations
from lvm_jax.files import read_jsonl
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.loop import Every, TrainConfig, train
from lvm_jax.training.optimizer import OptimizerConfig, make_optimizer

LAYOUTS = {"clips": ("frame*4", 3), "depth": ("image,depth,image,depth", 2), "photos": ("image", 1)}
CODES = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory, vqgan, write_shards):
    root = tmp_path_factory.mktemp("evaluators")
    write_shards(root / "shards", LAYOUTS, vqgan.fingerprint())
    vqgan.save_pretrained(root / "tokenizer")
    for i in range(4):
        folder = root / "corpus" / "scenes" / str(i)
        folder.mkdir(parents=True)
        for name in ("image", "depth"):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    (root / "corpus" / "validation.txt").write_text("scenes/3\n")
    return root


def settings(root, **changes):
    config = EvaluationConfig(
        shots=1, benchmarks=f"scene_depth={root}/corpus/scenes", tokenizer=str(root / "tokenizer"), episodes=1
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


@pytest.mark.slow
def test_they_run_when_due_and_give_the_evaluators_numbers(root, model, tmp_path):
    task = DecoderTask(
        model.config, make_optimizer(OptimizerConfig(warmup_steps=1, decay_steps=4)), seq_len=16
    )
    shards = str(root / "shards")
    names = ["next_token", "controls", "in_context", "annotations", "benchmarks"]
    made = make_evaluations(names, settings(root), shards, task.model)
    assert list(made) == names
    every = {"next_token": 2, "controls": 4, "in_context": 3, "annotations": 0, "benchmarks": 3}
    with TokenLoader(shards, "train", 16, 2, 0) as batches:
        state = train(
            task,
            batches,
            TrainConfig(steps=4, batch_size=2, log_every=2, eval_every=1, checkpoint_every=0),
            mesh=make_mesh(devices=jax.devices()[:1]),
            workdir=tmp_path,
            evaluations=[Every(every[n], e) for n in names for e in made[n]],
        )
    lines = read_jsonl(tmp_path / "metrics.jsonl")

    def steps(name):
        return [line["step"] for line in lines if name in line]

    assert steps("evaluation/next_token/category/annotated_image/code_loss") == [2, 4]
    assert steps("evaluation/controls/clips: next frame/uses_last") == [4]
    assert steps("evaluation/in_context/sequential/context_3/corpus_perplexity") == [3, 4]
    assert steps("evaluation/annotations/depth/corpus_perplexity") == [4]
    assert steps("evaluation/benchmarks/scene_depth/tokenizer_ceiling/absrel") == [3, 4]
    assert json.loads((tmp_path / "goodput.json").read_text())["evaluation"] > 0

    sentences = read_sentences(SentenceStore(shards, "validation"))
    scorer = Scorer(task.model(state), CODES)
    merged = {name: value for line in lines for name, value in line.items()}  # the last of each
    for name, evaluator in {
        "controls": ControlsEvaluator(sentences),
        "next_token": NextTokenEvaluator(sentences, CODES),
        "annotations": AnnotationPerplexityEvaluator(sentences, shots=1),
    }.items():
        wanted = {n: v for n, v in evaluator.run(scorer).items() if not isinstance(v, str)}
        got = {n: merged[f"evaluation/{name}/{n}"] for n in wanted}
        assert got == pytest.approx(wanted, rel=1e-5)
    assert not any(isinstance(value, str) for value in merged.values())


def test_they_are_deterministic(root, model):
    state = {"params": nnx.state(model, nnx.Param)}
    names = ["next_token", "benchmarks"]

    def run():
        made = make_evaluations(names, settings(root), str(root / "shards"), lambda _: model)
        return [evaluation(1, state) for n in names for evaluation in made[n]]

    assert run() == run()


def test_mistakes_show_before_training(root, model):
    def make(**changes):
        make_evaluations(
            ["benchmarks"], settings(root, **changes), str(root / "shards"), lambda _: model
        )

    with pytest.raises(UserError, match=r"evaluators\.benchmarks needs NAME=ROOT and a tokenizer"):
        make(tokenizer="")
    with pytest.raises(UserError, match=r"evaluators\.benchmarks needs NAME=ROOT"):
        make(benchmarks="scene_depth")
    with pytest.raises(UserError, match="benchmark 'singing' does not exist; known: pascal5i"):
        make(benchmarks="singing=here")
    with pytest.raises(
        UserError, match=r"config\.evaluation\.episodes is 0: it must be at least 1"
    ):
        make(episodes=0)
    with pytest.raises(
        UserError, match=r"config\.evaluators\.nex_token does not exist; known: next"
    ):
        check_periods({"nex_token": 5}, NAMES)
    with pytest.raises(UserError, match=r"config\.evaluators\.benchmarks is -1"):
        check_periods({"benchmarks": -1}, NAMES)
    with pytest.raises(UserError, match=r"config\.evaluators\.benchmarks is True"):
        check_periods({"benchmarks": True}, NAMES)
    assert make_evaluations([], settings(root), "nowhere", lambda _: model) == {}


def test_another_tokenizer_than_that_of_the_shards(root, model, write_shards, tmp_path):
    write_shards(tmp_path / "shards", LAYOUTS, "0123456789abcdef")
    with pytest.raises(
        UserError, match="tokenizer_fingerprint is '0123456789abcdef' in the shards"
    ):
        make_evaluations(["benchmarks"], settings(root), str(tmp_path / "shards"), lambda _: model)
