"""Scores of texts: cases worked out by hand, and the public definitions written anew, slowly."""

import collections
import importlib.util
import math
import random

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.metrics import answers, captions, repetition, text

WORDS = [
    "a",
    "the",
    "red",
    "small",
    "ball",
    "dog",
    "man",
    "cat",
    "on",
    "in",
    "runs",
    "park",
    "table",
    "shirt",
    "wearing",
    "blue",
]


def random_texts(rng: random.Random, count: int, longest: int = 9) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


def slow_distance(a: str, b: str) -> int:
    table = [[max(i, j) if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            ways = (
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
            table[i][j] = min(ways)
    return table[-1][-1]


def test_edit_distance_is_levenshtein_over_the_longer_text():
    assert text.edit_distance("kitten", "sitting") == pytest.approx(3 / 7)
    assert text.edit_distance("", "") == 0
    assert text.edit_distance("", "ab") == text.edit_distance("ab", "") == 1
    assert text.edit_distance("你好世界", "你们世界") == pytest.approx(1 / 4)
    rng = random.Random(0)
    for a, b in zip(random_texts(rng, 20), random_texts(rng, 20)):
        assert text.edit_distance(a, b) == pytest.approx(slow_distance(a, b) / max(len(a), len(b)))


def test_character_error_rate_weighs_texts_by_their_length():
    assert text.character_error_rate(["abcd", "xxxx"], ["abcd", "y"]) == pytest.approx(4 / 5)
    with pytest.raises(UserError, match="2 truths have 0 characters"):
        text.character_error_rate(["a", "b"], ["", ""])


def test_words_are_cut_by_jieba_where_there_are_han():
    assert text.word_lists("one  two\nthree", "four") == (["one", "two", "three"], ["four"])
    ours, truth = text.word_lists("我来到北京清华大学", "OCR 北京")
    assert ours == ["我", "来到", "北京", "清华大学"]
    assert truth == ["OCR", "北京"]
    assert text.word_lists("a b", "来到北京") == (["a", "b"], ["来到", "北京"])


def test_word_sets():
    assert text.word_sets(["a", "b", "b", "c"], ["b", "c", "d", "e"]) == pytest.approx(
        (2 / 3, 1 / 2, 4 / 7)
    )
    assert text.word_sets([], ["a"]) == text.word_sets(["a"], []) == (0, 0, 0)
    assert text.word_sets([], []) == (1, 1, 1)


def slow_bleu(predicted: list[str], references: list[list[str]]) -> float:
    """Papineni et al. 2002: clipped n-gram precisions of the corpus, and the brevity penalty by the nearest length."""
    hits, seen = [0] * 4, [0] * 4
    ours_long = truth_long = 0
    for ours, truths in zip(predicted, references):
        ours, truths = ours.split(), [truth.split() for truth in truths]
        ours_long += len(ours)
        truth_long += min((abs(len(t) - len(ours)), len(t)) for t in truths)[1]
        for n in range(1, 5):
            grams = [tuple(ours[i : i + n]) for i in range(len(ours) - n + 1)]
            seen[n - 1] += len(grams)
            for gram in set(grams):
                most = max(
                    sum(tuple(t[i : i + n]) == gram for i in range(len(t) - n + 1)) for t in truths
                )
                hits[n - 1] += min(grams.count(gram), most)
    if not all(hits):
        return 0.0
    brevity = 1.0 if ours_long > truth_long else math.exp(1 - truth_long / ours_long)
    return brevity * math.exp(sum(math.log(h / s) for h, s in zip(hits, seen)) / 4)


def test_bleu_is_that_of_the_corpus():
    rng = random.Random(1)
    for _ in range(5):
        predicted = random_texts(rng, 30)
        references = [random_texts(rng, rng.randint(1, 3)) for _ in predicted]
        expected = slow_bleu(predicted, references)
        assert text.bleu(predicted, references) == pytest.approx(expected, rel=1e-9)
    assert text.bleu(["a b c d"], [["a b c d"]]) == pytest.approx(1)
    assert text.bleu(["a b c"], [["a b c"]]) == 0  # no 4-gram, and no smoothing


def test_meteor_needs_its_synonyms(monkeypatch):
    if not text.missing_wordnet():
        assert text.meteor(["a", "b", "c", "d"], ["a", "b", "c", "d"]) == pytest.approx(
            1 - 0.5 / 64
        )
        return
    with pytest.raises(
        UserError, match=r"no METEOR.*pip install|no METEOR.*nltk.downloader wordnet"
    ):
        text.meteor(["a"], ["a"])


def test_anls_follows_the_official_script():
    assert answers.anls("  The  Cat", ["the cat"]) == 1
    assert answers.anls("cot", ["dog", "cat"]) == pytest.approx(2 / 3)
    assert answers.anls("ab", ["ax"]) == 0.5  # the threshold itself counts
    assert answers.anls("abc", ["axy"]) == 0
    with pytest.raises(UserError, match="0 answers"):
        answers.anls("a", [])


@pytest.mark.parametrize(
    ("predicted", "answer", "right"),
    [
        ("105", "100", True), ("105.1", "100", False), ("-95", "-100", True), ("12%", "0.12", True),
        ("Yes", "yes", True), ("0", "0", True), ("0.0", "0", False), ("1,000", "1000", False),
        ("nan", "3", False), ("", "a", False), ("blue", "3", False), ("3", "blue", False),
    ],
)  # fmt: skip
def test_relaxed_match_follows_the_public_script(predicted, answer, right):
    assert answers.relaxed_match(predicted, answer) is right


def test_fields_of_a_chart():
    truth = {"title": "Rain  a year", "values": {"Oslo": 763, "Bergen": 2250.5, "Rome": "45%"}}
    written = "It shows {'title': 'Rain a year', 'values': {'Oslo': '800', 'Bergen': 2200, 'Rome': 44, 'x': 1}}."
    found = answers.compare_dicts(answers.parse_dict(written), truth)
    assert found == answers.Fields(
        right=4, wanted=4, given=5
    )  # 5% of 763 is 38: 800 is near enough
    assert (found.accuracy, found.precision) == (1, 0.8)
    wrong = answers.compare_dicts(
        {"title": "Rain", "values": {"Oslo": 802, "Bergen": [2250]}}, truth
    )
    assert wrong == answers.Fields(right=0, wanted=4, given=3)
    assert found.merge(wrong) == answers.Fields(4, 8, 8)
    assert answers.compare_dicts(None, truth) == answers.Fields(0, 4, 0)


@pytest.mark.parametrize(
    "written", ["", "no dict", "{'a': 1", "{[1]: 2}", "{'a': open('x')}", "{" * 500 + "}"]
)
def test_what_is_no_dict_is_none(written):
    assert answers.parse_dict(written) is None


def test_a_json_object_is_read_as_its_dict():
    assert answers.parse_dict('{"a": [true, null, 2.5]} and no more') == {"a": [True, None, 2.5]}


def test_a_number_of_a_model_in_a_loop_is_wrong_and_no_crash():
    endless = answers.parse_dict("{'a': " + "7" * 400 + "}")
    assert answers.compare_dicts(endless, {"a": 7}) == answers.Fields(right=0, wanted=1, given=1)
    assert answers.compare_dicts(endless, endless or {}).right == 1
    # Python reads hexadecimal digits of any number, and writes 4,300 decimal ones.
    unwritten = answers.parse_dict("{'a': 0x" + "f" * 5000 + ", 0x" + "f" * 5000 + ": 7}")
    found = answers.compare_dicts(unwritten, {"a": "", "b": 7})
    assert found == answers.Fields(right=0, wanted=2, given=2)


def test_loops():
    assert repetition.repeated_ngrams(["a", "b", "c", "d"], 2) == 0
    assert repetition.repeated_ngrams(["a", "b", "a", "b", "a", "b"], 2) == pytest.approx(3 / 5)
    assert repetition.repeated_ngrams([], 4) == 0
    assert (
        repetition.ending_loop("It begins well, and so on, and so on, and so on, and so on") == 44
    )
    assert repetition.ending_loop("the end" + "." * 15) == 0  # a short row of dots is no loop
    assert repetition.ending_loop("the end" + "." * 16) == 16
    assert repetition.ending_loop("1 2 3 1 2 3 1 2 3") == 0  # three times only
    assert repetition.ending_loop("") == 0
    assert repetition.ending_loop([5, 7, 8, 9, 5, 7, 8, 9] * 2, times=4) == 16


# The corpus, and what pycocoevalcap 1.2 gives for it.
SHOWN = [
    ["a red ball on the table", "the small red ball"],
    ["two dogs running in the park", "dogs playing on grass"],
    ["a man wearing a blue shirt", "man in a blue shirt standing"],
    ["white cat sleeping on the sofa"],
]
SAID = [
    "a red ball on a table",
    "a dog runs in the park",
    "the man is wearing a blue shirt",
    "a black car",
]


def slow_cider_d(predicted: list[str], references: list[list[str]]) -> list[float]:
    """Vedantam et al., arXiv 1411.5726, equation 7 and section 5, over dense vectors."""

    def grams(said: str, n: int) -> list[tuple[str, ...]]:
        words = said.split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    scores = []
    for ours, truths in zip(predicted, references):
        total = 0.0
        for n in range(1, 5):
            space = sorted(
                {g for texts in [*references, [*predicted]] for t in texts for g in grams(t, n)}
            )
            seen = np.array(
                [sum(any(g in grams(t, n) for t in texts) for texts in references) for g in space]
            )
            idf = np.log(len(references)) - np.log(np.maximum(1, seen))

            def vector(said: str, n=n, space=space, idf=idf) -> np.ndarray:
                counted = collections.Counter(grams(said, n))
                return np.array([counted[g] for g in space]) * idf

            for truth in truths:
                a, b = vector(ours), vector(truth)
                norm = np.linalg.norm(a) * np.linalg.norm(b)
                gap = len(grams(ours, 2)) - len(grams(truth, 2))
                if norm:
                    cosine = (np.minimum(a, b) * b).sum() / norm
                    total += cosine * math.exp(-gap * gap / 72) / len(truths) / 4
        scores.append(10 * total)
    return scores


def test_cider_d_is_the_public_one():
    found = captions.cider_d(SAID, SHOWN)
    np.testing.assert_allclose(found, [3.955497, 1.226935, 4.207429, 0], atol=1e-6)
    assert found.mean() == pytest.approx(2.347465348, abs=1e-9)
    assert text.bleu(SAID, SHOWN) == pytest.approx(0.3379256928, abs=1e-9)
    rng = random.Random(2)
    for _ in range(3):
        said = random_texts(rng, 12)
        shown = [random_texts(rng, rng.randint(1, 4)) for _ in said]
        np.testing.assert_allclose(
            captions.cider_d(said, shown), slow_cider_d(said, shown), atol=1e-9
        )
    with pytest.raises(UserError, match="caption 1 has 0 references"):
        captions.cider_d(["a", "b"], [["a"], []])


@pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None,
    reason="pycocoevalcap, which brings the LGPL jar of METEOR 1.5, is not installed",
)
def test_meteor_1_5_is_the_jar():
    found = captions.meteor_1_5(SAID, SHOWN)
    np.testing.assert_allclose(found, [0.4587624, 0.4050114, 0.4542475, 0], atol=1e-6)


def test_a_missing_jar_is_named(monkeypatch):
    monkeypatch.setattr(captions, "missing_meteor", lambda: "there is no jar")
    with pytest.raises(UserError, match=r"no METEOR 1\.5: there is no jar"):
        captions.meteor_1_5(["a"], [["a"]])
