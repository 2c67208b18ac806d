"""A release of Vary: its model and pages, its card, and what is refused."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest

from lvm_jax.data.records.manifest import Manifest
from lvm_jax.demo.vary.models import find_model
from lvm_jax.errors import UserError
from lvm_jax.release.pack import pack
from lvm_jax.release.pages import read_page_sets
from lvm_jax.release.sheet import draw
from lvm_jax.release.systems import open_run
from lvm_jax.release.vary import VaryRun
from lvm_jax.reporting.figures import PREDICTION, TRUTH
from lvm_jax.reporting.trainings import chain

CONTROLS = ("model", "other_page", "blank", "no_picture")


def scores(*cers):
    named = {f"{control}/cer": cer for control, cer in zip(CONTROLS, cers, strict=True)}
    return {"questions": 2, "model/exact": 0.25, **named}


RESULTS = {
    "environment": {"python": "3"},
    "lines": scores(0.05, 1.1, 1.0, 0.9) | {"tesseract/cer": 0.02, "rapidocr": "not installed"},
    "shapes": scores(0.5, 0.55, 0.6, 0.7),
}


@pytest.fixture(scope="module")
def finished(vary_run, tmp_path_factory):
    """A workdir of three stages, with made-up scores."""
    run = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(vary_run, run)
    shutil.copytree(run / "two/model", run / "tiny/model")
    # Where they stood when they were trained.
    begun = {"lines": {}, "tiny": {"model": "/gone/lines/model"}, "two": {"tower": "/x/tiny/model"}}
    for name, init_from in begun.items():
        config = {
            "train": {"steps": 7, "batch_size": 3},
            "data": {"shards": f"{run}/shards/pages", "stages": [[0, 1]]},
            "init_from": {"model": "", "clip": ""} | init_from,
            "frozen": ["vitdet/tower"] if name == "two" else [],
            "optimizer": {"learning_rate": 0.5, "schedule": "cosine", "wsd": {"shape": "linear"}},
        }
        (run / name).mkdir(exist_ok=True)
        (run / name / "config.json").write_text(json.dumps(config))
        lines = [{"step": 7, "train/loss": 2.5}, {"step": 7, "validation/loss": 3.5}]
        (run / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (run / name / "goodput.json").write_text('{"training": 60.2, "compile": 9.9}')
    for stage in ("tiny", "two"):
        folder = run / "evaluation" / stage
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(RESULTS))
        for part, question in (("lines", "Read it."), ("shapes", "Describe it.")):
            said = {"key": "0", "question": question, "answers": ["ab"], "model": "ab"}
            (folder / f"{part}.jsonl").write_text(json.dumps(said) + "\n")
    for path in run.glob("shards/*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["splits"]["train"] = {"sentences": 9, "images": 9, "shards": 0}
        path.write_text(json.dumps(manifest))
    return run


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "vary"
    return output, pack(open_run(finished, "bfloat16"), output, name="Tiny")


def test_the_card_tells_stages_controls_and_demands(packed):
    output, costs = packed
    card = (output / "MODEL_CARD.md").read_text()
    assert card.splitlines()[2] == (
        "In 1 of 2 sets (shapes) the answers are no better with the picture than without it. In 1 of 2 sets they come "
        "from the picture: without it they are worse by 0.85 of the characters or fields."
    )
    told = [
        "**lines**: 7 steps of 3 on pages. At the end train/loss 2.50, validation/loss 3.50. It took 70 seconds. "
        "Settings: `learning_rate 0.5, schedule cosine, stages [[0, 1]]`.",
        "**tiny**: 7 steps of 3 on pages, beginning with the model of lines. At",
        "**two**: 7 steps of 3 on pages, beginning with the tower of tiny, with vitdet/tower frozen. At",
    ]
    places = [card.index(words) for words in told]
    assert places == sorted(places)
    assert (
        "| met | the tower in the second stage | bit for bit as the first stage left it | 0 of"
        in card
    )
    assert (
        "| lines | CER (less is better) | 0.0500 | 1.10 | 1.00 | 0.900 | 0.0200 | not installed"
        in card
    )
    assert (
        "| not measured | both vocabularies beside the old one alone | a lower CER on lines |"
        in card
    )
    assert [cost.what for cost in costs] == [
        f"{part}, CER (less is better), 2 questions" for part in ("lines", "shapes")
    ]
    assert all(f"{cost.before:.5f} | {cost.after:.5f}" in card for cost in costs)


def test_its_model_and_pages_are_found(packed):
    output, _ = packed
    found = find_model(output.parent, [])
    assert found.model_words.startswith(str(output / "model"))
    assert found.data_words == "made up (CC0-1.0)"
    assert [one.source for one in found.held_out] == ["lines", "shapes"] * 2
    assert found.held_out[0].asked.question == "Read it."
    lines, _ = read_page_sets(output / "pages")
    assert {question.answers for question in lines.questions} == {("ab",), ("ababab",)}
    assert lines.questions[0].picture().shape == (8, 20, 3)


def test_a_sheet_tells_right_from_wrong_answers(packed, monkeypatch):
    output, _ = packed

    def coloured(text):
        def reader(model, tokenizer):
            return lambda asked: [SimpleNamespace(text=text) for _ in asked]

        monkeypatch.setattr("lvm_jax.release.sheet.TextGenerator", reader)
        colours = set(map(tuple, draw(output.parent, "vary").reshape(-1, 3).tolist()))
        return [colour in colours for colour in (TRUTH, PREDICTION)]

    # Of the two answers of each set one is "ab"; where neither is right, none is green.
    assert coloured("ab") == [True, True]
    assert coloured("no") == [False, True]
    with pytest.raises(UserError, match=r"the font Aileron lacks 火 车: name one .* with --font"):
        coloured("火车")


def test_white_space_makes_no_answer_wrong(packed, monkeypatch):
    output, _ = packed

    def read_two_lines(folder):
        return [
            dataclasses.replace(
                s, questions=[dataclasses.replace(q, answers=("a b",)) for q in s.questions]
            )
            for s in read_page_sets(folder)
        ]

    said = [SimpleNamespace(text="a\nb")]
    monkeypatch.setattr("lvm_jax.release.sheet.read_page_sets", read_two_lines)
    monkeypatch.setattr(
        "lvm_jax.release.sheet.TextGenerator", lambda *_: lambda asked: said * len(asked)
    )
    colours = set(map(tuple, draw(output.parent, "vary").reshape(-1, 3).tolist()))
    assert (TRUTH in colours, PREDICTION in colours) == (True, False)


def test_the_lines_of_its_card_load_it(packed, run_card, picture, capsys):
    output, _ = packed
    run_card(output, {"page.png": picture(0, (8, 20))})
    assert capsys.readouterr().out.endswith("\n")


def test_what_is_missing_is_named(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    with pytest.raises(UserError, match=r"tokenizer_dtype is float16, and .* has no image tokeniz"):
        open_run(run, "float16", "float16")
    (run / "lines/config.json").unlink()
    with pytest.raises(
        UserError, match=r"tiny began from /gone/lines/model, .* no other training lines: "
    ):
        chain(run / "two")
    (run / "evaluation/two/results.json").unlink()
    with pytest.raises(UserError, match=r"two/results.json does not exist: run .*_documents.py"):
        open_run(run, "float16")


def test_a_licence_a_file_needs_the_list(finished, tmp_path):
    run = VaryRun(finished, "float32")
    source = {**run.manifest.sources["lines"], "licence": "a licence a file, see X"}
    fields = {**vars(run.manifest), "sources": {"lines": source}}
    run.manifest = Manifest(**fields)
    with pytest.raises(UserError, match=r"the source lines has 'a licence a file, see X', and .*"):
        pack(run, tmp_path / "new", name="x")
    assert not (tmp_path / "new").exists()
