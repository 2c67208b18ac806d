"""Page sets in their public formats, their scores beside the controls, and the OCR engines beside them."""

import dataclasses
import importlib.util
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from lvm_jax.data.image_text.conversation import Conversation, Turn
from lvm_jax.data.image_text.record import ImageText, ImageTextWriter
from lvm_jax.data.records import manifest as manifests
from lvm_jax.errors import UserError
from lvm_jax.evaluation.documents import ocr_peers
from lvm_jax.evaluation.documents.answer_scores import Kind, score
from lvm_jax.evaluation.documents.page_evaluator import PageEvaluator, others
from lvm_jax.evaluation.documents.page_questions import PageQuestion, PageSet
from lvm_jax.evaluation.documents.readers import (
    read_chartqa,
    read_docvqa,
    read_pages,
    read_shards,
    read_sroie,
)


def grey(level: int) -> np.ndarray:
    return np.full((6, 8, 3), level, np.uint8)


def save(path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey(level)).save(path)


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


class Levels:
    """Reads the grey of its picture aloud: a page "says" its level."""

    def __init__(self):
        self.asked = []

    def __call__(self, asked):
        self.asked += asked
        return [f"level {one.images[0][0, 0, 0]}" if one.images else "level" for one in asked]


def question(key: str, level: int, *answers: str, page: str = "") -> PageQuestion:
    return PageQuestion(key, page or key, lambda: grey(level), "", answers)


def test_fox_pages(tmp_path):
    save(tmp_path / "en" / "a.png", 10)
    save(tmp_path / "en" / "b.png", 20)
    entries = [
        {"image": name, "conversations": conversation("<image>\nOCR: ", f"words of {name}")}
        for name in ("a.png", "b.png")
    ]
    path = tmp_path / "en_page_ocr.json"
    path.write_text(json.dumps(entries))
    (pages,) = read_pages(path, tmp_path / "en")
    assert (pages.name, pages.kind) == ("en_page_ocr", Kind.TEXT)
    assert [q.question for q in pages.questions] == ["OCR:", "OCR:"]
    assert [q.answers for q in pages.questions] == [("words of a.png",), ("words of b.png",)]
    assert [int(q.picture()[0, 0, 0]) for q in pages.questions] == [10, 20]
    path.write_text(
        json.dumps([{"image": ["a.png", "b.png"], "conversations": entries[0]["conversations"]}])
    )
    with pytest.raises(UserError, match="entry 0 has 2 pictures and an answer: give one of each"):
        read_pages(path, tmp_path / "en")
    for wrong in ([{"image": "a.png"}], ["a.png"], [{"image": "a.png", "conversations": []}]):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"en_page_ocr\.json entry 0.*conversations"):
            read_pages(path, tmp_path / "en")


def test_docvqa(tmp_path):
    save(tmp_path / "documents" / "x.png", 30)
    path = tmp_path / "val_v1.0_withQT.json"
    entry = {
        "questionId": 7,
        "question": "Who?",
        "image": "documents/x.png",
        "answers": ["Ann", "ann b"],
    }
    path.write_text(json.dumps({"dataset_split": "val", "data": [entry]}))
    (pages,) = read_docvqa(path)
    assert pages.kind is Kind.PHRASE
    (asked,) = pages.questions
    assert (asked.question, asked.answers) == ("Who?", ("Ann", "ann b"))
    assert int(asked.picture()[0, 0, 0]) == 30
    path.write_text(json.dumps({"data": [{k: v for k, v in entry.items() if k != "answers"}]}))
    with pytest.raises(UserError, match="question 7' has 0 answers: score a split that has them"):
        read_docvqa(path)
    path.write_text(json.dumps({"data": [{"question": "Who?"}]}))
    with pytest.raises(UserError, match="entry 0 has no 'questionId'"):
        read_docvqa(path)
    for content in ("[]", "{}", "no json"):
        path.write_text(content)
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_docvqa(path)


def test_chartqa(tmp_path):
    for part, label in (("human", "14"), ("augmented", "Yes")):
        entries = [{"imgname": f"{part}.png", "query": "How many?", "label": label}]
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "test" / f"test_{part}.json").write_text(json.dumps(entries))
        save(tmp_path / "test" / "png" / f"{part}.png", 40)
    human, augmented = read_chartqa(tmp_path / "test")
    assert (human.name, augmented.name, human.kind) == ("human", "augmented", Kind.NUMBER)
    assert human.questions[0].answers == ("14",)
    assert augmented.questions[0].picture().shape == (6, 8, 3)
    with pytest.raises(UserError, match=r"val_human\.json cannot be read"):
        read_chartqa(tmp_path / "val")


