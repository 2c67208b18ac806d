"""The sheet of reconstructions: a picture, TensorBoard's copy of it, and the numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lvm_jax.training.hooks import Reconstructions


def test_a_sheet_is_drawn_and_shown_and_the_codes_are_counted(tmp_path):
    images = np.full((3, 16, 16, 3), 128, np.uint8)
    ids = jnp.array([[0, 1], [1, 1], [5, 0]])
    hook = Reconstructions(
        lambda state, x: (jnp.asarray(x / 255.0) + state, ids), images, 8, tmp_path
    )
    numbers = hook(20, jnp.float32(0.1))
    assert numbers["validation/psnr"] == pytest.approx(20, abs=1e-3)
    assert numbers["validation/codebook_use"] == 3 / 8
    with Image.open(tmp_path / "samples" / "000020.png") as sheet:
        assert sheet.size[0] > 3 * 128
    (events,) = (tmp_path / "tensorboard" / "samples").iterdir()
    assert b"reconstructions" in events.read_bytes()
