"""The trainings that led to a model are all told, once each, wherever their folders are."""

import json

import pytest

from lvm_jax.errors import UserError
from lvm_jax.reporting.trainings import RELEASED, chain, told


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


def test_what_begins_with_a_release_tells_its_trainings_too(tmp_path):
    first = trained(tmp_path / "run/lvm", 7)
    release = tmp_path / "release/lvm"
    (release / "decoder").mkdir(parents=True)
    (release / RELEASED).write_text(json.dumps({"tokenizer": ["no"], "decoder": told(first)}))
    second = trained(tmp_path / "new/lvm", 3, f"{release}/decoder")
    earlier, later = told(second)
    assert [earlier] == told(first)
    assert later == "**lvm**: 3 steps of 2, beginning with the model of the release lvm."
    assert told(trained(tmp_path / "newer/lvm", 1, f"{second}/model"))[:2] == [earlier, later]
