"""Answers from examples: scores by hand, baselines, controls that change one thing, losses of the answer alone."""

import dataclasses
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_models import CODES as VQGAN_CODES
from tiny_pairs import FORMAT, PAIRS, Letters, batch, decoder, pair

from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.data.in_context.sequences import Pair, Question, SequenceFormat
from lvm_jax.data.in_context.words import Words, WordsFormat
from lvm_jax.errors import UserError
from lvm_jax.evaluation.in_context import answers
from lvm_jax.evaluation.in_context import episodes as changes
from lvm_jax.evaluation.in_context.answers import NO_PIXELS, MaskEvaluator, WordsEvaluator
from lvm_jax.evaluation.in_context.episodes import Episode, check_episodes, controls_of
from lvm_jax.evaluation.in_context.gradients import QuestionGradients
from lvm_jax.evaluation.in_context.losses import LossControls
from lvm_jax.evaluation.in_context.scores import box_iou, boxes_iou, mask_scores, word_scores
from lvm_jax.evaluation.in_context.scoring import PoolQuestions, score
from lvm_jax.evaluation.in_context.while_training import parse_word_sets
from lvm_jax.inference.in_context import DrawnWords
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.models import Decoder
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.in_context import InContextTask
from lvm_jax.vocabulary import Vocabulary

sys.path.append(str(Path(__file__).parent.parent / "data"))
import pool_fakes

MASKS, SAID = Question.SEGMENTATION, Question.CAPTIONING
N = 4  # codes of the tokenizer of the tests


def coded(seed, question=MASKS):
    rng = np.random.default_rng(seed)
    answer = rng.integers(0, VQGAN_CODES, N) if question is MASKS else Words(f"no {seed}", "ox")
    return Pair(rng.integers(0, VQGAN_CODES, N), answer)


def episode(seed, examples=2, question=MASKS, name="ox"):
    pairs = [coded(10 * seed + i, question) for i in range(examples + 1)]
    return Episode(tuple(pairs[:-1]), pairs[-1], name, f"e{seed}")


def test_scores_by_hand():
    truth = np.array([[True, True], [False, False]])
    grey = np.zeros((2, 2, 3), np.uint8)
    grey[0, 0] = 255
    found = mask_scores(grey[..., 0] > 127, grey, truth)
    assert found == {"miou": 0.5, "mae": 0.25}
    assert box_iou((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 0.2, 1), (0.5, 0, 1, 1)) == 0
    one, two = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)
    assert boxes_iou([two, one], [one]) == 0.5
    assert boxes_iou([one], [one, two]) == 0.5
    assert boxes_iou([], [one]) == 0
    assert math.isnan(boxes_iou([one], []))
    # The order of the boxes does not count: a first truth without a partner takes nobody else's.
    assert boxes_iou([two], [one, two]) == boxes_iou([two], [two, one]) == 0.5
    wide = (0.0, 0.0, 1.0, 0.5)
    assert boxes_iou([one, two], [wide, one]) == boxes_iou([two, one], [one, wide]) == 0.5
    half = (0.0, 0.0, 0.5, 0.25)
    assert boxes_iou([one, half], [wide, one]) == pytest.approx((0.25 + 1) / 2)
    sets = {"colour": frozenset({"red", "blue"}), "side": frozenset({"left", "right"})}
    scores = word_scores(Words("a red disc", "disc", (one,)), Words("the red one", "disc"), sets)
    assert scores.pop("category") == scores.pop("colour") == 1
    assert all(map(math.isnan, scores.values()))  # no side and no box in the truth
    assert word_scores(Words("red blue"), Words("blue"), sets)["colour"] == 0
    # As for the other scores of captions, a full stop is no part of a word.
    assert word_scores(Words("a disc, red"), Words("Red."), sets)["colour"] == 1


def same(one, other):
    return all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))


def test_a_control_changes_one_thing():
    some = [episode(0), episode(1), episode(2, name="cat")]
    shuffled = changes.shuffled_answers(some)[0]
    for number, example in enumerate(shuffled.examples):
        assert np.array_equal(example.picture, some[0].examples[number].picture)
        assert np.array_equal(example.answer, some[0].examples[1 - number].answer)
    (alone, _) = changes.shuffled_answers([episode(0, 1), episode(1, 1)])
    assert np.array_equal(alone.examples[0].answer, episode(1, 1).examples[0].answer)
    other = changes.other_examples(some)[0]
    assert same(other.examples[0], some[2].examples[0])  # of another class, not of the next episode
    assert same(other.query, some[0].query)
    asked = changes.other_query(some)[0]
    assert np.array_equal(asked.query.picture, some[2].query.picture)
    assert np.array_equal(asked.query.answer, some[0].query.answer)
    assert changes.first_examples(some, 0)[0].examples == ()
    named = changes.class_only(some)[2]
    assert (named.examples, named.query.category) == ((), "cat")


