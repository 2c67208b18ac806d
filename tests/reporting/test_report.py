"""The page holds the numbers of the run, all of them from its files, and nothing from elsewhere."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.reporting.benchmark_page import ScoredAnswer, task_page
from lvm_jax.reporting.charts import Chart, Level, Series, thinned
from lvm_jax.reporting.figures import save_png
from lvm_jax.reporting.inputs import RunFiles
from lvm_jax.reporting.numbers import apart, number, percent, short
from lvm_jax.reporting.report import write_report
from lvm_jax.reporting.words import plain_words

RESULTS = {
    "environment": {"jax": "9.8.7", "devices": "1 x cpu"},
    "tokenizer": {
        "fingerprint": "ab",
        "image_size": 64,
        "tokens_per_image": 64,
        "codebook_size": 512,
    },
    "split": "validation",
    "reconstruction": {
        "images": 33,
        "psnr": 21.34,
        "ssim": 0.712,
        "l1": 0.05,
        "lpips": "not installed",
        "codebook_usage": 0.515,
        "code_entropy": 5.1,
        "code_perplexity": 164.0,
    },
    "next_token": {
        "sentences": 41,
        "tokens": 9999,
        "loss": 3.21,
        "perplexity": 24.8,
        "code_loss": 3.27,
        "code_perplexity": 26.3,
        "accuracy": 0.287,
        "uniform_loss": 6.24,
        "baseline/unigram_entropy": 5.43,
        "baseline/fitted_on": "train",
        "baseline/train_unigram_loss": 5.56,
        "baseline/copy_loss": 4.32,
        "after_first_image/code_loss": 3.0,
        "after_first_image/copy_loss": 4.1,
        "after_first_image/accuracy": 0.31,
        "after_first_image/copy_accuracy": 0.22,
        "source/my_clips/sentences": 41,
        "source/my_clips/code_loss": 3.27,
        "source/my_clips/code_perplexity": 26.3,
    },
    "in_context": {
        "sequential/sentences": 7,
        **{f"sequential/context_{c}/corpus_perplexity": 60.5 - 5 * c for c in range(4)},
        **{f"sequential/context_{c}/mean_example_perplexity": 70.5 - 5 * c for c in range(4)},
        "analogy/sentences": 0,
    },
}
SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 0.95}


@pytest.fixture
def workdir(tmp_path):
    strip = np.zeros((9, 30, 3), np.uint8)
    save_png(tmp_path / "prompts" / "000" / "strip.png", strip)
    save_png(tmp_path / "evaluation" / "reconstructions.png", strip)
    scores = {
        "token_accuracy": 0.25,
        "copy_token_accuracy": 0.125,
        "psnr": 17.77,
        "copy_psnr": 16.66,
    }
    prompt = {
        "kind": "analogy",
        "source": "<b>sly</b>",
        "roles": ["image", "depth"],
        "strip": "000/strip.png",
    } | scores
    request = {"n_images": 1, "n_candidates": 2, "seed": 5, "sampling": SAMPLING}
    source = {
        "category": 3,
        "licence": "CC-BY-4.0 <me>",
        "origin": "somewhere",
        "sentences": 41,
        "images": 328,
    }
    contents = {
        "evaluation/results.json": RESULTS,
        "prompts/prompts.json": {"request": request, "means": scores, "prompts": [prompt]},
        "shards/uvd/1.0.0/manifest.json": {
            "tokenizer_fingerprint": "ab",
            "image_size": 64,
            "tokens_per_image": 64,
            "splits": {"train": {"sentences": 400, "images": 3200, "shards": 2}},
            "sources": {"my_clips": source},
        },
        "lvm/config.json": {"train": {"steps": 4321}},
        "stages.json": {"corpus": {"command": "c", "seconds": 90.0}},
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    for model in ("tokenizer", "lvm"):
        lines = [
            {"step": s, "time": 1.0, "train/loss": 6 - s / 100, "mfu": 0.5}
            for s in range(20, 201, 20)
        ]
        lines += [{"step": 200, "time": 1.0, "validation/loss": 4.2}]
        (tmp_path / model).mkdir(exist_ok=True)
        (tmp_path / model / "metrics.jsonl").write_text(
            "\n".join(map(json.dumps, lines)) + '\n{"step": 2'
        )
    return tmp_path


class Checker(HTMLParser):
    """Counts what a page would load, and checks that tags close."""

    def __init__(self):
        super().__init__()
        self.loaded, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br", "path", "use", "rect", "line"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset") or (name == "href" and tag in ("link", "image")):
                self.loaded.append(value)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_holds_the_numbers_of_the_run(workdir):
    page = write_report(workdir).read_text()
    for text in (
        *(
            "3.27 nats",
            "21.3 dB",
            "17.8 dB",
            "16.7",
            "28.7%",
            "5.43",
            "5.56",
            "4.32",
            "6.24",
            "51.5%",
            "164",
        ),
        *(
            "not installed",
            "CC-BY-4.0 &lt;me&gt;",
            "my_clips",
            "unlabelled videos",
            "9.8.7",
            "4321",
            "1.5 min",
        ),
        *("temperature 0.8", "top-p 0.95", "55.5", "45.5", "31%", "22%"),
    ):
        assert text in page, text
    assert "<b>sly</b>" not in page


def test_the_page_loads_nothing_and_closes_its_tags(workdir):
    page = write_report(workdir).read_text()
    checker = Checker()
    checker.feed(page)
    assert len(checker.loaded) == 2
    assert all(source.startswith("data:image/png;base64,") for source in checker.loaded)
    assert checker.open == []
    assert not re.search(r"url\((?!#)|@import|<script", page)
    assert (workdir / "figures" / "decoder_loss.png").stat().st_size > 1000
    assert (workdir / "figures" / "tokenizer_loss.png").stat().st_size > 1000


def test_the_same_run_gives_the_same_page(workdir):
    assert write_report(workdir).read_text() == write_report(workdir).read_text()


def test_the_page_opens_with_the_controls(workdir):
    page = write_report(workdir).read_text()
    assert page.index("The controls were not measured") < page.index("3.27 nats")
    task = "scenes: image -> depth"
    measured = {
        f"{task}/sentences": 9, f"{task}/pairs": 3, f"{task}/right": 1.875, f"{task}/other_query": 1.885,
        f"{task}/uses_query": 0.01, f"{task}/uses_query_error": 0.003,
    }  # fmt: skip
    results = json.dumps(RESULTS | {"controls": measured})
    (workdir / "evaluation/results.json").write_text(results)
    page = write_report(workdir).read_text()
    assert "not measured" not in page
    assert page.index("does not depend on the query in 1 of 1 task.") < page.index("3.27 nats")
    for cell in ("<td class=number>1.88</td>", "<td>0.01 ± 0.00, flat</td>", "<td>–</td>"):
        assert cell in page


def test_the_words_follow_the_numbers(workdir):
    assert "3.27 nats a code, less than the 5.43" in plain_words(RunFiles.load(workdir))[1]
    worse = RESULTS | {"next_token": RESULTS["next_token"] | {"code_loss": 5.0}}
    (workdir / "evaluation/results.json").write_text(json.dumps(worse))
    sentence = plain_words(RunFiles.load(workdir))[1]
    assert "5.00 nats a code, less than the 5.43" in sentence
    assert "no less than the 4.32 of copying" in sentence


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("tokenizer/metrics.jsonl", "experiments/train.py"),
        ("lvm/metrics.jsonl", "experiments/train.py"),
        ("evaluation/results.json", "experiments/evaluate.py"),
        ("prompts/prompts.json", "experiments/generate.py"),
        ("shards/uvd/1.0.0/manifest.json", "data_pipelines.build_uvd"),
    ],
)
def test_a_missing_step_is_named(workdir, missing, command):
    (workdir / missing).unlink()
    with pytest.raises(UserError, match=command):
        write_report(workdir)
    assert not (workdir / "report.html").exists()


def test_it_opens_with_the_controls_and_good_and_bad_answers(workdir):
    before = write_report(workdir).read_text()
    assert "Task by task" not in before
    assert "Nothing here says whether the answers are nearer to the truth" in before
    results = json.loads((workdir / "evaluation/results.json").read_text())
    task = "scenes: image -&gt; depth"
    results["ceilings"] = {"depth/absrel": 0.0321}
    results["answers"] = {
        f"scenes: image -> depth/{name}": value
        for name, value in {
            "sentences": 21, "metric": "absrel", "better": "less", "model": 0.0876, "copy": 0.1432, "best": 0.0123,
            "median": 0.0765, "worst": 0.3456, "shown": "scenes-image-depth.png",
        }.items()
    }  # fmt: skip
    (workdir / "evaluation/results.json").write_text(json.dumps(results))
    save_png(workdir / "evaluation/answers/scenes-image-depth.png", np.zeros((9, 30, 3), np.uint8))
    page = write_report(workdir).read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[:2] == [
        "Do the answers depend on what is asked?",
        "Good, middling and bad answers",
    ]
    assert page.index(titles[1]) < page.index("class=cards")
    assert "in 1 of 1 tasks." in page
    words = (
        f"{task} · absrel 0.0123 at best, 0.0765 in the middle, 0.346 at worst; over 21 sentences"
    )
    assert words in page
    table = page[page.index("Task by task") :]
    for number_of in ("0.0876", "0.143", "0.0321"):
        assert number_of in table


def test_a_damaged_file_is_named(workdir):
    (workdir / "prompts/prompts.json").write_text("{")
    with pytest.raises(UserError, match=r"prompts\.json is not JSON"):
        write_report(workdir)


def test_shares_of_time_are_words_and_what_stayed_zero_is_not_drawn(workdir):
    path = workdir / "tokenizer" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()[:-1]]
    for line in lines:
        line |= {"goodput": 0.75, "badput/compile": 0.2, "badput/lost": 0.05, "badput/data": 0.0}
        line |= {"train/skipped": 0.0}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(workdir).read_text()
    assert "75% went into training steps; the rest into 20% compile, 5% lost." in page
    assert "badput" not in page
    assert "skipped" not in page


def test_charts_are_drawings_in_the_pages_colour():
    chart = Chart(
        "step",
        "nats",
        [Series("loss", [1, 2, 3], [3.0, float("nan"), 1.0])],
        [Level("unigram", 2.5)],
    )
    svg = chart.svg()
    root = ElementTree.fromstring(svg)
    assert root.get("height") is None
    words = "".join(root.itertext())
    assert "nats" in words
    assert "unigram: 2.50" in words
    assert "currentColor" in svg
    assert chart.svg() == svg
    assert chart.png().startswith(b"\x89PNG")


def test_long_lines_are_averaged():
    x, y = thinned(range(4000), [1.0, 3.0] * 2000)
    assert len(x) == 400
    assert np.all(y == 2)
    assert x[0] == 4.5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12"),
        (12345, "12,345"),
        (1.2345, "1.23"),
        (12345.6, "12,346"),
        (0.012345, "0.0123"),
        (0.0, "0"),
        (-0.0, "0"),
        (9.999, "10.0"),
        (99999.6, "100,000"),
        (0.00009999, "0.000100"),
        (1e-7, "1e-07"),
        (float("inf"), "inf"),
        (None, "–"),
        ("<x>", "<x>"),
    ],
)
def test_numbers_as_people_read_them(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (999.6, "1k"), (656_400, "656k"), (999_999, "1M"), (1.22e13, "12.2T")],
)
def test_large_numbers_have_a_letter(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "other", "texts"),
    [
        (0.5, 0.4, ("0.500", "0.400")),
        (0.1004, 0.1, ("0.1004", "0.1000")),
        (0.5001, 0.5004, ("0.5001", "0.5004")),
        (0.9996, 1.0, ("0.9996", "1.000")),
        (0.3, 0.3, ("0.300", "0.300")),
    ],
)
def test_numbers_that_are_compared_can_be_told_apart(value, other, texts):
    assert (apart(value, other), apart(other, value)) == texts
    assert percent(0.5996) == "60.0%"
    assert (percent(0.5996, 0.6), percent(0.6, 0.6)) == ("59.96%", "60%")


def test_released_models_stand_beside_the_trained_ones(workdir):
    assert "Beside the released models" not in write_report(workdir).read_text()
    answers = json.loads((workdir / "prompts/prompts.json").read_text())
    answers["prompts"][0]["name"] = "000-a-prompt"
    for folder, psnr in (("prompts_released", 14.44), ("prompts_compared", 13.33)):
        save_png(workdir / folder / "000/strip.png", np.zeros((9, 30, 3), np.uint8))
        answers["means"]["psnr"] = psnr
        (workdir / folder / "prompts.json").write_text(json.dumps(answers))
    page = write_report(workdir).read_text()
    section = page[page.index("Beside the released models") :]
    for words in ("14.4", "13.3", "000-a-prompt · released", "000-a-prompt · just trained"):
        assert words in section


def test_text_of_the_run_is_never_markup(workdir):
    evil = "<script>alert('&')</script>"

    def rename(file: str, change) -> None:
        content = json.loads((workdir / file).read_text())
        change(content)
        (workdir / file).write_text(json.dumps(content))

    def in_manifest(manifest):
        manifest["sources"] = {evil: manifest["sources"]["my_clips"] | {"origin": evil}}
        manifest["tokenizer_fingerprint"] = evil

    def in_results(results):
        results["environment"][evil] = evil
        results["next_token"] |= {
            f"source/{evil}/{name}": 1.0 for name in ("code_loss", "code_perplexity", "sentences")
        }

    rename("shards/uvd/1.0.0/manifest.json", in_manifest)
    rename("evaluation/results.json", in_results)
    rename("prompts/prompts.json", lambda prompts: prompts["prompts"][0].update(source=evil))
    rename("lvm/config.json", lambda config: config.update({evil: evil}))
    rename("stages.json", lambda stages: stages.update({evil: stages["corpus"]}))
    lines = [{"step": step, evil.replace("/", ""): step + 1.0} for step in (10, 20)]  # drawn
    (workdir / "lvm/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(workdir).read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10


def test_a_benchmarks_page_escapes_and_groups_its_cases(tmp_path):
    evil = "<script>alert(1)</script>"
    save_png(tmp_path / "strip.png", np.zeros((9, 30, 3), np.uint8))
    results = {"model/iou": 0.5, "copy/iou": 0.25, "asked": 7, evil.replace("/", ""): evil}
    cases = [
        ScoredAnswer(group, evil, tmp_path / "strip.png", {"model/iou": 0.75})
        for group in ("best", "worst")
    ]
    page = task_page("single_object", results, cases)
    assert "<script" not in page
    # Twice in a key of the results that lost its "/", once as its value, and by each picture as text and caption.
    assert page.count("&lt;script&gt;") == 2 + 1 + 2 * 2
    assert "In context: single object" in page
    assert page.index("The best answers") < page.index("The worst answers")
    for cell in ("0.500", "0.250", "0.750", ">7<"):
        assert cell in page
