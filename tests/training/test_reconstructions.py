"""The sheet of reconstructions: a picture, TensorBoard's copy of it, and the numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lvm_jax.reporting import figures
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


def test_the_sheet_shows_images_from_first_to_last(tmp_path, monkeypatch):
    images = np.arange(64, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    shown = []
    monkeypatch.setattr(
        figures, "save_comparison", lambda originals, _, path: shown.append(originals[:, 0, 0, 0])
    )
    monkeypatch.setattr(Reconstructions, "_show", lambda self, step, path: None)
    ids = jnp.zeros((64, 1), jnp.int32)
    Reconstructions(lambda state, x: (jnp.asarray(x / 255.0), ids), images, 8, tmp_path)(1, {})
    greys = np.round(shown[0] * 255)
    assert (len(greys), greys[0], greys[-1]) == (16, 0, 63)
    assert np.diff(greys).max() <= 5
