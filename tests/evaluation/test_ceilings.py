"""Ceilings are scores of what the tokenizer gives back of exact maps."""

import numpy as np
import pytest
from fake_tokenizers import CellMeans
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.evaluation.tokenizer.ceilings import CeilingsEvaluator, held_out_maps
from lvm_jax.pictures import annotation_maps as maps

SIZE = 32


def blocks(count: int, cells: int, seed: int = 0) -> np.ndarray:
    """Masks of random cells, bool (M, SIZE, SIZE)."""
    on = np.random.default_rng(seed).random((count, cells, cells)) < 0.5
    return on.repeat(SIZE // cells, 1).repeat(SIZE // cells, 2)


def test_maps_that_survive_reach_the_best_score_and_others_what_is_left():
    masks = np.stack([maps.mask_to_rgb(mask) for mask in blocks(3, 4)])
    depths = np.full((3, SIZE, SIZE), 5.0)
    depth = np.stack([maps.depth_to_rgb(d) for d in depths])
    fine = np.stack([maps.mask_to_rgb(mask) for mask in blocks(3, 8)])
    greens = np.broadcast_to(maps.PALETTE[2], (3, SIZE, SIZE, 3))
    result = CeilingsEvaluator(
        {"mask": masks, "depth": depth, "edges": fine, "segmentation": greens}
    ).run(CellMeans(levels=2))
    assert result["mask/miou"] == 1
    assert result["mask/maps"] == 3
    # Two greys: 3/4 of the range, nearer than the truth, at 5 / 7 of it.
    grey = round(0.75 * 255)
    assert result["depth/absrel"] == pytest.approx(abs(10 - grey / 255 * 7 - 5) / 5, abs=2e-3)
    precision, recall = result["edges/precision"], result["edges/recall"]
    assert 0 < recall < 1
    assert result["edges/f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert result["segmentation/miou"] == 0


def test_edges_without_a_pixel_are_nothing_and_those_not_found_are_0():
    black = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    line = black.copy()
    line[:, 3] = 255
    tokenizer = CellMeans(levels=2)  # grey at 1/4: black
    assert CeilingsEvaluator({"edges": black}).run(tokenizer)["edges/f1"] == "nothing to measure"
    assert CeilingsEvaluator({"edges": line}).run(tokenizer)["edges/f1"] == 0


def test_pictures_have_their_psnr():
    half = np.full((2, SIZE, SIZE, 3), 128, np.uint8)
    result = CeilingsEvaluator({"image": half}).run(CellMeans(levels=2))
    error = (round(0.75 * 255) - 128) / 255
    assert result["image/psnr"] == pytest.approx(-20 * np.log10(error), rel=1e-4)


@pytest.fixture
def scenes(tmp_path):
    root = tmp_path / "scenes"
    for item in range(5):
        (root / f"{item:05d}").mkdir(parents=True)
        for role in ("image", "depth") if item else ("image",):
            picture = Image.new("RGB", (20, 10), (item, item, item))
            picture.save(root / f"{item:05d}" / f"{role}.png")
    return root


def test_held_out_maps_are_read_by_role(scenes):
    listed = frozenset({"scenes/00000", "scenes/00002", "scenes/00003", "photos/a.webp"})
    found = held_out_maps(scenes, SIZE, listed, 0)
    assert list(found) == ["image", "depth"]
    assert found["image"][:, 0, 0, 0].tolist() == [0, 2, 3]
    assert found["depth"][:, 0, 0, 0].tolist() == [2, 3]
    assert found["depth"].shape == (2, SIZE, SIZE, 3)
    assert len(held_out_maps(scenes, SIZE, None, 2)["image"]) == 2


def test_folders_without_maps_are_refused(scenes, tmp_path):
    with pytest.raises(UserError, match="has 5 folders of items, and 0 that the list"):
        held_out_maps(scenes, SIZE, frozenset({"00001"}), 0)
    with pytest.raises(UserError, match="is not a folder"):
        held_out_maps(tmp_path / "nowhere", SIZE, None, 0)
    (tmp_path / "other" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=r"1 items without a map: name its files image\.png"):
        held_out_maps(tmp_path / "other", SIZE, None, 0)
