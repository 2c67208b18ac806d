"""Mosaics: the pictures of a set share their tiles, and nothing but a sentence's pairs tells what a tile becomes."""

import re

import numpy as np
import pytest

from data_pipelines.sentences import Palette
from data_pipelines.sources import Mosaics
from lvm_jax.errors import UserError


def cells(picture: np.ndarray, side: int = 8) -> list[bytes]:
    """The tiles of a picture, row by row."""
    count = len(picture) // side
    tiles = picture.reshape(count, side, count, side, 3).transpose(0, 2, 1, 3, 4)
    return [tile.tobytes() for tile in tiles.reshape(-1, side, side, 3)]


def seen_by_kind(source: Mosaics, key: str) -> dict[bytes, set[bytes]]:
    """Colour in the segmentation -> tiles of the image that stand there."""
    item = source.load(key)
    found: dict[bytes, set[bytes]] = {}
    for tile, kind in zip(cells(item["image"][0]), cells(item["segmentation"][0]), strict=True):
        found.setdefault(kind, set()).add(tile)
    return found


def test_a_kind_is_one_tile_in_all_pictures_of_its_set_and_no_other_kind_looks_like_it():
    source = Mosaics(sets=3, kinds=(20, 20))
    tiles: dict[bytes, set[bytes]] = {}
    for i in range(8):
        for kind, looks in seen_by_kind(source, f"000001/{i}").items():
            tiles.setdefault(kind, set()).update(looks)
    assert len(tiles) == 20
    assert all(len(looks) == 1 for looks in tiles.values())
    assert len(set.union(*tiles.values())) == 20


def test_sets_and_pictures_differ_and_seed_and_key_decide_them():
    source = Mosaics(sets=3)
    first, again = source.load("000000/0"), Mosaics(sets=9).load("000000/0")
    np.testing.assert_array_equal(first["image"][0], again["image"][0])
    others = (source.load("000000/1"), source.load("000001/0"), Mosaics(seed=1).load("000000/0"))
    for other in others:
        assert not np.array_equal(first["image"][0], other["image"][0])
    looks = [set(cells(source.load(f"{s:06d}/0")["image"][0])) for s in range(3)]
    assert looks[0] != looks[1] != looks[2]


def test_numbers_of_kinds_span_what_was_asked_for():
    source = Mosaics(sets=60, kinds=(2, 5))
    counts = {len(seen_by_kind(source, f"{s:06d}/0")) for s in range(60)}
    assert counts == {2, 3, 4, 5}


def test_a_group_is_one_set_and_its_answers_follow_one_rule():
    source = Mosaics(sets=4, pictures=3, kinds=(24, 24))
    composer = Palette(n_pairs=3, class_of=r"(\d+)/.*")
    groups = composer.group(source.keys(), np.random.default_rng(0))
    assert sorted(key for group in groups for key in group) == source.keys()
    rules = []
    for number, group in enumerate(groups):
        assert len({key.partition("/")[0] for key in group}) == 1
        items = [source.load(key) for key in group]
        rule: dict[bytes, bytes] = {}
        for image, answer in composer.pairs(items, np.random.default_rng(number)):
            for tile, colour in zip(cells(image), cells(answer), strict=True):
                assert rule.setdefault(tile, colour) == colour
        assert len(set(rule.values())) == len(rule), "each kind has a colour of its own"
        rules.append(rule)
    shared = set(rules[0]) & set(rules[1])
    assert any(rules[0][tile] != rules[1][tile] for tile in shared), "a tile alone tells nothing"


def test_kinds_can_share_a_few_colours():
    source = Mosaics(sets=1, kinds=(12, 12))
    items = [source.load(f"000000/{i}") for i in range(8)]
    pairs = Palette(n_pairs=8, colours=2).pairs(items, np.random.default_rng(0))
    rule: dict[bytes, bytes] = {}
    for image, answer in pairs:
        for tile, colour in zip(cells(image), cells(answer), strict=True):
            assert rule.setdefault(tile, colour) == colour
    colours = list(rule.values())
    assert sorted(colours.count(colour) for colour in set(colours)) == [6, 6]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sets": 0}, "sets is 0"),
        ({"kinds": (5, 4)}, r"kinds (5, 4): .* the fewest first"),
        ({"kinds": (1, 4)}, r"from 2 to 32 kinds"),
        ({"kinds": (4, 33)}, r"from 2 to 32 kinds"),
        ({"size": 60}, "cells is 8, size 60: size must be a multiple of cells"),
        ({"cells": 64}, "at least 2 pixels"),
    ],
)
def test_impossible_mosaics_are_refused(fields, words):
    with pytest.raises(UserError, match=words if "(" not in words else re.escape(words[:14])):
        Mosaics(**fields)


@pytest.mark.parametrize("colours", [-1, 1])
def test_a_palette_of_one_colour_is_refused(colours):
    with pytest.raises(UserError, match=f"colours is {colours}"):
        Palette(colours=colours)


def test_cut_tiles_are_grey_where_the_map_is_black():
    whole, cut = (Mosaics(kinds=(3, 8), cut=cut).load("000001/2") for cut in (False, True))
    (image,), (areas,), (everywhere,) = cut["image"], cut["segmentation"], whole["segmentation"]
    black = (areas == 0).all(-1)
    assert 0.1 < black.mean() < 0.5
    np.testing.assert_array_equal(areas[~black], everywhere[~black])
    # Tiles are black or white at their darkest and lightest; only the ground, away from edges, is this grey.
    ground = (image == 48).all(-1)
    assert ground.any()
    assert black[ground].all()
