"""Captions are scored together: BLEU-4 of the corpus, DenseCap's mAP by likelihood, METEOR or its absence."""

import numpy as np
import pytest

from lvm_jax.data.in_context.words import Words
from lvm_jax.evaluation.in_context import caption_scores
from lvm_jax.evaluation.in_context.caption_scores import (
    Said,
    missing,
    summary_together,
    with_meteors,
)
from lvm_jax.metrics.captions import plain

LEFT, RIGHT = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 1.0, 1.0)
TRUTHS = [
    Words("A small red ring on the left.", "ring", (LEFT,)),
    Words("a large blue disc on the right", "disc", (RIGHT,)),
]
# The first is right, the second has a wrong box and a wrong form.
SAID = [
    Words("a small red ring on the left", "ring", (LEFT,)),
    Words("a large blue ring on the right", "ring", (LEFT,)),
]
EVERY = np.arange(2)


@pytest.fixture
def jar(monkeypatch):
    """Stands for METEOR: 1 for equal captions, else 0.1. Counts its starts."""
    starts = []

    def meteor(captions, shown):
        starts.append(len(captions))
        return np.array([1.0 if c in texts else 0.1 for c, texts in zip(captions, shown)])

    monkeypatch.setattr(caption_scores, "missing_meteor", lambda: "")
    monkeypatch.setattr(caption_scores, "meteor_1_5", meteor)
    return starts


def test_captions_are_compared_without_case_and_punctuation():
    assert plain(' A Red-ball, on the "man\'s"  table. ') == "a red-ball on the man's table"


def test_the_surest_words_come_first(jar):
    sure = with_meteors({"model": Said(SAID, TRUTHS, [-0.1, -2.0])})["model"]
    unsure = with_meteors({"model": Said(SAID, TRUTHS, [-2.0, -0.1])})["model"]
    # One of two regions is found: recalls 0 to 50% at precision 1, or 1/2 behind the wrong one.
    assert sure.together(EVERY)["map"] == pytest.approx(51 / 101)
    assert unsure.together(EVERY)["map"] == pytest.approx(51 / 101 / 2)
    assert sure.together(EVERY)["map_boxes"] == pytest.approx(51 / 101)
    assert sure.together(EVERY[:1])["map"] == 1
    right = with_meteors({"model": Said(TRUTHS, TRUTHS, [0.0, 0.0])})["model"]
    assert right.together(EVERY) == pytest.approx({"bleu_4": 1, "map": 1, "map_boxes": 1})
    assert [one["meteor"] for one in sure.each({})] == [1, 0.1]
    assert jar == [2, 2, 2]


def test_bleu_is_that_of_the_corpus():
    found = Said(SAID, TRUTHS, [0.0, 0.0])
    # 13 of 14 words, 10 of 12 pairs, 7 of 10 triples, 4 of 8 quadruples.
    expected = (13 / 14 * 10 / 12 * 7 / 10 * 4 / 8) ** 0.25
    assert found.together(EVERY)["bleu_4"] == pytest.approx(expected)
    assert found.together(EVERY[[0, 0]])["bleu_4"] == pytest.approx(1)


def test_a_control_that_changes_nothing_costs_nothing(jar):
    of = {name: Said(SAID, TRUTHS, [-0.1, -2.0]) for name in ("model", "same")}
    of |= {"copy": Said(TRUTHS[::-1], TRUTHS, [0.0, 0.0])}
    found = summary_together(with_meteors(of), {"same": [True, True]}, ["same"])
    assert found["model/map_error"] > 0
    for score in ("map", "map_boxes", "bleu_4"):
        assert found[f"uses_same/{score}"] == found[f"uses_same/{score}_error"] == 0
        assert found[f"copy/{score}"] < found[f"model/{score}"]
    assert jar == [4]
    # Only the first episode: what is wrong about the second does not count.
    part = summary_together(with_meteors(of), {"same": [True, False]}, ["same"])
    assert part["same/map"] == 1 > part["model/map"]
    assert part["uses_same/map"] == 0


def test_what_cannot_be_measured_says_why(monkeypatch):
    monkeypatch.setattr(caption_scores, "missing_meteor", lambda: "there is no jar")
    monkeypatch.setattr(caption_scores, "missing_sacrebleu", lambda: "there is no BLEU")
    assert missing() == {
        "meteor": "not measured: there is no jar",
        "map": "not measured: there is no jar",
        "bleu_4": "not measured: there is no BLEU",
    }
    (said,) = with_meteors({"model": Said(SAID, TRUTHS, [0.0, 0.0])}).values()
    assert set(said.together(EVERY)) == {"map_boxes"}
    assert "meteor" not in said.each({})[0]
    assert Said([Words("x")], [Words("y")], [0.0]).together(EVERY[:1]) == {}
