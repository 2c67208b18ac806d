"""Controls change the one thing that they name, and what a thing is worth comes out exactly."""

import numpy as np
import pytest

from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.evaluation.lvm.controls import ControlsEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer, SentenceScore

IMAGE, VIDEO, TURNTABLE = 2, 3, 5
N = 2  # tokens of an image


def sentence(codes, layout, number, source="scenes", category=IMAGE):
    """Image i of the sentence has the code `codes[i]` everywhere."""
    codes = np.repeat(np.array(codes, np.uint16)[:, None], N, axis=1)
    return VisualSentence(codes, source, category, f"{source}/{number}", layout)


def pairs(number, count, rule=1000, role="depth", **about):
    """`count` pairs and a query with its answer: the answer to image x is x + rule, and no image occurs twice."""
    images = 20 * number + 2 * np.arange(count + 1)
    codes = np.stack([images, images + rule], axis=1).reshape(-1)
    return sentence(codes, ",".join(["image", role] * (count + 1)), number, **about)


class Scoring:
    """Scores sentences by `loss`, a function of the codes of a sentence's images; remembers what it saw."""

    def __init__(self, loss):
        self.loss, self.seen = loss, []

    def __call__(self, sentences):
        self.seen += sentences
        return [self._score(s) for s in sentences]

    def _score(self, scored):
        nll = np.full(scored.codes.shape, 99.0)
        nll[-1] = self.loss(scored.codes[:, 0].astype(int).tolist())
        return SentenceScore(nll, np.zeros(scored.codes.shape, bool), None)


def reads_nothing(images):
    return 2.0


def reads_the_query(images):
    return 0.5 if images[-1] - images[-2] == 1000 else 3.5


def reads_the_pairs(images):
    """Two nats for each pair before the query whose answer is not its image's, of the rule that the query follows."""
    rule, shown = images[-1] - images[-2], images[:-2]
    return 1 + 2.0 * sum(y - x != rule for x, y in zip(shown[::2], shown[1::2]))


def uses(result, task):
    prefix = f"{task}/uses_"
    return {
        name.removeprefix(prefix): value
        for name, value in result.items()
        if name.startswith(prefix) and not name.endswith("_error")
    }


DEPTH = "scenes: image -> depth"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_each_thing_is_worth(count):
    sentences = [pairs(number, count) for number in range(6)]
    sentences += [pairs(number, count, 3000, "edges") for number in range(3)]
    evaluator = ControlsEvaluator(sentences)
    flat = evaluator.run(Scoring(reads_nothing))
    assert uses(flat, DEPTH) == {"query": 0, "pairs": 0, "task": 0}
    query = evaluator.run(Scoring(reads_the_query))
    assert uses(query, DEPTH) == {"query": 3, "pairs": 0, "task": 0}
    # Another query breaks the rule for all pairs; all answers are shuffled; all pairs are of another rule.
    shown = evaluator.run(Scoring(reads_the_pairs))
    assert uses(shown, DEPTH) == {"query": 2 * count, "pairs": 2 * count, "task": 2 * count}
    assert shown[f"{DEPTH}/other_pairs"] == shown[f"{DEPTH}/no_pairs"] == 1
    assert shown[f"{DEPTH}/sentences"] == 6
    assert shown[f"{DEPTH}/pairs"] == count
    assert shown[f"{DEPTH}/uses_pairs_error"] == 0
    assert shown["left_out"] == 0