@pytest.mark.parametrize("names", [("key", "json"), ("entities", "txt")])
def test_sroie(tmp_path, names):
    folder, suffix = names
    truth = {"company": "ACME", "total": "9.00"}
    save(tmp_path / "img" / "X1.jpg", 50)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"X1.{suffix}").write_text(json.dumps(truth))
    (pages,) = read_sroie(tmp_path)
    assert pages.kind is Kind.FIELDS
    assert pages.questions[0].question == "Give company, total as a Python dict."
    assert (
        score(pages.kind, ["{'company': 'ACME', 'total': 9.0}"], [pages.questions[0].answers])[
            "fields"
        ]
        == 1
    )
    (tmp_path / folder / f"X2.{suffix}").write_text(json.dumps(truth))
    with pytest.raises(UserError, match=r"X2\.\w+ has no picture img/X2\.jpg"):
        read_sroie(tmp_path)
    with pytest.raises(UserError, match="has no img with key or entities"):
        read_sroie(tmp_path / "img")


def test_scores_of_each_kind():
    said, truths = ["a b c d", "x y z w"], [("a b c d",), ("x y z v",)]
    found = score(Kind.TEXT, said, truths)
    assert found["exact"] == 0.5
    assert found["edit_distance"] == pytest.approx(1 / 14)
    assert found["cer"] == pytest.approx(1 / 14)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((7 / 8,) * 3)
    assert isinstance(found["meteor"], float | str)
    fields = score(Kind.FIELDS, ["{'a': 1, 'b': 3}", "nothing"], [("{'a': 1, 'b': 2}",)] * 2)
    assert (fields["fields"], fields["fields_precision"], fields["unreadable"]) == (
        1 / 4,
        1 / 2,
        1 / 2,
    )
    assert score(Kind.PHRASE, ["ann"], [("Ann", "Bob")])["anls"] == 1
    assert score(Kind.NUMBER, ["104 ", "no"], [("100",), ("No",)])["relaxed"] == 1
    assert score(Kind.PHRASE, ["so, " * 20], [("so",)])["loops"] == 1


def test_every_score_stands_beside_its_controls():
    pages = PageSet(
        "levels", Kind.TEXT, tuple(question(str(i), 10 * i, f"level {10 * i}") for i in range(1, 4))
    )
    reader = Levels()
    found = PageEvaluator(pages, batch_size=2).run(reader)
    assert found["questions"] == 3
    exact = {
        name: found[f"{name}/exact"] for name in ("model", "other_page", "blank", "no_picture")
    }
    assert exact == {"model": 1, "other_page": 0, "blank": 0, "no_picture": 0}
    assert found["blank/f1"] == found["no_picture/f1"] * 0.75 == 0.5
    shown = [[int(image[0, 0, 0]) for image in one.images] for one in reader.asked]
    assert shown == [[10], [20], [30], [20], [30], [10], [255], [255], [255], [], [], []]
    assert all(one.images[0].shape == (6, 8, 3) for one in reader.asked[6:9])
    alone = PageEvaluator(pages, controls=False).run(Levels())
    assert {name.split("/")[0] for name in alone} == {"questions", "model"}


def test_a_missing_package_is_named_before_anything_is_asked(monkeypatch):
    pages = PageSet("s", Kind.PHRASE, (question("a", 1, "word"),))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rapidfuzz" else found(name)
    )
    for kind in (Kind.PHRASE, Kind.TEXT):
        with pytest.raises(UserError, match=r"rapidfuzz is not installed.*text-metrics"):
            PageEvaluator(dataclasses.replace(pages, kind=kind), controls=False)
    PageEvaluator(dataclasses.replace(pages, kind=Kind.NUMBER), controls=False)


def test_another_page_is_another_page_with_another_answer():
    # Pages a, b, a, b, ...; the answers of a page's questions differ, and some are those of the other page.
    asked = [question(str(i), i, f"says {i // 4}{i % 2}", page="ab"[i % 2]) for i in range(8)]
    asked.append(question("same", 9, "says 00", page="c"))
    for one, other in zip(asked, others(asked), strict=True):
        assert other.page != one.page
        assert other.answers != one.answers
    assert others(asked)[0] is asked[5], "half the set away, from the next on"
    alike = [question(str(i), i, "a photograph", page=f"p{i}") for i in range(2)]
    for pages in (alike, [question(str(i), i, f"{i}", page="one") for i in range(2)]):
        with pytest.raises(UserError, match="another page and another answer than '0'"):
            PageEvaluator(PageSet("s", Kind.TEXT, tuple(pages)))
    with pytest.raises(UserError, match="s has 0 questions"):
        PageSet("s", Kind.TEXT, ())


