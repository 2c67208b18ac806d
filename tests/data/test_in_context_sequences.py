"""Sequences of pairs: the published layout, what is learnt, and words that come back, broken ones too."""

import dataclasses
import json

import numpy as np
import pytest

from lvm_jax.data.in_context.format_folder import FORMAT_FILE, read_questions
from lvm_jax.data.in_context.sequences import (
    Attribute,
    Pair,
    Question,
    SequenceFormat,
    stacked,
)
from lvm_jax.data.in_context.words import Words, WordsFormat
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary


class Letters:
    """A text tokenizer whose ids are code points."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


PUBLISHED = Vocabulary.unified(bins=1001)
SMALL = Vocabulary.unified(text=128, image=8, bins=11)
WORDS = WordsFormat(SMALL, Letters())
FORMAT = SequenceFormat(WORDS, tokens_per_image=4)
BOI, BOT, EOC, PAD, C_ST, C_ED, B_ST, B_ED = (
    SMALL.special(name) for name in ("boi", "bot", "eoc", "pad", "c_st", "c_ed", "b_st", "b_ed")
)
BIN = SMALL["bins"].start


def masks(first=0):
    codes = np.arange(4)
    return Pair((codes + first) % 8, (codes + first + 4) % 8)


def said(words, picture=None):
    return Pair(np.arange(4) if picture is None else picture, words)


def test_published_sizes():
    form = SequenceFormat(WordsFormat(PUBLISHED, Letters()))
    assert form.pair_length == 515
    rng = np.random.default_rng(0)
    pairs = [Pair(rng.integers(0, 1024, 256), rng.integers(0, 1024, 256)) for _ in range(4)]
    row = form.row(pairs)
    assert row.tokens.shape == (2060,)
    assert row.positions.tolist() == list(range(2060))
    # [BOI], codes, [BOI], codes, [EOC], and the next pair.
    boi, eoc = 50_257 + 1_024, 50_257 + 1_026
    for start in range(0, 2060, 515):
        assert row.tokens[[start, start + 257, start + 514]].tolist() == [boi, boi, eoc]
    assert (row.tokens[1:257] == pairs[0].picture + 50_257).all()
    assert (row.tokens[515 + 258 : 515 + 514] == pairs[1].answer + 50_257).all()
    assert row.loss_weights.sum() == 4 * 256
    assert form.spans == (257, 258)
    at_128_pixels = SequenceFormat(WordsFormat(PUBLISHED, Letters()), tokens_per_image=64)
    assert 4 * at_128_pixels.pair_length == 524


def test_golden_masks():
    row = FORMAT.row([masks(), masks(2)], room=3)
    first, second = [128, 129, 130, 131], [130, 131, 132, 133]
    assert row.tokens.tolist() == [
        *(BOI, *first, BOI, 132, 133, 134, 135, EOC),
        *(BOI, *second, BOI, 134, 135, 128, 129, EOC),
        *[PAD] * 11,
    ]
    assert row.segment_ids.tolist() == [1] * 22 + [0] * 11
    assert row.loss_weights.tolist() == [*[0] * 6, 1, 1, 1, 1, 0] * 2 + [0] * 11
    example, query = 1 + 4 + 64, 1 + 4 + 128
    assert row.attributes.tolist() == (
        [example + 16] * 5 + [example + 32] * 6 + [query + 16] * 5 + [query + 32] * 6 + [0] * 11
    )


def test_golden_words():
    form = SequenceFormat(
        WORDS, tokens_per_image=14, category_room=5, output_weight=2.0, input_weight=0.5
    )
    words = Words("hi", "ox", ((0.0, 0.1, 0.52, 1.0),))
    row = form.row([Pair(np.arange(14) % 8, words, category="ox")])
    said = [C_ST, 111, 120, C_ED, B_ST, BIN, BIN + 1, BIN + 5, BIN + 10, B_ED, 104, 105]
    assert row.tokens.tolist() == [
        *(C_ST, 111, 120, C_ED, PAD),
        *(BOI, *(128 + np.arange(14) % 8)),
        *(BOT, *said, PAD, PAD, EOC),
    ]
    # All words and the pad that ends them; the second pad, and what stands where it always stands, is not learnt.
    assert row.loss_weights.tolist() == [0] * 6 + [0.5] * 14 + [0] + [2.0] * 13 + [0, 0]
    text, query = 8, 128
    assert row.attributes.tolist() == (
        [2 + text + 16 + query] * 5 + [2 + 4 + 16 + query] * 15 + [2 + text + 32 + query] * 16
    )
    assert form.spans == (5, 15, 16)


def test_a_row_comes_back():
    words = [Words("a b", "c"), Words("", "", ()), Words("abcdefgh")]
    form = dataclasses.replace(FORMAT, tokens_per_image=8, category_room=4)
    pictures = np.random.default_rng(0).integers(0, 8, (3, 8))
    row = form.row([said(w, p) for w, p in zip(words, pictures)], room=4)
    found = form.pairs(row.tokens)
    assert len(found) == 3
    for (picture, answer), w, p in zip(found, words, pictures, strict=True):
        np.testing.assert_array_equal(form.codes(picture)[0], p)
        assert WORDS.parse(answer).words == w
    (_, answer), *_ = FORMAT.pairs(FORMAT.row([masks(3)]).tokens)
    codes, wrong = FORMAT.codes(answer)
    assert (codes.tolist(), wrong) == (masks(3).answer.tolist(), 0)
    assert FORMAT.codes(np.array([128, 5, 135, PAD]))[1] == 2


@pytest.mark.parametrize(
    "words",
    [
        Words("two dogs"),
        Words("x", "a dog"),
        Words("", "dog", ((0.1, 0.2, 0.3, 0.4), (0.0, 0.0, 1.0, 1.0))),
        Words("<c_st> is text", boxes=((0.5, 0.5, 0.5, 0.5),)),
    ],
)
def test_words_come_back(words):
    parsed = WORDS.parse([*WORDS.encode(words), PAD, PAD, EOC, 65])
    assert parsed.words == words
    assert parsed.broken == 0


A, B = ord("a"), ord("b")
BOX = [B_ST, BIN + 1, BIN + 2, BIN + 3, BIN + 4, B_ED]


@pytest.mark.parametrize(
    ("ids", "words", "broken"),
    [
        ([], Words(""), 0),
        ([EOC, A], Words(""), 0),
        ([C_ST, A, B], Words("", "ab"), 1),  # not closed
        ([C_ST, A, *BOX, B], Words("b", "a", ((0.1, 0.2, 0.3, 0.4),)), 1),
        ([A, C_ED, B], Words("ab"), 1),
        ([C_ST, A, C_ED, C_ST, B, C_ED], Words("b", "a"), 2),  # a second category is none
        ([*BOX[:4], A], Words("a"), 4),  # cut short: its bracket and its bins
        ([B_ST, BIN + 3, BIN, BIN + 1, BIN + 4, B_ED, A], Words("a"), 6),  # right before left
        ([B_ST, *BOX, A], Words("a", boxes=((0.1, 0.2, 0.3, 0.4),)), 1),
        ([A, 130, BIN, BOI, B], Words("ab"), 3),
        ([PAD, A, PAD, B], Words("ab"), 0),
    ],
)
def test_broken_words(ids, words, broken):
    parsed = WORDS.parse(ids)
    assert (parsed.words, parsed.broken) == (words, broken)


def test_any_ids_parse():
    rng = np.random.default_rng(0)
    for _ in range(300):
        ids = rng.choice([A, B, 130, BIN, BIN + 5, *range(BOI, BIN)], 12)
        parsed = WORDS.parse(ids)
        again = WORDS.parse(WORDS.encode(parsed.words))
        assert again.words == parsed.words
        assert again.broken == 0


def test_without_brackets_words_are_a_caption():
    plain = WordsFormat(Vocabulary.unified(text=128, image=8), Letters())
    assert plain.parse(plain.encode(Words("a dog"))).words == Words("a dog")
    assert plain.parse([A, 130, B]).broken == 1
    with pytest.raises(UserError, match=r"category 'dog' and 0 boxes need brackets and bins"):
        plain.encode(Words("a", "dog"))
    with pytest.raises(UserError, match=r"category_room=4 needs brackets"):
        SequenceFormat(plain, category_room=4)


def test_a_prompt_is_a_row_up_to_the_answer():
    for query in (masks(1), said(Words("hi"))):
        row, prompt = FORMAT.row([query, query]), FORMAT.prompt([query], query)
        cut = 11 + 1 + 4 + 1
        for name in ("tokens", "attributes", "positions", "segment_ids"):
            np.testing.assert_array_equal(vars(prompt)[name], vars(row)[name][:cut])
        assert FORMAT.answer_attribute(query.question) == row.attributes[cut]
        drawable = FORMAT.drawable(query.question)
        assert drawable[row.tokens[cut:-1]].all()
        assert not drawable[[BOI, BOT, EOC]].any()
    assert not FORMAT.drawable(Question.SEGMENTATION)[:128].any()
    assert not FORMAT.drawable(Question.CAPTIONING)[128:136].any()


def test_attributes_of_a_row_follow_its_spans():
    form = dataclasses.replace(FORMAT, category_room=3)
    attributes = form.row([masks(), masks(), masks()]).attributes
    at = 0
    for _ in range(3):
        for length in form.spans:
            assert len(set(attributes[at : at + length].tolist())) == 1
            at += length
    assert at == len(attributes)
    assert all(attributes & Attribute.EXAMPLE ^ (attributes & Attribute.QUERY) // 2)


def test_rows_become_a_batch():
    batch = stacked([FORMAT.row([masks(i)]) for i in range(3)])
    assert {name: x.shape for name, x in batch.items()} == dict.fromkeys(
        ("tokens", "segment_ids", "positions", "loss_weights", "attributes"), (3, 11)
    )
    assert {x.dtype.name for x in batch.values()} == {"int32", "float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FORMAT.row([]), r"0 pairs for a row of 0"),
        (lambda: FORMAT.row([masks()] * 3, room=2), r"3 pairs for a row of 2"),
        (lambda: FORMAT.row([masks(), said(Words("a"))]), r"ask several questions"),
        (lambda: FORMAT.row([Pair(np.arange(3), np.arange(4))]), r"shape \(3,\): it must have"),
        (lambda: FORMAT.row([Pair(np.arange(4), np.arange(4) + 5)]), r"a mask has codes 5..8, and"),
        (lambda: FORMAT.row([said(Words("abcde"))]), r"has 5 tokens and room for 4: shorten it"),
        (lambda: FORMAT.row([said(Words("ж"))]), r"has the id 1078, and the vocabulary has 128"),
        (lambda: WORDS.encode(Words("", boxes=((0, 0, 1.2, 1),))), r"lies outside its picture"),
        (lambda: WORDS.encode(Words("", boxes=((0.5, 0, 0.2, 1),))), r"lies outside its picture"),
        (
            lambda: FORMAT.row([dataclasses.replace(masks(), category="ox")]),
            r"category 'ox' has no room: set category_room",
        ),
        (lambda: SequenceFormat(WORDS, category_room=2), r"a category at least 3 tokens"),
        (lambda: SequenceFormat(WORDS, input_weight=-1.0), r"they must be at least 0"),
        (lambda: Vocabulary.unified(bins=1), r"bins is 1: it must be 0 or at least 2"),
    ],
)  # fmt: skip
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("questions", [5, [], "segmentation", {"segmentation": 1}, [["depth"]]])
def test_questions_that_are_no_list_of_names_are_refused(tmp_path, questions):
    sizes = {"text": 1, "image": 1, "bins": 0, "tokens_per_image": 1, "category_room": 0}
    (tmp_path / FORMAT_FILE).write_text(json.dumps(sizes | {"questions": questions}))
    with pytest.raises(UserError, match="and the list questions of some of segmentation"):
        read_questions(tmp_path)
