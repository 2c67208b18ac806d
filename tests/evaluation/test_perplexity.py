"""Losses and baselines are those worked out by hand, and of sources whose entropy is known."""

import math

import numpy as np
import pytest

from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.evaluation.lvm import baselines
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer, SentenceScore

CODES, TOKENS = 24, 4


def copying_sentences(p: float, count: int, seed: int, category: int = 3) -> list[VisualSentence]:
    """Each code is that of the previous image with probability p, else uniform."""
    rng = np.random.default_rng(seed)
    sentences = []
    for i in range(count):
        images = [rng.integers(0, CODES, 64)]
        for _ in range(4):
            kept = rng.random(64) < p
            images.append(np.where(kept, images[-1], rng.integers(0, CODES, 64)))
        codes = np.array(images, np.uint16)
        sentences.append(VisualSentence(codes, "synthetic", category, str(i), "frame*5"))
    return sentences


def uniform_scorer(nll: float):
    def score(sentences):
        return [
            SentenceScore(np.full(s.codes.shape, nll), np.zeros(s.codes.shape, bool), 2 * nll)
            for s in sentences
        ]

    return score


def test_the_entropy_of_known_counts():
    assert baselines.entropy(np.array([5, 5, 0, 5, 5])) == pytest.approx(math.log(4))
    assert baselines.entropy(np.array([0, 7])) == 0
    np.testing.assert_allclose(baselines.smoothed(np.array([0, 2, 1])), [1 / 6, 3 / 6, 2 / 6])


@pytest.mark.parametrize("p", [0.1, 0.7])
def test_the_copy_baseline_finds_how_often_codes_are_copied(p):
    train, held_out = copying_sentences(p, 60, seed=0), copying_sentences(p, 60, seed=1)
    result = NextTokenEvaluator(held_out, CODES, train).run(uniform_scorer(1.0))
    assert result["baseline/copy_p/unlabelled_video"] == pytest.approx(p, abs=0.015)
    match = p + (1 - p) / CODES  # the probability of the previous code
    other = (1 - p) / CODES
    conditional = -match * math.log(match) - (CODES - 1) * other * math.log(other)
    expected = (math.log(CODES) + 4 * conditional) / 5  # the first image has nothing to copy
    assert result["baseline/copy_loss"] == pytest.approx(expected, abs=0.03)
    assert result["after_first_image/copy_loss"] == pytest.approx(conditional, abs=0.03)
    assert result["after_first_image/copy_accuracy"] == pytest.approx(match, abs=0.015)
    assert result["baseline/unigram_entropy"] == pytest.approx(math.log(CODES), abs=0.01)
    assert result["baseline/train_unigram_loss"] == pytest.approx(math.log(CODES), abs=0.01)
    assert result["baseline/unigram_entropy"] <= result["baseline/train_unigram_loss"]
    assert result["baseline/fitted_on"] == "train"


def test_each_category_copies_in_its_own_way():
    sentences = copying_sentences(0.9, 40, seed=0, category=3) + copying_sentences(
        0.0, 40, seed=1, category=2
    )
    copy = baselines.CopyBaseline.fit(sentences, np.full(CODES, 1 / CODES))
    assert copy.p_of[3] == pytest.approx(0.9, abs=0.02)
    assert copy.p_of[2] == pytest.approx(0.0, abs=0.02)


def test_images_that_never_change_stay_finite():
    still = VisualSentence(np.ones((3, 5), np.uint16), "still", 3, "0", "frame*3")
    result = NextTokenEvaluator([still], CODES).run(uniform_scorer(1.0))
    assert result["baseline/fitted_on"] == "held-out"
    assert "baseline/train_unigram_loss" not in result
    assert 0 < result["after_first_image/copy_loss"] < 1e-4
    assert result["after_first_image/copy_accuracy"] == 1


def test_a_baseline_fitted_on_still_images_survives_a_change(make_sentence):
    still = VisualSentence(np.ones((3, TOKENS), np.uint16), "still", 3, "0", "frame*3")
    result = NextTokenEvaluator([make_sentence("frame*3", 3)], CODES, [still]).run(
        uniform_scorer(1.0)
    )
    assert math.isfinite(result["baseline/copy_loss"])


def test_losses_of_a_known_scorer(make_sentence):
    sentences = [make_sentence("image", 1, source="a"), make_sentence("frame*3", 3, source="b")]
    result = NextTokenEvaluator(sentences, CODES).run(uniform_scorer(1.5))
    # 16 codes at 1.5 nats and two ends at 3
    assert result["loss"] == pytest.approx((16 * 1.5 + 2 * 3) / 18)
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert result["code_loss"] == pytest.approx(1.5)
    assert result["tokens"] == 18
    assert result["uniform_loss"] == pytest.approx(math.log(CODES))
    assert result["source/a/sentences"] == 1
    assert result["category/unlabelled_video/code_perplexity"] == pytest.approx(math.exp(1.5))


def test_annotation_types_are_counted_image_by_image(make_sentence):
    def by_place(sentences):
        scores = uniform_scorer(1.0)(sentences)
        for score in scores:
            score.nll_IN[:] = np.arange(1, len(score.nll_IN) + 1)[:, None]
        return scores

    sentences = [
        make_sentence("image,depth,image,depth", 2),
        make_sentence("image,depth", 2, 1),
        make_sentence("frame,mask", 4),
        make_sentence("frame*4", 3),
    ]
    result = NextTokenEvaluator(sentences, CODES).run(by_place)
    assert result["annotation/depth/images"] == 3
    assert result["annotation/depth/code_loss"] == pytest.approx((2 + 4 + 2) / 3)
    assert result["annotation/mask/code_loss"] == pytest.approx(2)
    assert result["annotation/frame/images"] == 1


def test_a_decoder_is_scored(model, make_sentence):
    sentences = [make_sentence("frame*3", 3, seed) for seed in range(4)]
    scorer = Scorer(model, CODES)
    result = NextTokenEvaluator(sentences, CODES).run(scorer)
    nll = np.concatenate([score.nll_IN[1:].reshape(-1) for score in scorer(sentences)])
    assert result["after_first_image/code_loss"] == pytest.approx(nll.mean(), rel=1e-6)
    hits = np.concatenate([score.hit_IN[1:].reshape(-1) for score in scorer(sentences)])
    assert result["after_first_image/accuracy"] == pytest.approx(hits.mean())
