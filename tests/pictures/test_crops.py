"""A page in crops: which grid, in which order, and that nothing is lost."""

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.pictures.crops import crops_of


def page(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "most", "grid"),
    [
        ((200, 100), 6, (2, 1)),
        ((100, 300), 6, (1, 3)),
        ((400, 400), 6, (2, 2)),
        ((90, 90), 6, (1, 1)),  # too small: crops would only be enlarged
        ((400, 400), 1, (1, 1)),
    ],
)
def test_crops_keep_the_shape_that_the_model_sees(size, most, grid):
    picture = page(*size)
    *crops, whole = crops_of(picture, most, height=100, width=100)
    assert np.array_equal(whole, picture)
    assert len(crops) == (grid[0] * grid[1] if grid != (1, 1) else 0)
    if crops:
        rows = [np.concatenate(crops[i : i + grid[1]], 1) for i in range(0, len(crops), grid[1])]
        assert np.array_equal(np.concatenate(rows), picture)


def test_a_line_is_cut_along():
    *crops, _ = crops_of(page(24, 384), 4, height=24, width=128)
    assert [crop.shape for crop in crops] == [(24, 128, 3)] * 3
    with pytest.raises(UserError, match="crops is 0"):
        crops_of(page(8, 8), 0, height=8, width=8)
