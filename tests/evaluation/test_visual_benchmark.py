"""The right pictures are asked and compared, and the baselines are what they say."""

import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import segmentation, worst_to_best
from lvm_jax.evaluation.lvm.shown_answers import best_middle_worst
from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Episode, Subject
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.metrics import states
from lvm_jax.metrics.states import Mean
from lvm_jax.models import VQGAN, presets
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.pictures.pixels import to_uint8


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    return VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0))


class Answering:
    """Answers each prompt with its image number `place`; keeps what it was asked."""

    def __init__(self, place):
        self.place, self.prompts, self.seeds = place, [], []

    def generate_batch(self, prompts, *, sampling, seed):
        self.prompts += [np.asarray(prompt) for prompt in prompts]
        self.seeds.append((sampling.temperature, seed))
        return np.stack([prompt[self.place] for prompt in prompts])[:, None, None]


def half(left: bool) -> np.ndarray:
    found = np.zeros((16, 16), bool)
    found[:, :8] = left
    found[:, 8:] = not left
    return mask_to_rgb(found)


def shade(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, np.uint8)


EPISODES = [
    Episode([(shade(10), half(True)), (shade(200), half(False))], shade(20), half(True), "dark"),
    Episode(
        [(shade(10), half(True)), (shade(200), half(False))], shade(190), half(False), "bright"
    ),
    Episode([(shade(5), half(True)), (shade(7), half(True))], shade(200), half(False), "hard"),
]


def test_predictors(vqgan):
    engine = Answering(place=1)
    evaluator = BenchmarkEvaluator("segmentation", EPISODES, batch_size=2, seed=7)
    result = evaluator.run(Subject(engine, vqgan))
    assert result["episodes"] == 3
    assert result["copy/miou"] == pytest.approx(1 / 3)  # the last answer: wrong, right, wrong
    assert result["nearest/miou"] == pytest.approx(2 / 3)
    assert engine.seeds == [(0.0, 7)] * 2
    order = [*(picture for pair in EPISODES[1].support for picture in pair), EPISODES[1].query]
    assert np.array_equal(engine.prompts[1], encode_images(vqgan, np.stack(order)))
    (first, *_) = evaluator.predictions(Subject(engine, vqgan), EPISODES[:1])
    through = to_uint8(decode_codes(vqgan, encode_images(vqgan, half(True)[None])))[0]
    assert np.array_equal(first["tokenizer_ceiling"], through)
    assert np.array_equal(first["model"], through)  # the first answer happens to be the truth
    assert (first["constant"] == 128).all()


def test_cases_are_ordered_and_answered_as_they_were_scored(vqgan):
    evaluator = BenchmarkEvaluator("segmentation", EPISODES, batch_size=2)
    subject = Subject(Answering(1), vqgan)
    each = evaluator.each(subject)
    assert worst_to_best("segmentation", each, "copy") == [0, 2, 1]  # wrong, wrong, right
    assert evaluator.result(each) == evaluator.run(subject)
    for index, states_of_one in enumerate(each):
        answers = evaluator.answers(subject, index)
        assert (
            segmentation(answers["copy"], EPISODES[index].truth)["miou"]
            == states_of_one["copy/miou"]
        )


def test_what_less_of_is_better_is_turned_round_and_nothing_is_left_out():
    absrel = [{"model/absrel": Mean(v, w)} for v, w in ((0.3, 1.0), (0.1, 1.0), (0.0, 0.0))]
    assert worst_to_best("depth", absrel) == [0, 1]
    edges = [
        {"model/precision": Mean(p, w), "model/recall": Mean(r)}
        for p, w, r in ((0.5, 1.0, 0.5), (0.0, 0.0, 0.2), (0.9, 1.0, 0.8))
    ]
    assert worst_to_best("edges", edges) == [1, 0, 2]


def test_states_of_two_hosts_merge_to_the_whole(vqgan):
    def found(episodes):
        evaluator = BenchmarkEvaluator("segmentation", episodes)
        return evaluator.states(Subject(Answering(1), vqgan))

    whole = states.compute(found(EPISODES))
    parts = states.merge(found(EPISODES[::2]), found(EPISODES[1::2]))
    assert states.compute(parts) == pytest.approx(whole)
    assert set(whole) == {
        f"{predictor}/miou"
        for predictor in ("model", "tokenizer_ceiling", "copy", "nearest", "constant")
    }


def test_what_cannot_be_measured_is_said(vqgan):
    result = BenchmarkEvaluator("edges", [EPISODES[0]]).run(Subject(Answering(1), vqgan))
    assert result["copy/recall"] == 0
    empty = Episode(EPISODES[0].support, shade(1), shade(0), "no edge")
    result = BenchmarkEvaluator("edges", [empty]).run(Subject(Answering(1), vqgan))
    assert result["copy/recall"] == "nothing to measure"
    colour = BenchmarkEvaluator("colorization", [EPISODES[0]]).run(Subject(Answering(1), vqgan))
    assert colour["lpips"] == "not installed"


def test_mistakes_are_named():
    with pytest.raises(UserError, match="score 'singing' does not exist; known: segmentation"):
        BenchmarkEvaluator("singing", EPISODES)
    with pytest.raises(UserError, match="0 episodes of edges"):
        BenchmarkEvaluator("edges", [])
    with pytest.raises(UserError, match="episode x of edges has 0 pairs"):
        BenchmarkEvaluator("edges", [Episode([], shade(1), shade(2), "x")])


def test_shown_answers_are_from_both_ends_and_the_middle():
    assert best_middle_worst(range(9), 2) == {"best": [8, 7], "middle": [3, 4], "worst": [0, 1]}
    assert best_middle_worst(range(4), 3) == {"best": [3], "middle": [1], "worst": [0]}
    assert best_middle_worst([5], 3) == {"best": [5], "middle": []}
    assert best_middle_worst([], 3) == {"best": [], "middle": []}
