"""The complete examples of the pages "How to add ..." run, and do what the pages say."""

import dataclasses
import importlib
import pathlib

import numpy as np
import pytest

from lvm_jax.models.decoder.config import RopeScaling

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def test_a_source_becomes_shards_and_its_broken_clip_is_skipped(example, tmp_path, capsys):
    manifest = example("add_source").main(tmp_path)
    assert manifest.sources["array_clips"]["sentences"] == 7
    assert "clip3 (cannot be read)" in capsys.readouterr().out
    assert (tmp_path / "shards/mine/1.0.0/manifest.json").exists()


def test_an_annotator_is_the_question_of_a_pair(example, tmp_path):
    images, layout = example("add_annotator").main(tmp_path)
    assert layout == "faded,image,faded,image"
    faded, true = (np.ptp(image.astype(int)) for image in images[:2])
    assert faded < 0.65 * true
    again, _ = example("add_annotator").main(tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))


def test_a_task_is_trained_and_found_finished(example, tmp_path):
    matrix = example("add_task").main(tmp_path)
    assert np.abs(matrix - 2 * np.eye(len(matrix))).max() < 0.1
    assert (tmp_path / "checkpoints/80").exists()


def test_a_family_comes_back_from_its_folder_with_equal_logits(example, tmp_path):
    before, after = example("add_decoder_family").main(tmp_path)
    assert before.std() > 0.01
    np.testing.assert_array_equal(before, after)


def test_what_a_family_cannot_write_is_another_decoder(example):
    family = example("add_decoder_family")
    stretched = RopeScaling("linear", factor=2.0)
    assert family.STARCODER2.describes(family.tiny())
    assert not family.STARCODER2.describes(
        dataclasses.replace(family.tiny(), rope_scaling=stretched)
    )


def test_a_benchmark_scores_the_decoder_beside_ceiling_and_baselines(example):
    scores = example("add_benchmark").main()
    predictors = {"model", "tokenizer_ceiling", "copy", "nearest", "constant"}
    assert {name.partition("/")[0] for name in scores} == {"episodes", *predictors}
    assert scores["copy/miou"] > 0


def test_every_example_is_tested():
    source = pathlib.Path(__file__).read_text()
    missing = [p.stem for p in EXAMPLES.glob("*.py") if f'example("{p.stem}")' not in source]
    assert not missing
