"""Only images that the tokenizer's training held out are reconstructed."""

import json

import numpy as np
import pytest
from PIL import Image

from lvm_jax.data.images.held_out_images import held_out_images, load_images
from lvm_jax.data.splits import split_numbers
from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import find_images


def held_out_of(files, folder, fraction):
    return [files[number] for number in split_numbers(files, folder, None, fraction)[1]]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(8):
        Image.new("RGB", (6 + i, 5), (i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def test_the_trainings_own_list_and_fraction_are_used(folder, tmp_path):
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    files = find_images(folder)
    assert held_out_images(folder, model).names == held_out_of(files, folder, 0.01)
    listed = tmp_path / "list.txt"
    listed.write_text("3.png\n5.png\n")
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps({"data": {"held_out": "", "held_out_fraction": 0.5}}))
    assert held_out_images(folder, model).names == held_out_of(files, folder, 0.5)
    config.write_text(json.dumps({"data": {"held_out": str(listed), "held_out_fraction": 0.5}}))
    assert held_out_images(folder, model).names == [files[3], files[5]]
    assert len(held_out_images(folder, model, fraction=0.75).names) == 6
    assert held_out_images(folder, model, fraction=1.0).names == files
    with pytest.raises(UserError, match=r"held_out_fraction is 1\.5"):
        held_out_images(folder, model, fraction=1.5)


def test_bad_files_are_left_out_up_to_a_limit(folder, caplog):
    (folder / "4.png").write_bytes(b"no image")
    (folder / "6.png").write_bytes(b"")
    files = find_images(folder)
    images = load_images(files, 4)
    assert images.shape == (6, 4, 4, 3)
    assert sorted(np.unique(images[..., 0])) == [0, 1, 2, 3, 5, 7]
    assert "4.png" in caplog.text
    assert "6.png" in caplog.text
    with pytest.raises(UserError, match=r"2 of 8 images.*limit is 1.*6\.png"):
        load_images(files, 4, max_bad=1)
    with pytest.raises(UserError, match="1 of 1 images"):
        load_images([files[4]], 4)
