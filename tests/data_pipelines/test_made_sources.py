"""Sources that make their pictures: composites of cut-outs, walks through a game."""

import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines.sources import BadItem, Cutouts, DoomClips
from lvm_jax.errors import UserError


@pytest.fixture
def folders(tmp_path):
    """A red disc with a transparent border, on blue or green backgrounds."""
    for name, colour in (("sea.png", (0, 0, 200)), ("field.jpg", (0, 200, 0))):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (90, 70), colour).save(tmp_path / "photos" / name)
    rows, columns = np.mgrid[:40, :60]
    disc = np.zeros((40, 60, 4), np.uint8)
    disc[(rows - 20) ** 2 + (columns - 30) ** 2 < 15**2] = (220, 0, 0, 255)
    (tmp_path / "objects" / "round").mkdir(parents=True)
    Image.fromarray(disc).save(tmp_path / "objects" / "round" / "disc.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "objects" / "solid.png")
    Image.new("RGBA", (9, 9)).save(tmp_path / "objects" / "void.png")
    return {"root": str(tmp_path / "objects"), "backgrounds": str(tmp_path / "photos")}


def test_a_composite_has_the_exact_mask_and_box_of_its_object(folders):
    source = Cutouts(**folders, variants=12, size=64, scale=(0.3, 0.6))
    keys = [key for key in source.keys() if key.startswith("round/disc.png#")]  # noqa: SIM118
    assert len(keys) == 12
    sides, backgrounds = set(), set()
    for key in keys:
        item = source.load(key)
        image, mask, box = (item[role][0] for role in ("image", "mask", "box"))
        assert image.shape == mask.shape == box.shape == (64, 64, 3)
        inside = mask[..., 0] > 0
        red = image[..., 0] > 110
        assert (red != inside).mean() < 0.01
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        expected = np.zeros((64, 64), bool)
        expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        np.testing.assert_array_equal(box[..., 0] > 0, expected)
        assert 0.3 * 64 - 2 <= len(columns) <= 0.6 * 64 + 1
        sides.add(len(columns))
        backgrounds.add(image[~inside].argmax(-1)[0])
        np.testing.assert_array_equal(image, source.load(key)["image"][0])
    assert len(sides) > 4
    assert backgrounds == {1, 2}
    for key, words in (("solid.png#0", "has no alpha channel"), ("void.png#0", "transparent")):
        with pytest.raises(BadItem, match=f"^{key}: .*{words}"):
            source.load(key)


def test_impossible_composites_are_refused(folders):
    for wrong in ({"variants": 0}, {"scale": (0.9, 0.5)}, {"scale": (0.5, 1.5)}):
        with pytest.raises(UserError):
            Cutouts(**folders, **wrong)
    with pytest.raises(UserError, match="backgrounds is empty"):
        Cutouts(folders["root"]).keys()


def test_doom_without_its_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    source = DoomClips(maps=("map02", "map01"), episodes=2)
    assert source.keys() == ["map01/000", "map01/001", "map02/000", "map02/001"]
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(UserError, match=r"vizdoom is not installed: pip install vizdoom"):
        source.load("map01/000")
    with pytest.raises(UserError, match="at least 1"):
        DoomClips(episodes=0)


def test_a_walk_through_a_map(tmp_path, monkeypatch):
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)
    source = DoomClips(n_frames=12)
    item = source.load("map03/000")
    assert {role: len(images) for role, images in item.items()} == dict.fromkeys(item, 12)
    assert {image.shape for images in item.values() for image in images} == {(240, 320, 3)}
    assert len({frame.tobytes() for frame in item["frame"]}) > 8, "the agent stands still"
    assert np.std(item["depth"]) > 15
    again, other = source.load("map03/000"), source.load("map03/001")
    np.testing.assert_array_equal(item["frame"], again["frame"])
    assert (item["frame"][-1] != other["frame"][-1]).any()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()], "the game left files behind"