def test_a_control_takes_another_or_does_not_count():
    """The episode with the most examples is changed too, or says nothing; so is one whose neighbour shows the same."""
    most, few, none = episode(0, 3), episode(1, 2), episode(2, 0, name="cat")
    twin = dataclasses.replace(
        few, query=dataclasses.replace(few.query, picture=most.query.picture)
    )
    some = [most, twin, none]
    controls = controls_of(some, False)
    asked = controls["other_query"].change(some)
    assert not any(np.array_equal(a.query.picture, b.query.picture) for a, b in zip(asked, some))
    assert np.array_equal(changes.other_query(some[:2])[0].query.picture, most.query.picture)
    assert controls_of(some[:2], False)["other_query"].to(some[:2]) == [False, False]
    shuffled = controls["shuffled_answers"]
    assert shuffled.to(some) == [True, True, False]
    assert np.array_equal(shuffled.change(some)[0].examples[2].answer, most.examples[0].answer)
    assert controls["other_examples"].to(some) == [False, True, False]
    said = [episode(i, 2, SAID) for i in range(2)]
    alike = tuple(dataclasses.replace(pair, answer=Words("a disc")) for pair in said[0].examples)
    said[0] = dataclasses.replace(said[0], examples=alike)
    assert controls_of(said, False)["shuffled_answers"].to(said) == [False, True]


def test_controls_that_there_can_be():
    assert set(controls_of([episode(0), episode(1)], True)) == {
        "other_query", "shuffled_answers", "other_examples", "no_examples", "examples_1", "class_only",
    }  # fmt: skip
    assert "class_only" not in controls_of([episode(0), episode(1)], False)
    assert set(controls_of([episode(0, 0)], False)) == set()
    words = [episode(0, 0, SAID), episode(1, 0, SAID)]
    assert set(controls_of(words, False)) == {"other_query", "class_only"}


def test_controls_count_only_where_they_take_something_away(black_and_white):
    some = [episode(0, 0), episode(1, 1), episode(2, 2), episode(3, 1), episode(4, 2)]
    controls = controls_of(some, False)
    assert controls["no_examples"].to(some) == [False, True, True, True, True]
    assert controls["examples_1"].to(some) == [False, False, True, False, True]
    assert [len(e.examples) for e in controls["other_examples"].change(some)] == [0, 1, 2, 1, 2]
    found = MaskEvaluator(some).run(Knower(None, some))
    # The one without an example is right under every control that leaves its query, and is not counted.
    drawn = [e for e in some if e.examples]
    alone = MaskEvaluator(drawn).run(Knower(None, drawn))
    for name in ("no_examples/miou", "uses_no_examples/miou", "uses_shuffled_answers/miou_error"):
        assert found[name] == pytest.approx(alone[name])


class Knower:
    """Answers by heart: the truth if the examples are the right ones, and otherwise their last answer."""

    def __init__(self, vqgan, episodes):
        self.vqgan, self.engine, self.names_classes = vqgan, self, False
        words = WordsFormat(Vocabulary.unified(128, VQGAN_CODES, 11), Letters())
        self.form = SequenceFormat(words, N)
        self.known = [(e.prompt, e.query.answer) for e in episodes]

    def answer(self, prompt):
        for known, answer in self.known:
            right = len(known.examples) == len(prompt.examples)
            right &= all(map(same, known.examples, prompt.examples))
            if right and np.array_equal(known.picture, prompt.picture):
                return answer
        blank = Words("") if prompt.question is SAID else np.zeros(N, np.int32)
        return prompt.examples[-1].answer if prompt.examples else blank

    def draw_masks(self, prompts):
        codes_RN = np.stack([self.answer(prompt) for prompt in prompts])
        return list((255 * answers.decode_codes(self.vqgan, codes_RN)).astype(np.uint8))

    def words(self, prompts, **_):
        return [[DrawnWords(self.answer(prompt), 0, -1.0)] for prompt in prompts]


