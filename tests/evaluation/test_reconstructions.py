"""The sheet of reconstructions: a picture, TensorBoard's copy of it, and the numbers, which are the evaluator's own."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lvm_jax.evaluation.tokenizer.reconstruction import ReconstructionEvaluator
from lvm_jax.evaluation.tokenizer.while_training import Reconstructions
from lvm_jax.reporting import figures


class Grey(nnx.Module):
    """A tokenizer that gives the same codes to any images, and makes one grey of any codes."""

    codebook_size = 8

    def __init__(self, grey, codes):
        self.grey, self.codes = nnx.Param(jnp.float32(grey)), nnx.Variable(jnp.array(codes))

    def encode(self, images_BHWC):
        return self.codes[...][: len(images_BHWC)]

    def decode(self, codes_BN):
        return jnp.full((len(codes_BN), 16, 16, 3), self.grey[...])


def test_a_sheet_is_drawn_and_shown_and_the_codes_are_counted(tmp_path):
    images = np.full((3, 16, 16, 3), 128, np.uint8)
    hook = Reconstructions(
        lambda state: Grey(128 / 255 + state, [[0, 1], [1, 1], [5, 0]]), images, tmp_path
    )
    numbers = hook(20, 0.1)
    assert numbers["validation/psnr"] == pytest.approx(20, abs=1e-3)
    assert numbers["validation/codebook_use"] == 3 / 8
    with Image.open(tmp_path / "samples" / "000020.png") as sheet:
        assert sheet.size[0] > 3 * 128
    (events,) = (tmp_path / "tensorboard" / "samples").iterdir()
    assert b"reconstructions" in events.read_bytes()


def test_the_sheet_shows_images_from_first_to_last(tmp_path, monkeypatch):
    images = np.arange(64, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    shown = []
    monkeypatch.setattr(
        figures, "save_comparison", lambda originals, _, path: shown.append(originals[:, 0, 0, 0])
    )
    monkeypatch.setattr(Reconstructions, "_show", lambda self, step, path: None)
    Reconstructions(lambda _: Grey(0.5, [[0]] * 64), images, tmp_path)(1, {})
    greys = np.round(shown[0] * 255)
    assert (len(greys), greys[0], greys[-1]) == (16, 0, 63)
    assert np.diff(greys).max() <= 5


def test_a_training_logs_what_the_evaluator_says_of_the_finished_tokenizer(tmp_path, vqgan):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    logged = Reconstructions(lambda _: vqgan, images, tmp_path)(1, {})
    alone = ReconstructionEvaluator(images).run(vqgan)
    assert logged == {
        "validation/psnr": pytest.approx(alone["psnr"], rel=1e-6),
        "validation/codebook_use": alone["codebook_usage"],
        "validation/codebook_perplexity": alone["code_perplexity"],
    }
