"""The tab that answers from examples: what a run offers, painting, the control, and every mistake."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from lvm_jax.data.in_context.words import Words
from lvm_jax.demo.codes import Item
from lvm_jax.demo.drops import Dropped
from lvm_jax.demo.tab import Upload
from lvm_jax.demo.unified.studio import MASKS, SAID, Answer, agreement, how_much_changed
from lvm_jax.demo.unified.tab import Desk, UnifiedTab
from lvm_jax.errors import UserError
from lvm_jax.inference import Sampling


@pytest.fixture(scope="module")
def tab(unified_run) -> UnifiedTab:
    found = UnifiedTab.find("nowhere", ["nowhere", unified_run])
    assert found is not None
    return found


def last(steps):
    *_, progress = steps
    assert not progress.busy
    return progress.desk


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def half_white(left: bool) -> np.ndarray:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, slice(0, 32) if left else slice(32, 64)] = 255
    return pixels


def test_a_run_offers_episodes_of_both_questions(tab, unified_run):
    assert UnifiedTab.find("nowhere", [unified_run / "pools"]) is None
    # Masks and words in turn, of two classes each.
    prompts = [tab.start_from(tab.empty, i).prompt for i in range(4)]
    assert [prompt.question for prompt in prompts] == [MASKS, SAID, MASKS, SAID]
    assert {prompt.category for prompt in prompts[::2]} == {"disc", "star"}
    assert all(len(prompt.shots) == 2 for prompt in prompts)
    assert tab.examples.count("data-index=") == 4
    assert tab.label[1] == ("Data", "made up (CC0-1.0)")


def test_a_mask_is_that_of_the_engine(tab):
    desk = tab.start_from(tab.empty, 0)
    answered = last(tab.actions[0].run(desk))
    asked = tab.studio._asked(desk.prompt)
    codes = tab.studio._engine.masks([asked], sampling=Sampling(0.0))[0, 0]
    assert np.array_equal(answered.answer.drawn.codes_N, codes)
    html = tab.answers(answered)
    assert "the truth" in html
    assert "IoU" in html
    # Another example is another prompt, whose truth nobody knows.
    fewer = tab.click(answered, {"do": "remove", "index": 0})
    assert "the truth" not in tab.answers(last(tab.actions[0].run(fewer)))


def test_the_examples_are_swapped_for_those_of_the_other_thing_and_for_none(tab):
    desk = tab.start_from(tab.empty, 1)
    assert desk.prompt.question is SAID
    swapped = last(tab.actions[1].run(desk)).swapped
    other = {"disc": "star", "star": "disc"}[desk.prompt.category]
    assert [answer.what for answer in swapped] == [
        "after its 2 examples",
        f"after examples of {other}",
        "without examples",
    ]
    assert all(isinstance(answer.words, Words) for answer in swapped)
    for some in range(1, 4):  # the answers come one by one
        shown = dataclasses.replace(desk, swapped=swapped[:some])
        html = tab.answers(shown)
        assert html.count("<figure") == some
        assert (f"truth about {other}" in html) == (some > 1)
    # A prompt of the user's has no rival: the examples are those of another episode's class.
    own = tab.click(desk, {"do": "remove", "index": 0})
    ((what, changed),) = tab._others(own)
    assert (what, changed.category) == (f"after examples of {other}", other)


def test_a_picture_and_a_painted_mask_become_an_example(tab, picture):
    dropped = Upload("example", -1, [Dropped("a.png", picture(0)), Dropped("b.png", picture(1))])
    desk = tab.upload(tab.empty, dropped)
    assert [shot.mask for shot in desk.prompt.shots] == [None, None]
    painted = Upload("painted", 1, [Dropped("p", png(half_white(left=True)))])
    desk = tab.upload(desk, painted)
    mask = desk.prompt.shots[1].mask
    assert mask is not None
    assert mask.given_HWC[:, :60].min() == 255
    assert mask.given_HWC[:, 68:].max() == 0
    # A second stroke is added; a file takes the place of both.
    more = Upload("painted", 1, [Dropped("p", png(half_white(left=False)))])
    assert tab.upload(desk, more).prompt.shots[1].mask.given_HWC.min() == 255
    file = Upload("mask", 1, more.files)
    assert tab.upload(desk, file).prompt.shots[1].mask.given_HWC[:, :60].max() == 0
    box = {"do": "box", "index": 0, "value": [0.0, 0.5, 1.0, 1.0]}
    boxed = tab.click(desk, box).prompt.shots[0]
    assert boxed.mask.given_HWC[:60].max() == 0
    assert boxed.mask.given_HWC[68:].min() == 255
    said = tab.click(desk, {"do": "question", "index": 1})
    assert tab.click(said, box).prompt.shots[0].boxes == ((0.0, 0.5, 1.0, 1.0),)
    cleared = tab.click(desk, {"do": "clear-mask", "index": 1})
    assert cleared.prompt.shots[1].mask is None


def test_words_and_a_category_reach_the_prompt(tab):
    desk = tab.start_from(tab.empty, 1)
    desk = tab.click(desk, {"do": "caption", "index": 0, "value": " a red disc "})
    desk = tab.click(desk, {"do": "category", "index": -1, "value": "star"})
    first, second = (pair.answer for pair in tab.studio._asked(desk.prompt).examples)
    assert (first.caption, first.category, second.category) == ("a red disc", "star", "star")
    for index, (before, own) in enumerate((("", ""), ("star", ""), ("star", "star"))):
        asked = tab.studio._asked(tab.click(desk, {"do": "where", "index": index}).prompt)
        assert ({pair.category for pair in asked.examples}, asked.category) == ({before}, own)


def test_mistakes_are_one_line(tab, picture):
    def refused(desk, match):
        with pytest.raises(UserError, match=match) as error:
            list(tab.actions[0].run(desk))
        assert "\n" not in str(error.value)

    refused(tab.empty, "0 queries: drop the picture")
    desk = tab.start_from(tab.empty, 0)
    nameless = tab.click(desk, {"do": "category", "index": -1, "value": ""})
    refused(tab.click(nameless, {"do": "where", "index": 2}), "the category has 0 characters")
    refused(tab.click(desk, {"do": "clear-mask", "index": 1}), "example 2 has no mask: paint or")
    said = tab.click(tab.start_from(tab.empty, 1), {"do": "caption", "index": 0, "value": ""})
    refused(said, "example 1 has 0 words")
    three = [Dropped(f"{i}.png", picture(i)) for i in range(2)]
    with pytest.raises(UserError, match="2 pictures: there is room for 1 of 3 examples"):
        tab.upload(desk, Upload("example", -1, three))
    with pytest.raises(UserError, match="2 pictures for the query: drop 1"):
        tab.upload(desk, Upload("query", -1, three))
    with pytest.raises(UserError, match="lies outside its picture"):
        tab.click(desk, {"do": "box", "index": 0, "value": [0, 0, 2, 1]})
    with pytest.raises(UserError, match="0 examples to swap"):
        list(tab.actions[1].run(Desk()))


def test_how_much_changed_is_said_in_words():
    def mask(pixels: np.ndarray, what: str = "") -> Answer:
        return Answer(what, 0.1, Item(np.zeros(1, np.int32), pixels))

    own, same = mask(half_white(left=True)), mask(half_white(left=True), "without examples")
    turned = mask(half_white(left=False), "after examples of star")
    assert how_much_changed(own, [same]) == (
        "The answer is the same without examples: it does not depend on the examples."
    )
    assert how_much_changed(own, [turned, same]) == (
        "The answer changes with the examples: IoU 0.00 with the answer after examples of star; IoU 1.00 with the "
        "answer without examples."
    )
    assert agreement(own, same.drawn) == "IoU 1.00 with the truth"
    said = Answer("", 0.1, None, Words("a disc"))
    assert agreement(said, Words("a disc")) == "equal to the truth"
    assert "other words" in how_much_changed(
        said, [Answer("without examples", 0.1, None, Words(""))]
    )