@pytest.fixture
def black_and_white(monkeypatch):
    """A tokenizer of 2 x 2 pixels: odd codes are white."""

    def decode(vqgan, codes_MN):
        del vqgan
        return np.repeat((codes_MN % 2).reshape(-1, 2, 2, 1).astype(np.float32), 3, axis=-1)

    def encode(vqgan, images):
        del vqgan
        return (np.asarray(images)[..., 0] > 127).astype(np.int32).reshape(-1, N)

    monkeypatch.setattr(answers, "decode_codes", decode)
    monkeypatch.setattr(answers, "encode_images", encode)


def test_masks_beside_baselines_and_controls(black_and_white):
    some = [episode(i) for i in range(5)]
    found = MaskEvaluator(some, batch_size=2).run(Knower(None, some))
    assert (found["model/miou"], found["model/miou_error"]) == (1, 0)
    assert found["ceiling"] == NO_PIXELS
    assert found["no_examples/miou"] < 1
    # Whoever does not know the examples copies: that is what the control costs.
    assert found["other_query/miou"] == found["copy/miou"] < 1
    assert found["uses_other_query/miou"] == 1 - found["copy/miou"]
    assert found["uses_other_query/miou_error"] > 0
    assert {"nearest/miou", "mean_mask/mae"} <= set(found)
    # With the masks in pixels, the tokenizer has a ceiling; this one loses nothing.
    truths = [np.random.default_rng(i).random((2, 2)) > 0.5 for i in range(5)]
    measured = MaskEvaluator(some, truths=truths).run(Knower(None, some))
    assert measured["ceiling/miou"] == 1 > measured["model/miou"]


def with_rival(seed, question=MASKS):
    """Another answer to the same picture, with examples of its own."""
    one, other = episode(seed, question=question), episode(seed + 50, question=question, name="cat")
    query = dataclasses.replace(other.query, picture=one.query.picture)
    return dataclasses.replace(one, rival=dataclasses.replace(other, query=query))


@pytest.mark.parametrize("question", [MASKS, SAID])
def test_examples_of_another_object_turn_the_answer(black_and_white, question):
    some = [with_rival(i, question) for i in range(4)]
    changed = changes.other_object(some)[1]
    assert same(changed.query, some[1].query)
    assert same(changed.examples[0], some[1].rival.examples[0])
    known = Knower(None, [*some, *(each.rival for each in some)])
    if question is MASKS:
        found, score = MaskEvaluator(some).run(known), "miou"
    else:
        sets = {"number": frozenset(str(i) for i in range(600))}
        found, score = WordsEvaluator(some, sets=sets).run(known), "number"
    assert found[f"model/{score}"] == found[f"turned/{score}"] == 1
    cost = found[f"uses_other_object/{score}"]
    assert cost == pytest.approx(1 - found[f"other_object/{score}"])
    assert cost > 0.2
    # Episodes without a rival count elsewhere, and not here.
    lonely = [*some, episode(9, question=question)]
    known = Knower(None, [*lonely, *(each.rival for each in some)])
    sets = {"number": frozenset(str(i) for i in range(600))}
    evaluator = MaskEvaluator(lonely) if question is MASKS else WordsEvaluator(lonely, sets=sets)
    among = evaluator.run(known)
    assert among["episodes"] == 5
    for name in ("other_object", "turned", "uses_other_object"):
        assert among[f"{name}/{score}"] == pytest.approx(found[f"{name}/{score}"])
    assert "other_object" not in controls_of([episode(8), episode(9)], False), "none has a rival"


def test_words_beside_baselines_and_controls(black_and_white):
    some = [episode(i, question=SAID) for i in range(4)]
    sets = {"number": frozenset(str(i) for i in range(50))}
    found = WordsEvaluator(some, sets=sets).run(Knower(None, some))
    assert found["model/number"] == found["copy/category"] == 1
    assert found["copy/number"] == found["frequent/number"] == 0
    assert found["uses_other_examples/number"] == 1
    assert found["broken"] == 0


def test_what_is_no_question_is_refused():
    with pytest.raises(UserError, match=r"0 episodes of segmentation"):
        check_episodes([], MASKS)
    with pytest.raises(UserError, match=r"'e0' does not ask for captioning"):
        check_episodes([episode(0)], SAID)
    whole = episode(0)
    with pytest.raises(UserError, match=r"has its query among its examples"):
        check_episodes([dataclasses.replace(whole, examples=(whole.query,))], MASKS)


