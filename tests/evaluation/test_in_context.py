"""The image asked for stays, its context grows, and both averages are what they are called."""

import numpy as np
import pytest

from lvm_jax.data.sentences.held_out import comparable_image, kind_of, last_images
from lvm_jax.data.sentences.visual_sentence import period_of
from lvm_jax.data.splits import spread
from lvm_jax.evaluation.lvm.in_context import AnnotationPerplexityEvaluator, InContextEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer, SentenceScore


class FakeScorer:
    """The NLL of every code is (2 or 4, by the sentence's seed) / number of images; remembers what it saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, sentences):
        self.seen.append(sentences)
        return [
            SentenceScore(np.full(s.codes.shape, self.nll(s)), np.zeros(s.codes.shape, bool), None)
            for s in sentences
        ]

    @staticmethod
    def nll(sentence):
        return (2.0 if sentence.key.startswith("made/0") else 4.0) / len(sentence.codes)


def test_the_target_stays_and_the_context_grows(make_sentence):
    sentences = [make_sentence("frame*4", 3, seed) for seed in range(2)]
    scorer = FakeScorer()
    result = InContextEvaluator(sentences).run(scorer)
    assert [len(batch[0].codes) for batch in scorer.seen] == [1, 2, 3, 4]
    for batch in scorer.seen:
        for sentence, shown in zip(sentences, batch):
            assert np.array_equal(shown.codes, sentence.codes[-len(shown.codes) :])
    assert result["sequential/sentences"] == 2
    assert result["analogy/sentences"] == 0
    assert not any(name.startswith("analogy/context") for name in result)
    # with one image of context the two NLLs are 1 and 2
    assert result["sequential/context_1/mean_example_perplexity"] == pytest.approx(
        (np.e + np.e**2) / 2
    )
    assert result["sequential/context_1/corpus_perplexity"] == pytest.approx(np.exp(1.5))


def test_analogies_grow_by_whole_pairs(make_sentence):
    sentences = [make_sentence("image,depth,image,depth,image,depth", 2, seed) for seed in range(2)]
    result = InContextEvaluator(sentences).run(FakeScorer())
    contexts = [
        int(n.split("_")[1].split("/")[0]) for n in result if n.endswith("corpus_perplexity")
    ]
    assert contexts == [0, 1, 3, 5]


def test_annotations_after_k_pairs(make_sentence):
    pairs = [
        make_sentence(",".join(["image,depth"] * n), 2, seed)
        for seed, n in ((1, 4), (0, 3), (2, 2))
    ]
    edges = [make_sentence(",".join(["image,edges"] * 3), 2, 9)]
    others = [
        make_sentence("frame*8", 3),
        make_sentence("image,depth,normal,image,depth,normal", 2),
    ]
    scorer = FakeScorer()
    result = AnnotationPerplexityEvaluator(pairs + edges + others, shots=2).run(scorer)
    assert [len(s.codes) for batch in scorer.seen for s in batch] == [6, 6, 6]
    assert np.array_equal(scorer.seen[0][0].codes, pairs[0].codes[-6:])
    assert (result["depth/examples"], result["edges/examples"]) == (2, 1)
    # The NLLs of the two depth maps are 4/6 and 2/6.
    assert result["depth/mean_example_perplexity"] == pytest.approx(
        (np.exp(4 / 6) + np.exp(2 / 6)) / 2
    )
    assert result["depth/corpus_perplexity"] == pytest.approx(np.exp(0.5))
    assert AnnotationPerplexityEvaluator(pairs, shots=5).run(scorer) == {"shots": 5}


def test_which_sentences_are_asked(make_sentence):
    sentences = [
        *[make_sentence("frame*8", 3, i) for i in range(3)],
        *[make_sentence("frame*4", 5, i) for i in range(3)],
        make_sentence("frame*2", 3),
        make_sentence("frame,mask,frame,mask", 4),
        make_sentence("image,depth,normal,image,depth,normal", 2),
        make_sentence("image", 1),
    ]
    scorer = FakeScorer()
    result = InContextEvaluator(sentences, max_sentences=2).run(scorer)
    assert (result["sequential/sentences"], result["analogy/sentences"]) == (2, 0)
    assert {s.layout for s in scorer.seen[-1]} == {"frame*8"}


def test_with_a_decoder(model, make_sentence):
    sentences = [make_sentence("frame*3", 5, seed) for seed in range(3)]
    result = InContextEvaluator(sentences).run(Scorer(model, 24))
    scores = Scorer(model, 24)(sentences)
    expected = np.exp(np.mean([score.nll_IN[-1].mean() for score in scores]))
    assert result["sequential/context_2/corpus_perplexity"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("layout", "category", "kind"),
    [
        ("image", 1, None),
        ("image*4", 1, None),
        ("image,depth", 2, None),
        ("image,depth,image,depth", 2, "analogy"),
        ("image,depth,normal,image,depth,normal", 2, "analogy"),
        ("frame*4", 3, "sequential"),
        ("frame", 3, None),
        ("frame,mask,frame,mask", 4, "sequential"),
        ("view*8", 5, "sequential"),
    ],
)
def test_the_kind_of_prompt(make_sentence, layout, category, kind):
    assert kind_of(make_sentence(layout, category)) == kind


def test_the_comparable_image_is_the_last_of_the_same_role():
    assert comparable_image(["image", "depth", "image"], "depth") == 1
    assert comparable_image(["frame"] * 3, "frame") == 2
    assert comparable_image(["frame", "frame"], "mask") == 1


def test_periods():
    assert period_of(["a"] * 4) == 1
    assert period_of(["a", "b"] * 3) == 2
    assert period_of(["a", "a", "b", "b"]) == 4
    assert period_of(["a", "b", "a"]) == 3


def test_last_images(make_sentence):
    short = last_images(make_sentence("image,depth,image,depth", 2), 3)
    assert short.roles == ["depth", "image", "depth"]
    assert len(short.codes) == 3


def test_spread_covers_the_range():
    assert spread(5, 0).tolist() == spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread(101, 3).tolist() == [0, 50, 100]