def test_each_control_changes_what_it_names_and_keeps_the_answer():
    sentences = [pairs(number, 3) for number in range(5)] + [pairs(9, 3, 3000, "edges")]
    scoring = Scoring(reads_nothing)
    ControlsEvaluator(sentences).run(scoring)
    codes = [s.codes[:, 0].astype(int) for s in scoring.seen[: 7 * 5]]
    right, query, shuffled, other_pairs, other_task, none, one = (
        codes[i : i + 5] for i in range(0, 35, 5)
    )
    for i, whole in enumerate(right):
        assert np.array_equal(whole, sentences[i].codes[:, 0])
        assert np.array_equal(np.delete(query[i], -2), np.delete(whole, -2))
        assert query[i][-2] in {w[-2] for j, w in enumerate(right) if j != i}
        assert np.array_equal(shuffled[i][::2], whole[::2])
        assert sorted(shuffled[i][1:-2:2]) == sorted(whole[1:-2:2])
        assert (shuffled[i][1:-2:2] != whole[1:-2:2]).all()
        assert np.array_equal(other_pairs[i][-2:], whole[-2:])
        assert any(np.array_equal(other_pairs[i][:-2], w[:-2]) for w in right if w is not whole)
        assert np.array_equal(other_task[i], [*sentences[5].codes[:-2, 0], *whole[-2:]])
        assert np.array_equal(none[i], whole[-2:])
        assert np.array_equal(one[i], whole[-4:])
    assert len({q[-2] for q in query}) == 5  # every query serves once


def test_a_query_of_several_images_is_swapped_whole_and_only_answers_are_shuffled():
    def triples(number):
        images = 30 * number + 3 * np.arange(3)
        codes = np.stack([images, images + 1000, images + 2000], axis=1).reshape(-1)
        return sentence(codes, ",".join(["image", "depth", "normals"] * 3), number)

    task = "scenes: image, depth -> normals"
    evaluator = ControlsEvaluator([triples(number) for number in range(4)])

    def steps(images):
        """1 for each of the last triple's steps that is not 1000, and 10 for each such step to a shown answer."""
        query = sum(b - a != 1000 for a, b in zip(images[-3:], images[-2:]))
        answers = sum(b - a != 1000 for a, b in zip(images[1:-3:3], images[2:-3:3]))
        questions = sum(b - a != 1000 for a, b in zip(images[:-3:3], images[1:-3:3]))
        return query + 10 * answers + 100 * questions

    result = evaluator.run(Scoring(steps))
    assert result[f"{task}/right"] == 0
    assert uses(result, task) == {"query": 1, "pairs": 20}  # image and depth came together
    assert result[f"{task}/pairs"] == 2


def test_errors_are_those_of_paired_differences():
    sentences = [pairs(number, 2) for number in range(4)]

    def loss(images):
        sentence_of = (images[-1] - 1000) // 20
        return sentence_of * 10.0 + (0 if images[-1] - images[-2] == 1000 else 1 + sentence_of % 2)

    result = ControlsEvaluator(sentences).run(Scoring(loss))
    assert result[f"{DEPTH}/right"] == 15
    assert result[f"{DEPTH}/right_error"] == pytest.approx(np.std([0, 10, 20, 30], ddof=1) / 2)
    assert result[f"{DEPTH}/uses_query"] == 1.5
    assert result[f"{DEPTH}/uses_query_error"] == pytest.approx(np.std([1, 2, 1, 2], ddof=1) / 2)


def test_what_one_sentence_cannot_tell_is_absent():
    several, single = ControlsEvaluator([pairs(0, 2)]), ControlsEvaluator([pairs(0, 1)])
    result = several.run(Scoring(reads_the_pairs))
    assert uses(result, DEPTH) == {"pairs": 4}
    assert not any("_error" in name or "other" in name for name in result)
    assert uses(single.run(Scoring(reads_the_pairs)), DEPTH) == {}


def test_the_same_roles_of_another_source_are_no_other_task():
    both = [pairs(n, 2, source=source) for n in range(2) for source in ("photos", "scenes")]
    result = ControlsEvaluator(both).run(Scoring(reads_nothing))
    assert {"photos: image -> depth/right", "scenes: image -> depth/right"} <= set(result)
    assert "scenes: image -> depth/other_task" not in result


def test_a_query_is_not_swapped_for_an_equal_one():
    def twin(codes, number):
        return sentence(codes, "image,depth,image,depth", number)

    alike = [twin([1, 1001, 5, 1005], 0), twin([3, 1003, 5, 1005], 1)]
    result = ControlsEvaluator(alike).run(Scoring(reads_the_query))
    assert f"{DEPTH}/other_query" not in result
    result = ControlsEvaluator([*alike, twin([9, 1009, 7, 1007], 2)]).run(Scoring(reads_the_query))
    assert result[f"{DEPTH}/uses_query"] == 3


