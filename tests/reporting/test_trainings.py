"""The trainings that led to a model are all told, once each, wherever their folders are."""

import json

import pytest

from lvm_jax.errors import UserError
from lvm_jax.reporting.trainings import chain


def trained(folder, steps, init_from=""):
    folder.mkdir(parents=True)
    config = {"train": {"steps": steps, "batch_size": 2}, "init_from": init_from}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def steps_of(folder):
    return [training.config["train"]["steps"] for training in chain(folder)]


def test_a_training_of_the_same_name_elsewhere_is_told_too(tmp_path):
    first = trained(tmp_path / "old/lvm", 7)
    second = trained(tmp_path / "new/lvm", 3, f"{first}/model")
    assert steps_of(second) == [7, 3]


def test_what_lends_two_parts_is_told_once(tmp_path):
    first = trained(tmp_path / "tiny", 7)
    parts = {"tower": f"{first}/model", "decoder": f"{first}/model"}
    assert steps_of(trained(tmp_path / "two", 3, parts)) == [7, 3]


def test_a_training_that_is_gone_is_not_taken_for_the_one_that_began_from_it(tmp_path):
    later = trained(tmp_path / "lvm", 3, "/gone/lvm/model")
    with pytest.raises(UserError, match=r"lvm began from /gone/lvm/model, which is gone, and .* "):
        chain(later)
