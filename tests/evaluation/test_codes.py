"""Codes with known properties: local or not, canonical or not, and Markov fields with a known entropy."""

import math

import numpy as np
import pytest
from fake_tokenizers import CellMeans, Constant, OfTheWholePicture, WithPlaces

from lvm_jax.errors import UserError
from lvm_jax.evaluation.tokenizer.code_entropy import code_entropies
from lvm_jax.evaluation.tokenizer.codes import CodesEvaluator

SIZE = 32


def pictures(count: int) -> np.ndarray:
    """Cells of random greys, in cells of half a code's, so that a shift changes every code."""
    greys = np.random.default_rng(3).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return np.broadcast_to(greys.repeat(4, 1).repeat(4, 2), (count, SIZE, SIZE, 3)).copy()


def test_codes_of_cells_alone_are_local_and_canonical():
    result = CodesEvaluator(pictures(24)).run(CellMeans())
    ones = ("local/cell", "local/window_3x3", "shift/stays", "flat/codes", "flat/commonest")
    for name in (*ones, "tiled/inside", "tiled/border"):
        assert result[name] == 1, name
    assert result["local/by_chance"] < 0.3
    assert result["shift/by_chance"] < 0.3
    assert result["images"] == 24


def test_codes_of_the_whole_picture_are_not_local():
    result = CodesEvaluator(pictures(24)).run(OfTheWholePicture())
    for name in ("local/cell", "local/window_3x3", "shift/stays"):
        assert result[name] < 0.3, name
    assert result["flat/codes"] == result["tiled/inside"] == 1  # one picture, one offset


def test_codes_of_places_are_local_but_not_canonical():
    result = CodesEvaluator(pictures(24)).run(WithPlaces())
    assert result["local/cell"] == result["local/window_3x3"] == 1
    assert result["shift/stays"] < 0.3
    assert result["flat/codes"] == 16
    assert result["flat/commonest"] == 1 / 16
    assert result["tiled/inside"] + result["tiled/border"] < 0.5


def test_a_constant_code_is_no_better_than_chance():
    result = CodesEvaluator(pictures(4)).run(Constant())
    assert result["local/cell"] == result["local/by_chance"] == 1
    assert result["shift/stays"] == result["shift/by_chance"] == 1
    assert result["entropy/unigram"] < 0.1


def test_a_small_grid_has_no_shift_and_one_picture_is_refused():
    result = CodesEvaluator(pictures(4)).run(CellMeans(side=2))
    assert result["shift/stays"] == "needs a grid of at least 4 codes a side"
    assert result["tiled/inside"] == "the grid has no such cell"
    assert result["tiled/border"] == 1
    with pytest.raises(UserError, match="1 images to encode"):
        CodesEvaluator(pictures(1))


def test_entropies_of_rows_that_are_markov_chains():
    rng = np.random.default_rng(0)
    kinds, side = 6, 16
    stay = 0.7  # the next code is the same, or any
    codes = rng.integers(0, kinds, (400, side, side))
    for x in range(1, side):
        again = rng.random((400, side)) < stay
        codes[:, :, x] = np.where(again, codes[:, :, x - 1], codes[:, :, x])
    found = code_entropies(codes, kinds)
    # Under the true model, and not its entropy: the sample is that of the counts.
    p = (1 - stay) / kinds + stay * (codes[:, :, 1:] == codes[:, :, :-1])
    true = (-np.log(p).sum() + codes[:, :, 0].size * math.log(kinds)) / codes.size
    assert found["unigram"] == pytest.approx(math.log(kinds), rel=2e-3)
    assert found["left"] == pytest.approx(true, rel=2e-3)
    # The code above tells nothing, and its counts cost little.
    assert true < found["left_and_upper"] < true * 1.01


def test_entropies_where_only_both_neighbours_tell():
    rng = np.random.default_rng(0)
    kinds, side = 5, 12
    codes = rng.integers(0, kinds, (600, side, side))
    p = np.array([0.8, 0.1, 0.05, 0.03, 0.02])
    noise = rng.choice(kinds, codes.shape, p=p)
    for y in range(1, side):
        for x in range(1, side):
            codes[:, y, x] = (codes[:, y, x - 1] + codes[:, y - 1, x] + noise[:, y, x]) % kinds
    found = code_entropies(codes, kinds)
    inside = (side - 1) ** 2 / side**2
    true = (1 - inside) * math.log(kinds) - inside * np.log(p[noise[:, 1:, 1:]]).mean()
    assert found["left_and_upper"] == pytest.approx(true, rel=5e-3)
    assert found["left"] == pytest.approx(math.log(kinds), rel=2e-3)


def test_entropies_are_of_other_images():
    """Codes of one image each: counts of the image itself would know them by heart."""
    codes = np.arange(8 * 4 * 4).reshape(8, 4, 4)
    found = code_entropies(codes, 128)
    assert all(value > math.log(128) for value in found.values())
