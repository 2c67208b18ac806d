"""A benchmark's questions are spoilt in one thing each, and scores that do not mind are called flat."""

import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.benchmark_controls import (
    changes,
    control_states,
    with_other_queries,
    with_shuffled_answers,
)
from lvm_jax.evaluation.lvm.scoring import SentenceScore
from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Episode, Subject
from lvm_jax.inference.codec import encode_images
from lvm_jax.metrics.states import Mean
from lvm_jax.models import VQGAN, presets
from lvm_jax.reporting.benchmark_page import task_page


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    return VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0))


def shade(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, np.uint8)


def episode(number: int, pairs: int) -> Episode:
    """Pair i shows 10 i and answers 10 i + 1, plus 50 an episode."""
    start = 50 * number
    support = [(shade(start + 10 * i), shade(start + 10 * i + 1)) for i in range(pairs)]
    return Episode(support, shade(start + 40), shade(start + 41), str(number))


def value(picture: np.ndarray) -> int:
    return int(picture[0, 0, 0])


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_one_thing_is_spoilt_and_the_truth_stays(pairs):
    episodes = [episode(number, pairs) for number in range(4)]
    asked, shuffled = with_other_queries(episodes, 0), with_shuffled_answers(episodes, 0)
    for whole, query, answers in zip(episodes, asked, shuffled):
        assert query.support is whole.support
        assert query.truth is answers.truth is whole.truth
        assert answers.query is whole.query
        assert value(query.query) in {40, 90, 140, 190} - {value(whole.query)}
        assert [value(x) for x, _ in answers.support] == [value(x) for x, _ in whole.support]
        ours, theirs = ([value(y) for _, y in e.support] for e in (answers, whole))
        assert all(a != b for a, b in zip(ours, theirs))
        assert (sorted(ours) == sorted(theirs)) == (pairs > 1)
    assert len({value(e.query) for e in asked}) == 4


def test_questions_that_do_not_differ_are_refused():
    with pytest.raises(UserError, match="1 episodes have no different queries or answers to swap"):
        with_other_queries([episode(0, 2)], 0)
    with pytest.raises(UserError, match="3 episodes have no different"):
        with_shuffled_answers([episode(0, 1)] * 3, 0)


class Answering:
    """Answers each prompt with its image number `place`."""

    def __init__(self, place):
        self.place = place

    def generate_batch(self, prompts, *, sampling, seed):
        return np.stack([prompt[self.place] for prompt in prompts])[:, None, None]


def test_answers_to_spoilt_questions_are_scored_against_the_truth(vqgan):
    # Noise, which even an untrained tokenizer tells apart.
    pictures = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    pairs, truth = [(pictures[0], pictures[1]), (pictures[2], pictures[3])], pictures[1]
    episodes = [Episode(pairs, picture, truth, str(i)) for i, picture in enumerate(pictures[4:])]
    evaluator = BenchmarkEvaluator("colorization", episodes)
    seen = []

    def reads_the_query(sentences):
        seen.extend(sentences)
        own = encode_images(vqgan, np.stack([episode.query for episode in episodes]))
        return [
            SentenceScore(
                np.full(s.codes.shape, 1.0 + 2 * np.any(s.codes[-2] != q)), s.codes > 0, None
            )
            for s, q in zip(sentences, own)
        ]

    def found(place):
        subject = Subject(Answering(place), vqgan)
        added = control_states(evaluator, subject, reads_the_query)
        return [a | b for a, b in zip(evaluator.each(subject), added, strict=True)]

    first = evaluator.result(found(1))  # the first answer of the pairs, whatever the query
    assert first["control_other_query/mse"] == first["model/mse"]
    assert first["control_shuffled/mse"] != first["model/mse"]
    assert (first["model/code_loss"], first["control_other_query/code_loss"]) == (1, 3)
    assert first["control_shuffled/code_loss"] == 1
    assert (
        changes(found(1))["flat"]
        == "mse with another question's query; code_loss with shuffled answers"
    )
    assert len(seen[0].codes) == 6
    assert np.array_equal(seen[0].codes[-1], encode_images(vqgan, truth[None])[0])

    each = found(-1)  # the query itself, whatever the pairs
    by_query = [states["model/mse"].compute() for states in each]
    swapped = [states["control_other_query/mse"].compute() for states in each]
    assert swapped == by_query[::-1]
    assert changes(each)["control_shuffled/mse_change"] == 0


def test_changes_and_their_errors():
    def states(ours, control, weight=1.0):
        return {
            "model/miou": Mean(ours * weight, weight),
            "control_other_query/miou": Mean(control * weight, weight),
            "control_shuffled/miou": Mean(0.0, 0.0),  # never anything to measure
        }

    result = changes(
        [states(0.5, 0.25), states(0.75, 0.25, 2.0), states(0.5, 0.25), states(0.1, 0, 0.0)]
    )
    assert result["control_other_query/miou_change"] == pytest.approx(-1 / 3)
    assert result["control_other_query/miou_change_error"] == pytest.approx(1 / 12)
    assert "control_shuffled/miou_change" not in result
    assert result["flat"] == "none"
    assert (
        changes([states(0.5, 0.25), states(0.25, 0.5)])["flat"]
        == "miou with another question's query"
    )


def test_the_page_says_what_is_flat_and_shows_controls_only_if_measured():
    results = {"model/miou": 0.25, "copy/miou": 0.125, "episodes": 3}
    assert "another question" not in task_page("edges", results, [])
    results |= {"control_shuffled/miou": 0.375, "control_shuffled/miou_change": 0.0625}
    page = task_page("edges", results | {"flat": "miou with shuffled answers"}, [])
    assert "what the decoder reads: miou with shuffled answers." in page
    assert (
        "<td>the decoder, after pairs with shuffled answers</td><td class=number>0.375</td>" in page
    )
    assert "another question" not in page
    assert "0.062" not in page
