"""The page of Vary's quickstart: gates that are missed are said to be, and every number comes from the files."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from lvm_jax.errors import UserError
from lvm_jax.reporting.figures import save_png
from lvm_jax.reporting.vary_gates import gates, second_epoch
from lvm_jax.reporting.vary_inputs import VaryFiles
from lvm_jax.reporting.vary_page import write_vary_report
from lvm_jax.reporting.vary_words import control_words, headline

CONTROLS = ("model", "other_page", "blank", "no_picture")


def lines_of(*cers, exact=0.5, questions=4):
    scores = {f"{control}/cer": cer for control, cer in zip(CONTROLS, cers)}
    return {"questions": questions, "model/exact": exact, **scores}


RESULTS = {
    "tiny": {"lines": lines_of(0.05, 1.2, 0.97, 0.98)},
    "two": {
        "lines": lines_of(0.08, 1.1, 0.96, 0.99),
        "charts": {
            "questions": 4,
            "model/exact": 0.25,
            **{f"{control}/fields": x for control, x in zip(CONTROLS, (0.7, 0.1, 0.0, 0.0))},
        },
        "shapes": lines_of(0.01, 0.8, 0.7, 0.7, exact=0.9, questions=64),
        "photos": {**lines_of(0.0, 1.0, 1.0, 1.0, exact=0.85), "other_page/exact": 0.05},
    },
    "old": {"lines": lines_of(0.6), "shapes": lines_of(0.02, exact=0.92, questions=64)},
}


@pytest.fixture
def workdir(tmp_path):
    for training, results in RESULTS.items():
        folder = tmp_path / training
        (folder / "model").mkdir(parents=True)
        weights = {
            "vitdet.tower.neck": np.ones(3, np.float32),
            "decoder.embedding": np.full(3, len(training), np.float32),
        }
        save_file(weights, folder / "model" / "model.safetensors")
        (folder / "config.json").write_text(
            json.dumps({"train": {"batch_size": 10}, "data": {"shards": "W/shards"}})
        )
        steps = [
            {"step": s, "train/loss": 3 - s / 20, "evaluation/image_use/loss": 1.0}
            for s in range(2, 21, 2)
        ]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))
        output = tmp_path / "evaluation" / training
        output.mkdir(parents=True)
        (output / "results.json").write_text(
            json.dumps({"environment": {"jax": "9.8.7"}} | results)
        )
        for part in results:
            said = [
                {
                    "key": str(i),
                    "question": "Read <it>.",
                    "answers": [f"text {i}"],
                    "model": f"text {i % 2}",
                }
                for i in range(4)
            ]
            (output / f"{part}.jsonl").write_text("\n".join(map(json.dumps, said)) + "\n")
            for i in range(3):
                save_png(output / part / f"{i}.png", np.full((8, 8, 3), 200, np.uint8))
    manifest = tmp_path / "shards" / "vary_quickstart" / "1.0.0" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    counts = {"sentences": 100, "images": 100}
    source = {**counts, "category": 2, "licence": "Apache-2.0", "origin": "drawn"}
    content = {
        "splits": {"train": {**counts, "shards": 1}}, "sources": {"lines": source},
        "image_size": 0, "tokens_per_image": 0, "tokenizer_fingerprint": "",
    }  # fmt: skip
    manifest.write_text(json.dumps(content))
    return tmp_path


def test_the_page_opens_with_its_gates_and_shows_what_was_read(workdir):
    page = write_vary_report(workdir).read_text()
    assert "Met: 8 of 8" in page
    assert page.index("What it should reach") < page.index("Does it look at the picture?")
    assert "lines: 8% of the characters are wrong; with another picture 110%" in page
    assert "charts: 70% of the fields are right; with another picture 10%" in page
    assert "Read &lt;it&gt;. 2 of 4 held-out answers are right" in page
    # Of each of the four sets, three of the four answers have a picture.
    assert page.count("data:image/png;base64,") == 12
    assert page.count("<td>right</td>") == 8
    assert "9.8.7" in page
    assert "<code>vary_quickstart/1.0.0</code>." in page
    assert (workdir / "figures" / "vary_loss.png").stat().st_size > 1000


def change(workdir, training, part, **scores):
    path = workdir / "evaluation" / training / "results.json"
    results = json.loads(path.read_text())
    results[part] |= {name.replace("_of_", "/"): value for name, value in scores.items()}
    path.write_text(json.dumps(results))


PHOTOGRAPHS = "both vocabularies tell photographs from drawings"


@pytest.mark.parametrize(
    ("training", "part", "scores", "missed"),
    [
        ("tiny", "lines", {"model_of_cer": 0.11}, "the new vocabulary reads lines"),
        ("two", "lines", {"other_page_of_cer": 0.5}, "both vocabularies read lines"),
        ("two", "charts", {"model_of_fields": 0.59}, "both vocabularies read charts"),
        ("two", "photos", {"model_of_exact": 0.75}, PHOTOGRAPHS),
        ("two", "photos", {"other_page_of_exact": 0.5}, PHOTOGRAPHS),
        ("old", "lines", {"model_of_cer": 0.08}, "both vocabularies beside the old one alone"),
        ("two", "shapes", {"model_of_exact": 0.7}, "both vocabularies beside the old one alone"),
    ],
)
def test_a_gate_that_is_missed_comes_first(workdir, training, part, scores, missed):
    change(workdir, training, part, **scores)
    found = gates(VaryFiles.load(workdir))
    assert [gate.task for gate in found if gate.met is False] == [missed]
    assert found[0].task == missed
    assert "<td>missed</td>" in write_vary_report(workdir).read_text()


def test_a_number_shows_on_which_side_of_the_limit_it_is(workdir):
    change(workdir, "two", "lines", model_of_cer=0.1004)
    first, *_ = gates(VaryFiles.load(workdir))
    assert first.measured == "0.1004, with another picture 1.10"


def test_a_share_shows_on_which_side_of_the_limit_it_is(workdir):
    change(workdir, "two", "charts", model_of_fields=0.5996)
    first, *_ = gates(VaryFiles.load(workdir))
    assert (first.met, first.asked) == (False, "at least 60% of the held-out fields")
    assert first.measured.startswith("59.96%, ")


def test_a_line_separator_on_a_page_ends_no_line_of_the_answers(workdir):
    path = workdir / "evaluation" / "two" / "lines.jsonl"
    first, *others = path.read_text().splitlines()
    said = json.loads(first) | {"model": "one\u2028two\x85three"}
    path.write_text("\n".join([json.dumps(said, ensure_ascii=False), *others]) + "\n")
    answers = VaryFiles.load(workdir).evaluated["two"].said["lines"]
    assert answers[0]["model"] == "one\u2028two\x85three"
    assert len(answers) == 1 + len(others)


def test_a_control_that_was_not_asked_is_no_number(workdir):
    path = workdir / "evaluation/two/results.json"
    results = json.loads(path.read_text())
    for part, score in (("charts", "fields"), ("lines", "cer"), ("photos", "exact")):
        del results[part][f"other_page/{score}"]
    path.write_text(json.dumps(results))
    found = {gate.task: gate for gate in gates(VaryFiles.load(workdir))}
    charts = found["both vocabularies read charts"]
    assert (charts.met, charts.measured) == (True, "70%; no other picture was shown")
    for task in ("read lines", "tell photographs from drawings"):
        gate = found[f"both vocabularies {task}"]
        assert gate.met is None
        assert gate.measured.endswith("; no other picture was shown")


def test_every_set_of_texts_is_demanded(workdir):
    path = workdir / "evaluation/two/results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fonts": lines_of(0.3, 1.1)}))
    (workdir / "evaluation/two/fonts.jsonl").write_text("")
    first, *rest = gates(VaryFiles.load(workdir))
    assert (first.task, first.measured) == (
        "both vocabularies read fonts",
        "0.300, with another picture 1.10",
    )
    assert all(gate.met for gate in rest)


def test_the_old_vocabulary_alone_need_not_be_there(workdir):
    shutil.rmtree(workdir / "old")
    found = gates(VaryFiles.load(workdir))
    assert [gate.met for gate in found].count(None) == 2
    assert {(gate.task, gate.measured) for gate in found[:2]} == {
        ("both vocabularies beside the old one alone", "the old one alone was not trained")
    }
    assert "Met: 6 of 8; 2 were not measured" in write_vary_report(workdir).read_text()


def test_an_epoch_is_of_the_data_sets_that_the_first_stage_names(workdir):
    other = workdir / "shards/others/1.0.0/manifest.json"
    other.parent.mkdir(parents=True)
    other.write_text((workdir / "shards/vary_quickstart/1.0.0/manifest.json").read_text())
    assert VaryFiles.load(workdir).steps_of_an_epoch == 20
    config = {"train": {"batch_size": 10}, "data": {"shards": "W/shards/others"}}
    (workdir / "tiny/config.json").write_text(json.dumps(config))
    assert VaryFiles.load(workdir).steps_of_an_epoch == 10


def test_a_frozen_tower_that_changed_is_told(workdir):
    save_file(
        {"vitdet.tower.neck": np.nextafter(np.ones(3, np.float32), 2)},
        workdir / "two" / "model" / "model.safetensors",
    )
    first, *rest = gates(VaryFiles.load(workdir))
    assert (first.task, first.measured) == (
        "the tower in the second stage",
        "1 of 1 tensors changed",
    )
    assert all(gate.met for gate in rest)


def test_the_second_epoch_is_beside_the_first_or_was_not_reached():
    metrics = [{"step": s, "train/loss": float(loss)} for s, loss in enumerate((4, 2, 2, 3), 1)]
    assert second_epoch(metrics, 2).met is True
    assert second_epoch(metrics, 1).met is True
    assert second_epoch([{**line, "train/loss": 5.0 - line["step"]} for line in metrics], 2).met
    worse = [{**line, "train/loss": line["step"]} for line in metrics]
    assert second_epoch(worse, 2).met is False
    unknown = second_epoch(metrics, 3)
    assert (unknown.met, unknown.measured) == (None, "it was trained for 1.3 epochs")
    unknown = second_epoch([{"step": 4, "validation/loss": 1.0}], 3)
    assert (unknown.met, unknown.measured) == (None, "no training loss was logged")


def test_the_headline_begins_with_what_is_not_read():
    read, flat = lines_of(0.1, 0.9, 0.8, 1.0), lines_of(0.5, 0.55, 0.9, 0.9)
    charts = {f"{control}/fields": x for control, x in zip(CONTROLS, (0.7, 0.1, 0.2, 0.0))}
    assert headline({"lines": read, "han": flat, "charts": charts}) == (
        "In 1 of 3 sets (han) the answers are no better with the picture than without it. In 2 of 3 sets they come "
        "from the picture: without it they are worse by 0.50 to 0.70 of the characters or fields."
    )
    assert headline({"lines": {"model/cer": 0.1}}).startswith("The controls were not measured")


def test_controls_that_were_not_asked_are_not_told():
    assert control_words("lines", {"model/cer": 0.5}) == "lines: 50% of the characters are wrong."


def test_what_is_missing_is_told_with_its_command(workdir):
    (workdir / "evaluation" / "old" / "results.json").unlink()
    with pytest.raises(
        UserError, match=r"old/results.json does not exist: run .*evaluate_documents"
    ):
        VaryFiles.load(workdir)