def test_the_loss_is_that_of_the_answer_to_the_query():
    some = [Episode((pair(3 * i), pair(3 * i + 1)), pair(3 * i + 2), "ab"[i % 2]) for i in range(3)]

    def loss(params, rows):
        """Sums the tokens that count, and asks whether examples are there."""
        del params
        total = jnp.sum(rows["tokens"] * rows["loss_weights"])
        return total + 1000.0 * jnp.sum(rows["segment_ids"][:, -1]), jnp.sum(rows["loss_weights"])

    placement = BatchPlacement(make_mesh(devices=jax.devices()[:1]), 2)
    found = LossControls(loss, some, FORMAT, PAIRS, placement).run({})
    start = FORMAT.words.vocabulary["image"].start
    n = FORMAT.tokens_per_image
    answers = np.mean([each.query.answer.mean() + start for each in some])
    assert found["right/loss"] == pytest.approx(answers + 1000 / n)
    assert found["no_examples/loss"] == pytest.approx(answers)
    assert found["other_query/loss"] == pytest.approx(answers + 1000 / n)
    assert found["uses_no_examples/loss"] == pytest.approx(1000 / n)


@pytest.mark.slow
def test_norms_and_cosines_of_the_questions_gradients():
    config = decoder(num_hidden_layers=2, mlps=("gelu_tanh",), hidden_size=16)
    task = InContextTask(config, optax.sgd(0.0), seq_len=FORMAT.pair_length * PAIRS - 1)
    params = task.init(jax.random.key(0))["params"]
    batches = {"a": batch(0, 2), "b": batch(1, 2, SAID), "c": batch(0, 2)}
    found = QuestionGradients(task.loss, batches, 1).run(params)
    assert found["a.c/all"] == pytest.approx(1, abs=1e-4)
    assert abs(found["a.b/all"]) < 0.99

    def mean(params):
        total, weight = task.loss(params, batches["a"])
        return total / weight

    grads = jax.jit(jax.grad(mean))(params)
    assert found["a/all"] == pytest.approx(float(optax.tree.norm(grads)), rel=1e-4)
    second = nnx.to_flat_state(grads["layers"]["attention"])
    by_hand = math.sqrt(sum(float(jnp.sum(jnp.square(v[...][1]))) for _, v in second))
    assert found["a/attention/1"] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.slow
def test_a_finished_decoder_is_scored_on_pools(vqgan, tmp_path):
    """Drawn answers, losses and gradients, from shards on."""
    words = WordsFormat(Vocabulary.unified(128, VQGAN_CODES, 11), Letters())
    form = SequenceFormat(words, N)
    rng = np.random.default_rng(0)
    written = [
        pool_fakes.record(
            i,
            "ab"[i % 2],
            picture=rng.integers(0, VQGAN_CODES, N),
            mask=rng.integers(0, VQGAN_CODES, N),
            boxed=None,
            caption="xy"[i // 2 % 2],
        )
        for i in range(8)
    ]
    sizes = {"codebook_size": VQGAN_CODES, "image_size": 16, "tokens_per_image": N}
    fingerprint = {"tokenizer_fingerprint": vqgan.fingerprint()}
    pool_fakes.write_pool(tmp_path, written, split="validation", **sizes, **fingerprint)
    config = decoder(
        vocab_size=words.vocabulary.size,
        bos_token_id=words.vocabulary.bos,
        eos_token_id=words.vocabulary.eos,
        pad_token_id=words.vocabulary.pad,
        mlps=("gelu_tanh",),
        hidden_size=16,
    )
    generator = InContextGenerator(Decoder(config, rngs=nnx.Rngs(0)), vqgan, form)
    sets = parse_word_sets("letter=x y")
    asked = PoolQuestions(str(tmp_path), RowStyle(shots=(0.0, 1.0)), sets=sets, batch_size=4)
    found = score(generator, asked)
    assert set(found) == {
        "segmentation", "segmentation_controls", "captioning", "captioning_controls", "gradients",
    }  # fmt: skip
    assert found["segmentation"]["episodes"] == 8
    assert 0 <= found["segmentation"]["model/miou"] <= 1
    assert found["captioning"]["copy/category"] == 1
    assert 0 <= found["captioning"]["model/letter"] <= 1
    # A fresh decoder predicts all ids alike, whatever precedes them.
    nats = math.log(words.vocabulary.size)
    assert found["captioning_controls"]["right/loss"] == pytest.approx(nats, abs=0.5)
    assert -1 <= found["gradients"]["captioning.segmentation/all"] <= 1


def test_word_sets_are_parsed():
    assert parse_word_sets("colour=Red blue, side=left") == {
        "colour": frozenset({"red", "blue"}),
        "side": frozenset({"left"}),
    }
    with pytest.raises(UserError, match=r"has the entry 'colour': write NAME=WORD WORD"):
        parse_word_sets("colour")
