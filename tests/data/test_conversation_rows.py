"""Conversations to rows: golden ids, what is learnt, where pictures stand, and cuts."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from text_fakes import FOLDER, MPT, OPT, VICUNA, pieces_of_words, with_settings

from data_pipelines.train_text_tokenizer import byte_level
from lvm_jax.data.image_text.conversation import (
    BadConversation,
    Conversation,
    Turn,
    picture_paths,
)
from lvm_jax.data.image_text.templates import answer_of, render, template_named
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError

ASK = Conversation((Turn("<image>\nA?", "Hi."),))
TWO = Conversation((Turn("<image>B<image>?", "1"), Turn("C?", "22")))
USER, ASSISTANT = [42, 40, 26, 39, 20, 7], [7, 22, 40, 40, 30, 40, 41, 22, 35, 41, 20]
SYSTEM = [66, 72, 66, 67, 52, 60, 6, 36, 49, 52, 72, 9]  # "system\nObey."
ASKED, ANSWERS = [68, 66, 52, 65, 6], [48, 66, 66, 56, 66, 67, 48, 61, 67, 6]  # of "mpt"


def parts(row):
    """Runs of (learnt, ids)."""
    runs = []
    for id, weight in zip(row.tokens.tolist(), row.loss_weights.tolist(), strict=True):
        if not runs or runs[-1][0] != weight:
            runs.append((weight, []))
        runs[-1][1].append(id)
    return runs


def test_golden_ids_of_opt():
    row = render(ASK, TextTokenizer(FOLDER), 2, 50)
    assert parts(row) == [(0, [1, 3, 2, 2, 4, 6]), (1, [29, 56, 9, 6, 1])]
    assert row.image_places.tolist() == [[2, 3]]
    # Vary-tiny's own sizes: the 260 tokens before the answer are not learnt.
    assert (render(ASK, TextTokenizer(FOLDER), 256, 300).loss_weights == 0).sum() == 260


def test_golden_ids_of_vicuna(tmp_path):
    row = render(TWO, with_settings(tmp_path, VICUNA), 2, 99)
    assert parts(row) == [
        (0, [74, *USER, 3, 2, 2, 4, 23, 3, 2, 2, 4, 21, *ASSISTANT]),
        (1, [7, 11, 1]),
        (0, [*USER, 24, 21, *ASSISTANT]),
        (1, [7, 12, 12, 1]),
    ]
    assert row.image_places.tolist() == [[8, 9], [13, 14]]


def test_golden_ids_of_mpt(tmp_path):
    row = render(TWO, with_settings(tmp_path, MPT), 1, 99)
    assert parts(row) == [
        (0, [75, *SYSTEM, 76, 75, *ASKED, 3, 2, 4, 23, 3, 2, 4, 21, 76, 75, *ANSWERS]),
        (1, [11, 76]),
        (0, [75, *ASKED, 24, 21, 76, 75, *ANSWERS]),
        (1, [12, 12, 76]),
    ]
    assert (row.tokens[row.image_places] == 2).all()


def test_golden_ids_where_the_tokenizer_marks_the_first_space(tmp_path):
    tokenizer = with_settings(tmp_path, VICUNA, pieces_of_words())
    row = render(Conversation((Turn("see", "see see"),)), tokenizer, 1, 99)
    see = 266
    learnt = [run for weight, run in parts(row) if weight]
    assert learnt == [[see, see, tokenizer.ids["eos"]]]
    assert answer_of(learnt[0], tokenizer) == "see see"


def test_a_prompt_is_the_row_up_to_the_answer(tmp_path):
    for number, layout in enumerate((OPT, VICUNA, MPT)):
        tokenizer = with_settings(tmp_path / str(number), layout)
        prompt = render(Conversation((Turn("<image>\nA?", None),)), tokenizer, 2, 99)
        whole = render(ASK, tokenizer, 2, 99)
        assert not prompt.loss_weights.any()
        assert parts(whole)[0][1] == prompt.tokens.tolist()


def test_a_row_without_pictures(tmp_path):
    row = render(Conversation((Turn("A?", "no"),)), with_settings(tmp_path, MPT), 4, 99)
    assert row.image_places.shape == (0, 4)
    assert not np.isin(row.tokens, [2, 3, 4]).any()


def test_a_cut_row_ends_with_eos(tmp_path):
    row = render(ASK, TextTokenizer(FOLDER), 2, 9)
    assert row.truncated
    assert parts(row) == [(0, [1, 3, 2, 2, 4, 6]), (1, [29, 56, 1])]
    whole = render(ASK, TextTokenizer(FOLDER), 2, 11)
    assert not whole.truncated
    assert len(whole.tokens) == 11
    # Cut within the second question: the row ends with the first answer.
    tokenizer = with_settings(tmp_path, VICUNA)
    full = render(TWO, tokenizer, 2, 99)
    cut = render(TWO, tokenizer, 2, len(full.tokens) - 10)
    assert parts(cut) == parts(full)[:2]


def test_what_leaves_no_answer_or_half_a_picture_is_refused(tmp_path):
    with pytest.raises(BadConversation, match="begins after token 6, the longest row"):
        render(ASK, TextTokenizer(FOLDER), 2, 6)
    with pytest.raises(BadConversation, match="begins after token 99"):
        render(ASK, TextTokenizer(FOLDER), 256, 99)
    late = Conversation((Turn("A?", "Hi"), Turn("<image>", "Yes")))
    tokenizer = with_settings(tmp_path, VICUNA)
    with pytest.raises(BadConversation, match="its pictures take 41 tokens, the context has 40"):
        render(late, tokenizer, 9, 40)


def test_opt_has_one_turn():
    with pytest.raises(BadConversation, match="2 turns, the template 'opt' has one"):
        render(TWO, TextTokenizer(FOLDER), 2, 99)


def test_templates_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="'vicuna_v2'; did you mean vicuna_v1"):
        template_named("vicuna_v2")
    with pytest.raises(UserError, match="the template 'opt' needs the token 'bos'"):
        render(ASK, with_settings(tmp_path, dataclasses.replace(OPT, bos="")), 2, 99)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
questions = texts.flatmap(lambda t: st.sampled_from([t, f"<image>{t}", f"{t}<image>\n<image>{t}"]))


@pytest.fixture(scope="module")
def spellers(tmp_path_factory):
    """Tokenizers that spell any text, one a template."""
    made = []
    for layout in (OPT, VICUNA, MPT):
        needed = {**dataclasses.asdict(OPT), **dataclasses.asdict(layout)}
        folder = tmp_path_factory.mktemp(layout.template)
        content = byte_level(["the words of the page, and the user:"], 320, layout)
        made.append(with_settings(folder, dataclasses.replace(layout, **needed), content))
    return made


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(turns=st.lists(st.tuples(questions, texts), min_size=1, max_size=3))
def test_what_is_learnt_are_the_answers(spellers, turns):
    for tokenizer in spellers:
        single = tokenizer.settings.template == "opt"
        conversation = Conversation(tuple(Turn(q, a) for q, a in turns[: 1 if single else None]))
        assert Conversation.from_json(conversation.to_json()) == conversation
        row = render(conversation, tokenizer, 3, 10_000)
        learnt = [run for weight, run in parts(row) if weight]
        assert tuple(answer_of(run, tokenizer) for run in learnt) == conversation.answers
        assert all(run[-1] == tokenizer.ids["eos"] for run in learnt)
        assert row.image_places.shape == (conversation.pictures, 3)
        patches = np.flatnonzero(row.tokens == tokenizer.ids["image_patch"])
        np.testing.assert_array_equal(row.image_places.ravel(), patches)


def test_the_published_layout():
    entries = [
        {"from": "human", "value": "<image>\nA?"},
        {"from": "gpt", "value": "the tag <image>"},
        {"from": "human", "value": "B?"},
    ]
    found = Conversation.of(entries)
    assert found.turns == (Turn("<image>\nA?", "the tag <image>"), Turn("B?", None))
    assert (found.pictures, found.answers) == (1, ("the tag <image>",))
    assert json.loads(found.to_json()) == entries
    assert picture_paths({"image": "a.png"}) == ("a.png",)
    assert picture_paths({"image": ["a.png", "b.png"]}) == ("a.png", "b.png")
    assert picture_paths({}) == ()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("text", "conversations are str"),
        (7, "conversations are int"),
        ([], "no turns"),
        ([{"from": "gpt", "value": "A"}], "turn 0 is from 'gpt'.*must be 'human'"),
        ([{"from": "human", "value": "A"}] * 2, "turn 1 is from 'human'"),
        ([{"from": "human"}], "turn 0 is .*must be {from, value}"),
        (["hello"], "turn 0 is 'hello'"),
        ([{"from": "human", "value": 3}], "turn 0 says '3': it must be a text"),
        ([{"from": "human", "value": "a\ud83d"}], r"turn 0 has '\\ud83d', half of a character"),
    ],
)
def test_other_layouts_are_refused(entries, message):
    with pytest.raises(BadConversation, match=message):
        Conversation.of(entries)


def test_pictures_and_placeholders_must_agree():
    ASK.check_pictures(1)
    with pytest.raises(BadConversation, match="0 pictures for 1 placeholders"):
        ASK.check_pictures(0)
    with pytest.raises(BadConversation, match="2 pictures for 1 placeholders"):
        ASK.check_pictures(2)
    with pytest.raises(BadConversation, match="its image is '7'"):
        picture_paths({"image": 7})
    with pytest.raises(BadConversation, match="is not JSON"):
        Conversation.from_json("[")
    with pytest.raises(BadConversation, match=r"is not JSON .*digits"):
        Conversation.from_json(f"[{'1' * 5000}]")
    with pytest.raises(BadConversation, match="before the last has no answer"):
        Conversation((Turn("A", None), Turn("B", "C")))
