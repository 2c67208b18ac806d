"""A release of unified: its models and episodes, its card, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from lvm_jax.demo.unified.models import find_model
from lvm_jax.demo.unified.tab import UnifiedTab
from lvm_jax.errors import UserError
from lvm_jax.inference.in_context_folder import read_folder
from lvm_jax.models import VQGAN
from lvm_jax.release.folder import write_checksums
from lvm_jax.release.pack import pack
from lvm_jax.release.sheet import draw
from lvm_jax.release.systems import open_run

MASKS = {
    "episodes": 4, "model/miou": 0.6, "mean_mask/miou": 0.1, "uses_other_query/miou": 0.5,
    "uses_other_query/miou_error": 0.1, "uses_no_examples/miou": 0.01, "uses_no_examples/miou_error": 0.02,
    "ceiling": "not measured: pools keep codes",
}  # fmt: skip
WORDS = {"episodes": 4, "model/category": 0.2, "frequent/category": 0.3, "broken": 0.5}
RESULTS = {
    "environment": {"python": "3"}, "classes": "all", "examples": 1,
    "segmentation": MASKS, "captioning": WORDS,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(unified_run, tmp_path_factory):
    """A workdir as the quickstart leaves it, with made-up scores."""
    run = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(unified_run, run)
    for part in ("tokenizer", "unified"):
        config = {"train": {"steps": 7, "batch_size": 3}, "rows": {"say_category": False}}
        (run / part / "config.json").write_text(json.dumps(config))
        (run / part / "metrics.jsonl").write_text('{"step": 7, "train/loss/captioning": 2.5}\n')
    for name, classes in (("pictures", "all"), ("words", "all"), ("unseen", "unseen")):
        folder = run / "evaluation" / name
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(RESULTS | {"classes": classes}))
    stages = {"decoder": {"seconds": 3.0, "command": f"experiments/train.py --workdir={run}/x"}}
    (run / "stages.json").write_text(json.dumps(stages))
    return run


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "unified"
    return output, pack(open_run(finished, "bfloat16", "bfloat16"), output, name="Tiny")


def test_the_card_tells_controls_and_baselines(packed):
    output, costs = packed
    card = (output / "MODEL_CARD.md").read_text()
    assert card.splitlines()[2].startswith(
        "Masks do not depend on the examples. Masks depend on the query (0.50)."
    )
    for words in (
        "**unified**: 7 steps of 3. At the end train/loss/captioning 2.50.",
        "| decoder | 3.00 | `experiments/train.py --workdir=W/x` |",
        "| baseline: the mean mask | 0.100 |",
        "### Unseen\n\nExamples before each query: 1; classes: unseen; greedy answers.",
        "- ceiling of segmentation: not measured: pools keep codes",
        "words are no better than the most frequent ones in: category.",
        "50% of its answers in words could not be read whole.",
    ):
        assert words in card
    assert [cost.what for cost in costs] == [
        "segmentation, nats a token",
        "captioning, nats a token",
        "masks, IoU, 12 episodes",
        "share of the codes of 24 pictures that stay",
    ]
    assert costs[0].before != costs[0].after
    assert 0 < costs[3].after <= 1


def test_its_models_and_episodes_are_found(packed, finished):
    output, _ = packed
    found, run = find_model(output.parent, []), find_model("nowhere", [finished])
    assert found.rows == run.rows
    assert not found.rows.say_category
    stored = VQGAN.from_pretrained(output / "tokenizer")
    assert found.generator.vqgan.fingerprint() == stored.fingerprint()
    assert found.data_words == "made up (CC0-1.0)"
    assert len(found.episodes) == len(run.episodes) == 4
    for ours, theirs in zip(found.episodes, run.episodes, strict=True):
        assert ours.question is theirs.question
        assert (ours.rival is None) == (theirs.rival is None)
        if ours.query.caption:
            assert (ours.query.caption, len(ours.examples)) == (theirs.query.caption, 2)
            np.testing.assert_allclose(ours.query.boxes, theirs.query.boxes, atol=5e-4)
        else:
            assert ours.query.class_name == theirs.query.class_name
            assert ours.query.mask.shape == theirs.query.mask.shape
    tab = UnifiedTab.find(output.parent, [])
    assert tab.start_from(tab.empty, 0).prompt.shots


def test_an_episode_is_a_folder_of_questions(packed):
    output, _ = packed
    names = sorted(path.name for path in (output / "episodes").iterdir())
    assert [name[:6] for name in names] == ["000-se", "001-ca", "002-se", "003-ca"]
    for name in names:
        asked = read_folder(output / "episodes" / name)
        assert asked.question.name.lower() in name
        assert (len(asked.examples), len(asked.queries)) == (2, 1)


def test_a_sheet_has_a_row_an_episode(packed, tmp_path):
    output, _ = packed
    shutil.copytree(output, tmp_path / "unified")
    heights = [draw(tmp_path, "unified").shape[0]]
    for episode in sorted((tmp_path / "unified/episodes").iterdir())[:2]:  # a mask, then words
        shutil.rmtree(episode)
        write_checksums(tmp_path / "unified")
        heights.append(draw(tmp_path, "unified").shape[0])
    assert heights == sorted(set(heights), reverse=True)


def test_the_lines_of_its_card_load_it(packed, run_card, picture):
    output, _ = packed
    drawn = run_card(output, {f"{name}.png": picture(0) for name in ("a", "a.mask", "query")})
    assert drawn["drawn"].mask.dtype == bool


def test_what_is_missing_is_named(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "evaluation/words/results.json").unlink()
    with pytest.raises(UserError, match=r"results.json does not exist: run .*--category=examples"):
        open_run(run, "float16")
