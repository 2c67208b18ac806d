"""Small charts and shapes: what they say is what is drawn, and held-out ones share nothing with seen ones."""

import ast

import numpy as np
import pytest

from data_pipelines.documents import Shapes, SmallCharts, small_charts
from lvm_jax.errors import UserError

SOURCES = {
    "charts": SmallCharts(count=30, held_out=10),
    "shapes": Shapes(count=30, held_out=10),
}


def truth(item):
    return item["text"][0].words


@pytest.mark.parametrize("name", SOURCES)
def test_an_item_follows_from_its_key(name):
    source = SOURCES[name]
    one, again = source.load("seen/0000003"), source.load("seen/0000003")
    np.testing.assert_array_equal(one["image"][0], again["image"][0])
    assert one["image"][0].shape == (32, 128, 3)
    assert truth(one) == truth(again)
    texts = {side: set() for side in ("seen", "held_out")}
    keys = source.keys()
    for key in keys:
        texts[key.split("/")[0]].add(truth(source.load(key)))
    assert len(texts["seen"]) > 15
    assert not texts["seen"] & texts["held_out"]


def test_bars_are_as_high_as_their_numbers():
    source = SmallCharts(count=40, held_out=1, height=60, largest=9)
    for key in source.keys()[1:]:
        item = source.load(key)
        values = list(ast.literal_eval(truth(item)).values())
        picture = item["image"][0]
        # Type is black, so what has a colour is a bar; from left to right they stand apart.
        coloured = np.isin(picture, _colours()).all(-1) & (picture.max(-1) > picture.min(-1))
        grey = (picture == 0x7A).all(-1)
        high = (coloured | grey).sum(axis=0)
        columns = np.flatnonzero(high > 0)
        starts = columns[np.diff(columns, prepend=-9) > 1]
        room = 60 - 12 - 10 - 2  # the type's capitals, with Q's tail, and digits; two gaps
        expected = [max(1, round(room * value / 9)) for value in values]
        assert [int(high[x]) for x in starts] == expected


def test_the_type_of_a_chart_is_whole_and_apart_from_the_bar():
    source = SmallCharts(count=40, held_out=1, letters=26)  # Q hangs below the others
    for item in map(source.load, source.keys()):
        picture = item["image"][0].astype(int)
        black = (picture.max(-1) < 0x60).any(axis=1)  # rows of the picture in which type is
        letters = np.flatnonzero(black[-13:])
        assert letters[0] > 0, "a row without type above the letters"
        assert letters[-1] - letters[0] >= 9, "a capital is ten pixels high"
        assert black[-2:].any() == ("Q" in truth(item)), "below the line is room for a tail"


def test_shapes_have_the_colours_that_are_named():
    source = SOURCES["shapes"]
    for item in map(source.load, source.keys()):
        picture, named = item["image"][0].astype(int), truth(item).split(", ")
        share = 128 // len(named)
        for place, (colour, _) in enumerate(name.split() for name in named):
            part = picture[:, place * share : (place + 1) * share].reshape(-1, 3)
            strongest = part[part.sum(-1).argmin()]
            ours = np.array([0xFF & (_RGB[colour] >> shift) for shift in (16, 8, 0)])
            assert np.abs(strongest - ours).max() < 8, (truth(item), strongest)


_RGB = {
    "red": 0xD62728,
    "green": 0x2CA02C,
    "blue": 0x1F77B4,
    "gold": 0xE6B800,
    "pink": 0xE377C2,
    "black": 0x202020,
}


def _colours():
    return [int(c[i : i + 2], 16) for c in small_charts.COLOURS for i in (1, 3, 5)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SmallCharts(bars=(0, 2)), "bars are from 0"),
        (lambda: SmallCharts(letters=27), "letters is 27: from 1 to 26"),
        (lambda: SmallCharts(letters=2), r"bars is \(1, 4\)"),
        (lambda: SmallCharts(bars=(1, 99)), r"bars is \(1, 99\)"),
        (lambda: SmallCharts(height=23).keys(), "height is 23 and size 14: 26 pixels at least"),
        (lambda: SmallCharts(held_out=0).keys(), "held_out is 0"),
        (
            lambda: SmallCharts(largest=99999).keys(),
            "largest is 99999, written 40 pixels wide, .* has 32",
        ),
        (lambda: Shapes(sizes=(2, 8)), "sizes from 2"),
        (lambda: Shapes(sizes=(8, 40)), r"sizes is \(8, 40\)"),
        (lambda: Shapes(shapes=(1, 9)), r"shapes is \(1, 9\)"),
    ],
)
def test_wrong_fields_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
