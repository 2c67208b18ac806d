"""The fragments of the page: what they hold, and that a name is never markup."""

import dataclasses
import re

import numpy as np

from lvm_jax.demo.codes import Item
from lvm_jax.demo.lvm import view
from lvm_jax.demo.lvm.studio import Example, Reply
from lvm_jax.demo.view import label, notice

EVIL = "<script>alert('&')</script>"


def item(studio, *, given: bool) -> Item:
    codes = np.zeros(studio.coder.vqgan.tokens_per_image, np.int32)
    pixels = np.zeros((8, 8, 3), np.uint8)
    return Item(codes, pixels, pixels if given else None, log_likelihood=-1.0)


def test_names_are_text(studio):
    one = item(studio, given=False)
    for html in (
        view.examples_row([Example(EVIL, (one,), ())]),
        notice(EVIL),
        label([(EVIL, EVIL)]),
    ):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_nothing_to_show_takes_no_room():
    assert view.examples_row([]) == view.candidates_row((), ()) == notice("") == ""


def test_an_example_shows_its_last_three_images(studio):
    html = view.examples_row([Example("a", (item(studio, given=False),) * 4, ())])
    assert html.count("<img") == 3
    assert "data-index=0" in html


def test_the_strip_has_a_column_an_image_and_room_for_the_rest(studio):
    given, made = item(studio, given=True), item(studio, given=False)
    assert view.strip_table((), studio).count("class='strip empty'") == 1
    assert "class='strip made'" in view.strip_table((made,), studio)
    html = view.strip_table((given, made), studio)
    assert "class='strip'" in html
    assert html.count("<li>") == 2
    assert html.count("<img") == 3 + 2
    assert html.count("class=none") == 1
    assert f"room for {studio.max_prompt - 2}" in html
    buttons = re.findall(r"data-do=(\w+) data-index=(\d)[^>]*?( disabled)?>", html)
    assert [f"{do}{i}" for do, i, off in buttons if off] == ["left0", "right1"]
    assert [f"{do}{i}" for do, i, _ in buttons] == [
        f"{do}{i}" for i in (0, 1) for do in ("left", "right", "remove")
    ]
    assert "class=drop" not in view.strip_table((made,) * studio.max_prompt, studio)


def test_the_truth_stands_after_the_candidates(studio):
    made = item(studio, given=False)
    html = view.candidates_row((made, made), (made,))
    assert re.findall(r'aria-label="(append candidate \d)"', html) == [
        "append candidate 1",
        "append candidate 2",
    ]
    assert html.index("append candidate 2") < html.index("what the corpus has")
    assert "what the corpus has" not in view.candidates_row((made,), ())


def test_the_mean_stands_between_several_candidates_and_the_truth(studio):
    made = item(studio, given=False)
    html = view.candidates_row((made, made), (made,))
    assert html.index("append candidate 2") < html.index("mean of 2") < html.index("the corpus has")
    assert "mean of" not in view.candidates_row((made,), ())
    better = dataclasses.replace(made, log_likelihood=-0.5)
    html = view.candidates_row((made, better, made), ())
    assert re.findall(r"<span>(.*?)</span>", html) == ["1", "2 · likeliest", "3"]


def test_two_queries_and_their_answers_stand_in_two_rows(studio):
    made = item(studio, given=False)
    reply = Reply(made, made, made, (made, made))
    assert view.swapped_rows(None) == ""
    html = view.swapped_rows((reply, reply))
    assert html.count("<figure") == html.count("<img") == 8
    assert html.index("its own query") < html.index("another query</figcaption>")
    assert "does not depend on the query" in html
