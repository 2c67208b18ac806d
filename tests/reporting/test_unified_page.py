"""The page of a unified run opens with what is missed, and shows episodes, controls and scores of its files."""

import json
import re

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.reporting.figures import save_png
from lvm_jax.reporting.unified_gates import gates
from lvm_jax.reporting.unified_page import write_unified_report
from lvm_jax.reporting.unified_scores import as_markdown, control_words
from lvm_jax.reporting.unified_words import headline

MASKS = {
    "episodes": 64, "model/miou": 0.61, "model/miou_error": 0.02, "turned/miou": 0.58, "other_object/miou": 0.02,
    "uses_other_object/miou": 0.59, "uses_other_object/miou_error": 0.02, "no_examples/miou": 0.33,
    "uses_no_examples/miou": 0.28, "uses_no_examples/miou_error": 0.03, "uses_other_examples/miou": 0.01,
    "uses_other_examples/miou_error": 0.02, "mean_mask/miou": 0.15, "copy/miou": 0.07,
    "shown/best": "masks-best.png", "shown/best/miou": 0.97,
}  # fmt: skip
WORDS = {
    "episodes": 64, "model/category": 0.95, "frequent/category": 0.2, "model/colour": 0.9, "model/side": 0.75,
    "model/box_iou": 0.4, "model/cider_d": 3.0, "frequent/cider_d": 1.6,
    "shown/best": "words-best.png", "shown/best/examples": "[red] a <b>", "shown/best/answer": "[red] one",
    "shown/best/truth": "[red] two",
}  # fmt: skip
RESULTS = {"environment": {"jax": "9.8.7"}, "segmentation": MASKS, "captioning": WORDS}


def test_gates_are_the_numbers():
    found = gates(RESULTS, RESULTS)
    assert [demand.met for demand in found] == [False] * 3 + [True] * 7
    missed = {demand.asked for demand in found if not demand.met}
    assert missed == {
        "an example of another class lowers it, by more than two standard errors",
        "side of at least 0.8",
        "CIDEr-D at least 2 times that of the most frequent caption",
    }
    assert {demand.met for demand in gates({}, {})} == {None}


def test_numbers_just_below_what_is_asked_look_so():
    near = {
        "model/miou": 0.4996,
        "uses_no_examples/miou": 0.0496,
        "uses_no_examples/miou_error": 0.01,
    }
    found = gates({"segmentation": near}, {"segmentation": near})
    measured = [demand.measured for demand in found if demand.met is False]
    assert measured[0].startswith("0.0496 ± 0.010; the decoder 0.4996, no example –")
    assert measured[1].startswith("the decoder 0.4996, no example –")


def test_a_difference_without_its_error_is_not_told_from_none():
    alone = {"uses_other_examples/miou": 0.3, "uses_no_examples/miou": 0.3}  # of one episode
    found = {demand.asked: demand for demand in gates({"segmentation": alone}, {})}
    lowered = found["an example of another class lowers it, by more than two standard errors"]
    assert (lowered.met, lowered.measured) == (None, "0.300, without a standard error")
    (gained,) = (
        demand for asked, demand in found.items() if asked.startswith("one example better")
    )
    assert gained.measured.startswith("0.300, without a standard error; ")


def test_a_control_that_costs_nothing_is_flat():
    sentences = control_words(MASKS)
    assert "no example at all costs 0.28 ± 0.03 of IoU." in sentences
    assert "an example of another class costs 0.01 ± 0.02 of IoU (flat)." in sentences
    nothing = {"uses_other_query/miou": -0.001, "uses_other_query/miou_error": 0.01}
    assert control_words(nothing) == ["another query costs 0.00 ± 0.01 of IoU (flat)."]
    said = {"uses_other_query/cider_d": 1.0, "uses_other_query/cider_d_error": 0.25}
    assert control_words(said, "cider_d", "CIDEr-D") == [
        "another query costs 1.00 ± 0.25 of CIDEr-D."
    ]


def test_tables_have_a_row_for_each_control_and_say_what_is_missing():
    results = {
        **RESULTS,
        "captioning": {**WORDS, "examples_1/cider_d": 1.0, "meteor": "not measured: no jar"},
        "captioning_controls": {"right/loss": 0.5, "no_examples/loss": 0.75},
    }
    text = as_markdown(results)
    assert "| the decoder | 0.610 ± 0.020 |" in text
    assert "| no example at all | 0.330 |" in text
    assert "| no example at all | – | – | – | – | – | 0.750 |" in text
    assert "| 1 of the examples | – | – | – | – | 1.00 | – |" in text
    assert "- meteor of captioning: not measured: no jar" in text
    assert "## environment" in text


def test_a_single_example_is_not_shown_as_the_nearest_too():
    masks = {"segmentation": {"model/miou": 0.6, "copy/miou": 0.1, "nearest/miou": 0.1}}
    assert "the nearest example" in as_markdown({**masks, "examples": 2})
    assert "the nearest example" not in as_markdown({**masks, "examples": 1})


def test_the_headline_begins_with_what_is_ignored():
    flat = {"uses_other_query/cider_d": 0.01, "uses_other_query/cider_d_error": 0.5}
    read = {"uses_other_query/cider_d": 1.5, "uses_other_query/cider_d_error": 0.5}
    masks = {name: MASKS[name] for name in MASKS if name.startswith("uses_no_examples")}
    pictures = {"segmentation": masks, "captioning": flat}
    told = headline({"pictures": pictures, "words": {"captioning": read}})
    assert told.startswith(
        "Words do not depend on the query after examples without a word. Masks depend on the examples (0.28); words "
        "depend on the query (1.50)."
    )
    assert headline({"pictures": {}, "words": {}}).startswith("The controls were not measured")
    ignored = headline({"pictures": {"captioning": flat}, "words": {}})
    assert ignored == "Words do not depend on the query."


@pytest.fixture
def workdir(tmp_path):
    manifest = {
        "tokenizer_fingerprint": "ab", "image_size": 32, "tokens_per_image": 64,
        "splits": {"train": {"sentences": 400, "images": 400, "shards": 2}}, "sources": {},
    }  # fmt: skip
    contents = {f"evaluation/{name}/results.json": RESULTS for name in ("pictures", "words")}
    contents["pools/uvd/1.0.0/manifest.json"] = manifest
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    for name in ("masks-best", "words-best"):
        for evaluation in ("pictures", "words"):
            path = tmp_path / "evaluation" / evaluation / "answers" / f"{name}.png"
            save_png(path, np.zeros((9, 30, 3), np.uint8))
    for model in ("tokenizer", "unified"):
        lines = [{"step": s, "train/loss/segmentation": 1 - s / 100} for s in (10, 20)]
        (tmp_path / model).mkdir()
        (tmp_path / model / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_the_page_opens_with_what_is_missed(workdir):
    page = write_unified_report(workdir).read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[0] == "Does it use its examples?"
    assert "Met: 7 of 10." in page
    assert page.index("missed") < page.index("<td>met")
    assert page.count("data:image/png;base64,") == 4
    assert "IoU 0.970" in page
    assert "[red] a &lt;b&gt;" in page
    assert "nats a token" in page


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("unified/metrics.jsonl", "experiments/train.py"),
        ("evaluation/words/results.json", "--category=examples"),
        ("pools/uvd/1.0.0/manifest.json", "data_pipelines.build_uvd"),
    ],
)
def test_a_missing_step_is_named(workdir, missing, command):
    (workdir / missing).unlink()
    with pytest.raises(UserError, match=command):
        write_unified_report(workdir)
