"""The tab that reads pages: what a run offers, the same answers as the library's, the control, and every mistake."""

import dataclasses

import numpy as np
import pytest

from lvm_jax.data.text_tokenizer import UnknownCharacters
from lvm_jax.demo.drops import Dropped
from lvm_jax.demo.tab import Upload
from lvm_jax.demo.vary import studio as studio_module
from lvm_jax.demo.vary.studio import Answer, Said, Sheet, how_much_changed
from lvm_jax.demo.vary.tab import Desk, VaryTab
from lvm_jax.errors import BadData, UserError
from lvm_jax.inference import generate_text

VALUES = (6, 1, 0)  # of the controls: tokens, beams, n-gram block


@pytest.fixture(scope="module")
def tab(vary_run) -> VaryTab:
    found = VaryTab.find("nowhere", ["nowhere", vary_run])
    assert found is not None
    return found


def last(steps):
    *_, progress = steps
    assert not progress.busy
    return progress.desk


def test_a_run_offers_its_held_out_pages_and_questions(tab, vary_run):
    assert VaryTab.find("nowhere", [vary_run / "shards"]) is None
    assert tab.empty.question == "Read it."
    assert tab.examples.count("data-index=") == 4
    (label, words), data = tab.label
    assert (label, str(vary_run / "two/model") in words) == ("Model", True)
    assert data == ("Data", "made up (CC0-1.0)")
    html = tab.prompt(tab.empty)
    assert html.count("class=chip") == 2
    assert "Describe it." in html


def test_an_example_is_read_as_the_library_reads_it(tab, vary_run):
    desk = tab.start_from(tab.empty, 1)
    assert desk.question == "Describe it."
    read = last(tab.actions[0].run(desk, *VALUES))
    (answer,) = read.answers
    model, tokenizer = tab.studio._generator._model, tab.studio._generator._tokenizer
    picture = desk.sheets[0].picture
    assert answer.said.text == generate_text(
        model, tokenizer, picture, "Describe it.", max_new=VALUES[0]
    )
    assert answer.said.tokens == VALUES[0] or answer.said.ended
    html = tab.answers(read)
    assert "Truth" in html
    assert "data-copies=" in html
    # Asked otherwise, the example's truth is none.
    other = last(tab.actions[0].run(tab.click(read, {"do": "ask", "index": 0}), *VALUES))
    assert "Truth" not in tab.answers(other)


def test_the_picture_is_swapped_for_another_and_a_blank_one(tab):
    desk = last(tab.actions[1].run(tab.start_from(tab.empty, 0), *VALUES))
    assert [answer.what for answer in desk.swapped] == [
        "the picture",
        "another picture",
        "a blank one",
    ]
    own, other, blank = (answer.sheet.picture for answer in desk.swapped)
    assert not np.array_equal(own, other)
    assert (blank == 255).all()
    assert blank.shape == own.shape
    assert tab.answers(desk).count("<figure") == 3


def test_pages_come_and_go(tab, picture):
    dropped = Upload("page", -1, [Dropped(f"{i}.png", picture(i)) for i in range(3)])
    desk = tab.upload(tab.start_from(tab.empty, 1), dropped)  # they take the example's place
    assert [sheet.name for sheet in desk.sheets] == ["0.png", "1.png", "2.png"]
    assert desk.question == "Describe it."
    steps = list(tab.actions[0].run(desk, *VALUES))
    assert [step.busy for step in steps] == ["Reading page 2 of 3.", "Reading page 3 of 3.", ""]
    assert [len(step.desk.answers) for step in steps] == [1, 2, 3]
    fewer = tab.click(steps[-1].desk, {"do": "remove", "index": 1})
    assert [sheet.name for sheet in fewer.sheets] == ["0.png", "2.png"]
    assert not fewer.answers
    with pytest.raises(UserError, match="3 files: there is room for 2 of 4 pages"):
        tab.upload(fewer, dropped)
    assert tab.click(fewer, {"do": "clear", "index": -1}) == Desk(question="Describe it.")


def test_mistakes_are_one_line(tab, picture):
    with pytest.raises(UserError, match="0 pages: drop a picture"):
        list(tab.actions[0].run(tab.empty, *VALUES))
    with pytest.raises(UserError, match=r"notes.txt: cannot be decoded .*; give a jpg"):
        tab.upload(tab.empty, Upload("page", -1, [Dropped("notes.txt", b"hello")]))
    asked = tab.click(tab.start_from(tab.empty, 0), {"do": "type", "index": -1, "value": "Qué?"})
    with pytest.raises(UnknownCharacters, match="no token for"):
        list(tab.actions[0].run(asked, *VALUES))
    long = dataclasses.replace(asked, question="a" * 200)
    with pytest.raises(BadData, match="context"):
        list(tab.actions[0].run(long, *VALUES))
    with pytest.raises(UserError, match="no 'remove' 5"):
        tab.click(tab.empty, {"do": "remove", "index": 4})


def test_why_it_stopped_and_how_much_changed_are_said_in_words():
    page = np.zeros((2, 2, 3), np.uint8)

    def answer(text: str, what: str = "", **changes) -> Answer:
        said = Said(
            **{"text": text, "tokens": 3, "ended": True, "loop": 0, "seconds": 1.0, **changes}
        )
        return Answer(Sheet("x", page, page), said, what)

    assert answer("a").said.why_it_stopped == "ended by the model"
    assert answer("a", ended=False, loop=9).said.why_it_stopped == (
        "cut at 3 tokens; its last 9 characters say one passage over and over"
    )
    own, another, blank = (
        answer("abcd"),
        answer("abcd", "another picture"),
        answer("x", "a blank one"),
    )
    assert how_much_changed(own, [another]).startswith(
        "The answer is the same with another picture"
    )
    words = how_much_changed(own, [another, blank])
    assert "changes with the picture, though not with another picture" in words
    assert words.endswith("100% with another picture, 0% with a blank one.")
    assert studio_module.agreement("a  b", "a b\n") == "equal to the truth"
    almost = studio_module.agreement("a" * 299 + "b", "a" * 300)
    assert almost == "99.7% of its characters agree with the truth"