def test_sentences_of_a_task_are_equally_long():
    counts = (1, 2, 4, 5, 7)
    sentences = [pairs(number, count) for number, count in enumerate(counts)]
    scoring = Scoring(reads_the_pairs)
    result = ControlsEvaluator(sentences).run(scoring)
    assert result[f"{DEPTH}/pairs"] == 4
    assert result[f"{DEPTH}/sentences"] == 3
    assert result["left_out"] == 2
    assert np.array_equal(scoring.seen[2].codes, sentences[4].codes[-10:])


def test_the_limit_is_of_each_task_and_draws_do_not_depend_on_the_order():
    sentences = [pairs(number, 3) for number in range(9)]
    sentences += [pairs(number, 3, 3000, "edges") for number in range(3)]
    result = ControlsEvaluator(sentences, max_sentences=4).run(Scoring(reads_nothing))
    assert (result[f"{DEPTH}/sentences"], result["scenes: image -> edges/sentences"]) == (4, 3)

    def shown(order, seed=0):
        scoring = Scoring(reads_nothing)
        ControlsEvaluator(order, seed=seed).run(scoring)
        return sorted(s.codes.tobytes() for s in scoring.seen)

    assert shown(sentences) == shown(sentences[::-1])
    assert shown(sentences) != shown(sentences, seed=1)


def test_sequences():
    def clip(number, frames=4, source="walks", category=VIDEO, role="frame"):
        codes = 20 * number + np.arange(frames)
        return sentence(codes, f"{role}*{frames}", number, source, category)

    clips = [clip(number) for number in range(5)]
    views = [clip(number, 2, "objects", TURNTABLE, "view") for number in range(3)]
    others = [
        clip(1, 1, "stills"),
        clip(2, 3, "classes", 1, "image"),
        sentence([1, 2, 3, 4], "frame*2,mask*2", 0, "grouped", 4),
    ]

    evaluator = ControlsEvaluator([*clips, *views, *others])

    def reads_the_last(images):
        return 7 if len(images) == 1 else 2 + 3 * (images[-2] != images[-1] - 1)

    frames = "walks: next frame"
    result = evaluator.run(Scoring(reads_the_last))
    assert result[f"{frames}/context"] == 3
    assert (result[f"{frames}/right"], result[f"{frames}/no_context"]) == (2, 7)
    assert uses(result, frames) == {"last": 3, "order": 3}  # none stays, so the last is another
    assert uses(result, "objects: next view") == {"last": 3}  # one image has no order
    far = evaluator.run(Scoring(lambda images: 2.0 + (images[0] != images[-1] - 3)))
    assert uses(far, frames) == {"last": 0, "order": 1}
    flat = evaluator.run(Scoring(reads_nothing))
    assert uses(flat, frames) == {"last": 0, "order": 0}
    assert result["left_out"] == 2
    assert not any(name.startswith(("stills", "classes", "grouped")) for name in result)


def test_a_real_decoder(model, make_sentence):
    layouts = {"depth": ("image,depth,image,depth,image,depth", IMAGE), "clips": ("frame*5", VIDEO)}
    layouts |= {"edges": ("image,edges,image,edges,image,edges", IMAGE)}
    sentences = [make_sentence(*layouts[s], seed, s) for s in layouts for seed in range(4)]
    scorer = Scorer(model, 24)
    result = ControlsEvaluator(sentences).run(scorer)
    wanted = np.mean([score.nll_IN[-1].mean() for score in scorer(sentences[:4])])
    assert result["depth: image -> depth/right"] == pytest.approx(wanted, rel=1e-5)
    assert result == ControlsEvaluator(sentences).run(scorer)
    assert {"depth: image -> depth/uses_task_error", "clips: next frame/uses_order"} <= set(result)
