"""Pictures of pictures show every image, at its place."""

import numpy as np
import pytest
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.reporting.figures import (
    PREDICTION,
    TRUTH,
    Group,
    contact_sheet,
    save_comparison,
    save_png,
    strip,
)


def plain(colour: tuple[int, int, int], size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), colour, np.uint8)


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == np.array(colour, np.uint8)).all(axis=-1).sum())


def test_a_strip_shows_every_image_enlarged_and_framed():
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    picture = strip(
        [
            Group("prompt", [plain(colours[0])]),
            Group("prediction", [plain(colours[1])], PREDICTION),
            Group("truth", [plain(colours[2], size=64)], TRUTH),
        ],
        cell=32,
    )
    assert [count(picture, colour) for colour in colours] == [32 * 32] * 3
    columns = [
        np.flatnonzero((picture == np.array(c, np.uint8)).all(-1).any(0)).min() for c in colours
    ]
    assert columns == sorted(columns)
    frame = 40 * 40 - 32 * 32  # four pixels around
    assert count(picture, PREDICTION) >= frame
    assert count(picture, TRUTH) >= frame


def test_other_aspect_ratios_are_kept():
    wide = np.full((10, 20, 3), (9, 99, 199), np.uint8)
    assert count(strip([Group("", [wide])], cell=40), (9, 99, 199)) == 40 * 20


def test_a_contact_sheet_puts_the_rows_below_each_other():
    a = [plain((i, 1, 1)) for i in range(1, 4)]
    b = [plain((i, 2, 2)) for i in range(1, 4)]
    sheet = contact_sheet([("above", a), ("", b)], columns=2, cell=16)

    def place(colour):
        rows, columns = np.nonzero((sheet == np.array(colour, np.uint8)).all(-1))
        assert len(rows) == 16 * 16
        return rows.min(), columns.min()

    assert place((1, 1, 1))[0] == place((2, 1, 1))[0] < place((1, 2, 2))[0] < place((3, 1, 1))[0]
    assert place((1, 1, 1))[1] == place((1, 2, 2))[1] == place((3, 2, 2))[1] < place((2, 1, 1))[1]


def test_files_are_whole_and_exact(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_png(tmp_path / "new" / "a.png", image)
    with Image.open(tmp_path / "new" / "a.png") as read:
        assert np.array_equal(np.asarray(read), image)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]
    floats = np.linspace(0, 1, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    save_comparison(floats, floats[::-1], tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as read:
        assert read.size[0] > 2 * 128


def test_nothing_to_draw_is_an_error():
    with pytest.raises(UserError, match="0 images"):
        strip([Group("prompt", [])])
    with pytest.raises(UserError, match=r"rows of \[1, 2\] images"):
        contact_sheet([("a", [plain((0, 0, 0))]), ("b", [plain((0, 0, 0))] * 2)])