def test_a_set_of_one_answer_is_compared_with_pages_of_other_sets():
    photos = [question(str(i), i, "a photograph", page=f"p{i}") for i in range(2)]
    lines = [dataclasses.replace(photos[0], page="l", question="Read.", answers=("word",))]
    shapes = [question(f"s{i}", 9, f"disc {i}", page=f"s{i}") for i in range(2)]
    assert others(photos, [*lines, *shapes]) == shapes, (
        "those that ask the same, one after the other"
    )
    assert others(photos, lines) == lines * 2
    found = PageEvaluator(PageSet("s", Kind.TEXT, tuple(photos)), elsewhere=lines).run(Levels())
    assert found["questions"] == 2


def test_a_damaged_page_stops_the_benchmark(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.json").write_text(
        json.dumps([{"image": "a.png", "conversations": conversation("<image>", "words")}])
    )
    (pages,) = read_pages(tmp_path / "a.json", tmp_path)
    with pytest.raises(UserError, match=r"the data set is damaged: .*a\.png"):
        PageEvaluator(pages, controls=False).run(Levels())


def test_peers_read_the_same_pages(monkeypatch):
    pages = PageSet("levels", Kind.TEXT, (question("a", 10, "level 10"),))
    monkeypatch.setattr(
        ocr_peers, "find_tesseract", lambda: lambda picture: f"level {picture[0, 0, 0]}"
    )
    monkeypatch.setattr(ocr_peers, "find_rapidocr", lambda: "not installed: pip install it")
    found = ocr_peers.score_peers(pages)
    assert found["tesseract/exact"] == 1
    assert found["rapidocr"] == "not installed: pip install it"


def test_missing_engines_are_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "not installed: apt install tesseract-ocr" in ocr_peers.find_tesseract()


def test_reading_order_goes_down_the_columns():
    heading = [0, 0, 100, 10]
    left, right = (
        [[0, y, 45, y + 8] for y in (30, 40, 50)],
        [[55, y, 100, y + 8] for y in (30, 40, 50)],
    )
    rows = np.array([heading, left[0], right[0], left[1], right[1], left[2], right[2]], float)
    assert ocr_peers.reading_order(rows) == [0, 1, 3, 5, 2, 4, 6]
    assert ocr_peers.reading_order(np.zeros((0, 4))) == []
    tall = np.array([[0.0, 10 * y, 50, 10 * y + 8] for y in range(200)])[::-1]
    assert ocr_peers.reading_order(tall) == list(range(200))[::-1]


def test_shards_of_our_own(tmp_path):
    """Sources apart; dicts by their fields; a record of two pictures is no page; a page of a later epoch comes once."""
    folder = manifests.dataset_folder(tmp_path, "words", "1.0.0")
    folder.mkdir(parents=True)
    pictures = [io.BytesIO() for _ in range(3)]
    for level, buffer in zip((60, 70, 60), pictures):
        Image.fromarray(grey(level)).save(buffer, "PNG")
    answers = {"lines": ["one", "two", "one"], "charts": ["{'a': 1}"], "talks": ["both"]}
    records = [
        ImageText(
            (pictures[i].getvalue(),) * (1 + (source == "talks")),
            Conversation((Turn("<image>" * (1 + (source == "talks")) + "\nWhat?", answer),)),
            source, f"{source}/{i}", "CC0-1.0",
        )
        for source, said in answers.items()
        for i, answer in enumerate(said)
    ]  # fmt: skip
    with ImageTextWriter(folder / manifests.shard_name("words", "validation", 0, 1)) as writer:
        for record in records:
            writer.add(record)
    total = {"sentences": 5, "images": 6}
    manifests.Manifest(
        tokenizer_fingerprint="", codebook_size=0, image_size=0, tokens_per_image=0,
        splits={"validation": {**total, "shards": 1}},
        sources={name: {"category": 0, "licence": "CC0-1.0", "origin": "drawn", **total} for name in answers},
        encoding="image_text",
    ).save(folder)  # fmt: skip
    lines, charts = sorted(read_shards(tmp_path, "validation", most=3), key=lambda s: s.name)[::-1]
    assert [(s.name, s.kind, len(s.questions)) for s in (lines, charts)] == [
        ("lines", Kind.TEXT, 2),
        ("charts", Kind.FIELDS, 1),
    ]
    assert lines.questions[0].question == "What?"
    assert int(lines.questions[0].picture()[0, 0, 0]) == 60
    # The chart is the picture of the first line too, whatever its record is called: it is no other page.
    assert lines.questions[0].page == charts.questions[0].page != lines.questions[1].page
