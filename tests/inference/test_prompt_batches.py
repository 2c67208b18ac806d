"""Held-out prompts hide the right images, their scores are right, and a finished prompt is not asked again."""

import dataclasses
import json
import os

import numpy as np
import pytest
from etils import epath
from flax import nnx
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.inference import prompt_batches
from lvm_jax.inference.cases import Case, held_out_cases
from lvm_jax.inference.images import Engine
from lvm_jax.inference.prompt_batches import Request, answer_all, decoder_fingerprint
from lvm_jax.inference.prompt_files import read_prompts
from lvm_jax.models.decoder.llama import Llama
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig

CODES, TOKENS, SIZE = 24, 4, 4


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    config = VQGANConfig(
        resolution=SIZE,
        hidden_channels=4,
        channel_mult=(1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        no_attn_mid_block=True,
        z_channels=4,
        num_embeddings=CODES,
        quantized_embed_dim=4,
        norm_groups=2,
    )
    return VQGAN(config, rngs=nnx.Rngs(0))


class FixedEngine:
    """Candidate b answers image i with the codes `answers[b][i]`; counts how often it is asked."""

    context_images = 8

    def __init__(self, answers):
        self.answers = np.asarray(answers)
        self.calls = 0

    def generate_scored(self, prompts, n_images, *, n_candidates, sampling, seed):
        self.calls += 1
        likelihoods = np.arange(n_candidates, dtype=np.float32)  # the last is the likeliest
        made = np.stack([self.answers[:n_candidates, :n_images]] * len(prompts))
        return made, np.stack([likelihoods] * len(prompts))


def test_what_is_hidden_of_each_kind(make_sentence):
    sentences = [
        make_sentence("frame*6", 3, 0, "clips"),
        make_sentence("frame*5", 3, 1, "clips"),
        make_sentence("image,depth,image,depth", 2, 2, "depth"),
        make_sentence("frame,mask,frame,mask", 4, 3, "masks"),
        make_sentence("frame*9", 5, 4, "too-long"),
        make_sentence("frame*2", 5, 5, "too-short"),
        make_sentence("image", 1, 6, "photos"),
    ]
    cases = held_out_cases(sentences, n_images=2, limit=0, context_images=8)
    assert [(c.name, len(c.prompt_PN), len(c.truth_IN)) for c in cases] == [
        ("000-analogy-depth", 3, 1),
        ("001-sequential-clips", 4, 2),
        ("002-sequential-masks", 2, 2),
        ("003-sequential-clips", 3, 2),
    ]
    assert np.array_equal(
        np.concatenate([cases[1].prompt_PN, cases[1].truth_IN]), sentences[0].codes
    )
    limited = held_out_cases(sentences, n_images=2, limit=2, context_images=8)
    assert [c.name for c in limited] == [c.name for c in cases[:2]]
    with pytest.raises(UserError, match="no held-out sentence has more than 7"):
        held_out_cases(sentences[4:], n_images=7, limit=0, context_images=7)


def case_of(name="a", source="s") -> Case:
    codes = np.random.default_rng(3).integers(0, CODES, (4, TOKENS)).astype(np.int32)
    codes[1, :2], codes[1, 2:] = (
        codes[3, :2],
        (codes[3, 2:] + 1) % CODES,
    )  # the earlier answer: half right
    roles = ("image", "depth", "image", "depth")
    return Case(name, "analogy", source, "key", roles, codes[:3], codes[3:])


def test_scores_files_and_the_copy_baseline(vqgan, tmp_path):
    case = case_of()
    wrong = (case.truth_IN + 1) % CODES
    engine = FixedEngine([case.truth_IN, wrong])  # one candidate is perfect, one has no code right
    summary = answer_all(
        [case], engine, vqgan, Request(n_candidates=2), epath.Path(tmp_path), {"id": 1}
    )
    record = summary["prompts"][0]
    assert record["token_accuracy"] == 0.5
    assert record["copy_token_accuracy"] == 0.5
    decode = lambda codes: np.asarray(vqgan.decode(codes))  # noqa: E731
    psnr = lambda a, b: -10 * np.log10(max(np.mean((a - b) ** 2), 1e-10))  # noqa: E731
    truth = decode(case.truth_IN)
    assert record["psnr"] == pytest.approx((100 + psnr(decode(wrong), truth)) / 2, rel=1e-3)
    assert record["copy_psnr"] == pytest.approx(psnr(decode(case.prompt_PN[1:2]), truth), rel=1e-3)
    assert summary["means"]["psnr"] == record["psnr"]
    assert json.loads((tmp_path / "prompts.json").read_text()) == json.loads(json.dumps(summary))
    files = [
        *record["prompt"],
        *(made[0] for made in record["predictions"]),
        *record["truth"],
        record["strip"],
    ]
    assert len(files) == 3 + 2 + 1 + 1
    assert all((tmp_path / file).stat().st_size > 0 for file in files)
    with Image.open(tmp_path / record["predictions"][1][0]) as shown:
        np.testing.assert_allclose(np.asarray(shown) / 255, decode(wrong)[0], atol=0.6 / 255)


@pytest.mark.parametrize("answer", ["mean", "likeliest"])
def test_one_answer_is_made_of_the_candidates(vqgan, tmp_path, answer):
    case = case_of()
    wrong = (case.truth_IN + 1) % CODES
    engine = FixedEngine([case.truth_IN, wrong])
    request = Request(n_candidates=2, answer=answer)
    record = answer_all([case], engine, vqgan, request, epath.Path(tmp_path), {})["prompts"][0]
    right, other = (np.asarray(vqgan.decode(codes))[0] for codes in (case.truth_IN, wrong))
    expected = (right + other) / 2 if answer == "mean" else other
    assert record["token_accuracy"] == 0.5  # of the candidates
    mse = max(np.mean((expected - right) ** 2), 1e-10)
    assert record["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-3)
    ((file,),) = record["predictions"]
    with Image.open(tmp_path / file) as shown:
        np.testing.assert_allclose(np.asarray(shown) / 255, expected, atol=0.6 / 255)


def test_finished_prompts_are_not_asked_again(vqgan, tmp_path):
    output, request = epath.Path(tmp_path), Request()
    cases = [case_of("a"), case_of("b")]
    engine = FixedEngine([cases[0].truth_IN])
    first = answer_all(cases, engine, vqgan, request, output, {"seed": 0})
    assert engine.calls == 2
    assert answer_all(cases, engine, vqgan, request, output, {"seed": 0}) == first
    assert engine.calls == 2
    (tmp_path / "b" / "prompt.json").unlink()
    assert answer_all(cases, engine, vqgan, request, output, {"seed": 0}) == first
    assert engine.calls == 3
    answer_all(cases, engine, vqgan, request, output, {"seed": 1})
    assert engine.calls == 5
    changed = dataclasses.replace(cases[0], prompt_PN=(cases[0].prompt_PN + 1) % CODES)
    answer_all([changed, cases[1]], engine, vqgan, request, output, {"seed": 1})
    assert engine.calls == 6


def test_a_batch_that_was_stopped_is_asked_whole_and_only_what_is_missing_is_written(
    model, vqgan, tmp_path, make_sentence
):
    """Answers in a batch of another size could differ in a rounding: the batches are those of the whole list."""
    sentences = [make_sentence("frame*3", 3, seed) for seed in range(3)]
    sentences.append(make_sentence("image,depth,image,depth", 2, 9))
    cases = held_out_cases(sentences, n_images=2, limit=0, context_images=8)
    request, output = Request(n_candidates=2, seed=3), epath.Path(tmp_path)
    engine, batches = Engine(model, TOKENS, CODES), []

    class Counting:
        def generate_scored(self, prompts, *args, **options):
            batches.append(len(prompts))
            return engine.generate_scored(prompts, *args, **options)

    def run():
        batches.clear()
        answer_all(cases, Counting(), vqgan, request, output, {}, batch_size=3)
        return (output / "prompts.json").read_bytes()

    first = run()
    assert batches == [1, 2, 1]  # the analogy asks for one image, its neighbours for two
    strips = [output / case.name / "strip.png" for case in cases]
    pixels = [strip.read_bytes() for strip in strips]
    times = [os.stat(strip).st_mtime_ns for strip in strips]  # epath's are whole seconds
    (output / cases[1].name / prompt_batches.RECORD).unlink()  # as if it had been killed there
    strips[1].unlink()
    assert run() == first
    assert batches == [1, 2]
    assert [strip.read_bytes() for strip in strips] == pixels
    kept = [t == os.stat(strip).st_mtime_ns for t, strip in zip(times, strips)]
    assert kept == [True, False, True, True]
    assert run() == first
    assert batches == []


def test_answers_do_not_go_among_the_pictures_of_prompts(vqgan, tmp_path):
    """Else the next run would read them as pictures of the prompt."""
    for name in ("a", "b"):
        (tmp_path / "asked" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "asked" / name / "0.png")
    engine, cases = FixedEngine([case_of().truth_IN]), read_prompts(tmp_path / "asked", vqgan)
    (tmp_path / "link").symlink_to(tmp_path / "asked")
    for output in ("asked", "link"):
        with pytest.raises(
            UserError, match=r"0\.png lies where its answer would go, .*another out"
        ):
            answer_all(cases, engine, vqgan, Request(), epath.Path(tmp_path / output), {})
    assert engine.calls == 0
    answer_all(cases, engine, vqgan, Request(), epath.Path(tmp_path / "asked" / "out"), {})
    assert engine.calls == 2


def test_pictures_in_their_original_size(vqgan, tmp_path):
    case = dataclasses.replace(case_of(), sizes=((5, 9), (6, 6), (20, 10)))
    engine = FixedEngine([case.truth_IN])
    for aspect, expected in {
        "square": [(SIZE, SIZE)] * 4,
        "original": [(9, 5), (10, 20), (10, 20), (10, 20)],
    }.items():
        output, request = epath.Path(tmp_path / aspect), Request(aspect=aspect)
        answer_all([case], engine, vqgan, request, output, {})
        found = []
        for name in ("prompt_0", "prompt_2", "prediction_0_0", "truth_0"):
            with Image.open(output / "a" / f"{name}.png") as picture:
                found.append(picture.size)
        assert found == expected
    with pytest.raises(UserError, match="aspect is 'wide'"):
        Request(aspect="wide")


def test_a_prompt_without_truth_has_no_scores(vqgan, tmp_path):
    case = dataclasses.replace(case_of(), truth_IN=np.zeros((0, TOKENS), np.int32))
    engine = FixedEngine(np.zeros((1, 2, TOKENS), np.int32))
    summary = answer_all([case], engine, vqgan, Request(n_images=2), epath.Path(tmp_path), {})
    assert summary["means"] == {}
    assert "psnr" not in summary["prompts"][0]
    assert len(summary["prompts"][0]["predictions"][0]) == 2


def test_with_a_decoder_it_is_deterministic(model, vqgan, tmp_path, make_sentence):
    sentences = [make_sentence("frame*3", 3, seed) for seed in range(2)]
    cases = held_out_cases(sentences, n_images=1, limit=0, context_images=8)
    request = Request(n_candidates=2, seed=3)
    summaries = []
    for run in ("x", "y"):
        engine = Engine(model, TOKENS, CODES)
        identity = request.described(vqgan, model)
        summaries.append(
            answer_all(cases, engine, vqgan, request, epath.Path(tmp_path / run), identity)
        )
    assert summaries[0] == summaries[1]
    strips = [(tmp_path / run / cases[0].name / "strip.png").read_bytes() for run in ("x", "y")]
    assert strips[0] == strips[1]


def test_the_fingerprint_is_of_the_weights(model):
    same = Llama(model.config, rngs=nnx.Rngs(1))
    other = Llama(model.config, rngs=nnx.Rngs(2))
    assert decoder_fingerprint(model) == decoder_fingerprint(same)
    assert decoder_fingerprint(model) != decoder_fingerprint(other)
    assert len(decoder_fingerprint(model)) == 16
    assert prompt_batches.RECORD == "prompt.json"
