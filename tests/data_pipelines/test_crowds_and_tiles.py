"""Pools of crowds and of marked tiles: exact truth, and many decisions a picture that only the examples tell."""

import math
import re

import numpy as np
import pytest

from data_pipelines.hues import hue_name
from data_pipelines.in_context import ONE_PICTURE, DrawnCrowds, DrawnObjects, MarkedTiles
from data_pipelines.in_context.drawn_objects import GREY
from data_pipelines.in_context.marked_tiles import name_of_set
from lvm_jax.errors import UserError

CROWDS = DrawnCrowds(count=12, size=48)
TILES = MarkedTiles(sets=6, pictures=3, kinds=(3, 5), size=32)


def by_picture(source):
    found: dict[str, list[str]] = {}
    keys = source.keys()
    for key in keys:
        found.setdefault(key.split("/")[1], []).append(key)
    return found


def test_a_crowd_is_divided_among_its_colours():
    seen, unseen = DrawnObjects(class_words=("colour",)).classes()
    for keys in by_picture(CROWDS).values():
        items = [CROWDS.load(key) for key in keys]
        assert 2 <= len(keys) <= 4
        assert len({item["shows"][0].words for item in items}) == 1
        image = items[0]["image"][0]
        assert all((item["image"][0] == image).all() for item in items)
        masks = np.array([item["mask"][0].inside_HW for item in items])
        assert (masks.sum(axis=0) <= 1).all()
        # Beyond all masks is the ground, but for pixels that an edge crosses.
        bare = ~masks.any(axis=0)
        assert (np.abs(image[bare].astype(int) - GREY).max(axis=1) < 4).mean() > 0.75
        assert 5 <= sum(len(item["boxes"][0].corners_N4) for item in items) <= 9
        for key, item, mask in zip(keys, items, masks, strict=True):
            colour = key.rpartition("/")[2]
            assert colour in seen
            assert colour not in unseen
            assert item["class"][0].words == colour
            assert hue_name(tuple(np.median(image[mask], axis=0))) == colour


def test_boxes_of_a_colour_come_as_people_read_and_are_counted():
    several, keys = 0, CROWDS.keys()
    for key in keys:
        item = CROWDS.load(key)
        mask, corners_N4 = item["mask"][0].inside_HW.copy(), item["boxes"][0].corners_N4.astype(int)
        number, colour, thing = item["caption"][0].words.split()
        assert (
            number
            == ["one", "two", "three", "four", "five", "six", "seven", "eight"][len(corners_N4) - 1]
        )
        assert (colour, thing) == (key.rpartition("/")[2], "thing" + "s" * (len(corners_N4) > 1))
        for left, top, right, bottom in corners_N4:
            assert mask[top:bottom, left:right].any()
            mask[top:bottom, left:right] = False
        assert not mask.any(), "some of it is in no box"
        rows = ((corners_N4[:, 1] + corners_N4[:, 3]) / 2 // 16).tolist()
        columns = ((corners_N4[:, 0] + corners_N4[:, 2]) / 2 // 16).tolist()
        cells = list(zip(rows, columns, strict=True))
        assert cells == sorted(cells)
        several += len(cells) > 2
    assert several > 5


def test_the_pictures_of_a_set_have_the_same_colours_marked():
    shown: dict[str, list[tuple[set, set]]] = {}
    keys = TILES.keys()
    for key in keys:
        item = TILES.load(key)
        image, mask = item["image"][0].reshape(8, 4, 8, 4, 3), item["mask"][0].inside_HW
        whole = mask.reshape(8, 4, 8, 4).swapaxes(1, 2).reshape(64, 16)
        tiles = image.swapaxes(1, 2).reshape(64, 16, 3)
        plain = (tiles == tiles[:, :1]).all(axis=(1, 2))  # tiles that no line cuts
        assert 15 < plain.sum() < 50
        marked, rest = set(), set()
        for tile, inside in zip(tiles[plain], whole[plain], strict=True):
            assert inside.all() or not inside.any()
            (marked if inside.all() else rest).add(tuple(tile[0].tolist()))
        assert marked
        assert not marked & rest
        shown.setdefault(key.split("/")[1], []).append((marked, rest))
    assert len(shown) == 6
    for pictures in shown.values():
        assert len(pictures) == 3
        marked, rest = (set().union(*parts) for parts in zip(*pictures, strict=True))
        assert not marked & rest, "a colour is marked in one picture and not in another"
        assert 3 <= len(marked | rest) <= 5
    assert len({frozenset(pictures[0][0]) for pictures in shown.values()}) > 3


def test_every_square_has_a_mask_however_few_its_tiles():
    source = MarkedTiles(sets=100, pictures=12, cells=2, size=4)
    keys = source.keys()
    assert keys == sorted(keys)
    assert all(source.load(key)["mask"][0].inside_HW.any() for key in keys[:700])


def test_a_set_has_a_short_name_of_its_own():
    names = [name_of_set(number) for number in range(3000)]
    assert len(set(names)) == 3000
    assert {len(name) for name in names[:2704]} == {2}
    assert TILES.load(TILES.keys()[-1])["class"][0].words == names[5]


@pytest.mark.parametrize("source", [CROWDS, TILES])
def test_pictures_follow_from_their_keys(source):
    keys = source.keys()
    assert keys == sorted(set(keys))
    one, again = source.load(keys[3]), source.load(keys[3])
    assert (one["image"][0] == again["image"][0]).all()
    assert (one["mask"][0].inside_HW == again["mask"][0].inside_HW).all()
    # All about one picture, or one set, shares a split.
    groups = {re.fullmatch(ONE_PICTURE, key)[1] for key in keys}
    assert len(groups) == (12 if source is CROWDS else 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DrawnCrowds(count=0), "count is 0"),
        (lambda: DrawnCrowds(things=(5, 10)), r"things is \(5, 10\).* from 1 to 9"),
        (lambda: DrawnCrowds(things=(3, 9), colours=(2, 4)), r"colours is .* from 1 to 3"),
        (lambda: DrawnCrowds(unseen_share=0.75), "only 2 are seen"),
        (lambda: DrawnObjects(unseen_share=-0.25), r"unseen_share is -0\.25: .* 0 to 1"),
        (lambda: DrawnCrowds(unseen_share=math.nan), "unseen_share is nan"),
        (lambda: MarkedTiles(sets=0), "at least 1 of both"),
        (lambda: MarkedTiles(kinds=(1, 3)), r"kinds is \(1, 3\)"),
        (lambda: MarkedTiles(size=30), "multiple of at least 2 cells"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
