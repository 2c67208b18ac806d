"""generate and evaluate_documents, as a user runs them, on a tiny untrained model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from data_pipelines.train_text_tokenizer import character_table, small_settings
from lvm_jax.data.text_tokenizer import TextTokenizer, save_folder
from lvm_jax.models import VisionLanguage, presets

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    settings = small_settings("opt")
    save_folder(root / "model", character_table(["abcdefg \n"], settings), settings)
    model = VisionLanguage(presets.vary("debug"), rngs=nnx.Rngs(0))
    model.tokenizer_fingerprint = TextTokenizer(root / "model").fingerprint
    model.save_pretrained(root / "model")
    (root / "scans").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "scans" / f"{i}.png")
    (root / "scans" / "bad.png").write_bytes(b"no picture")
    entries = [
        {
            "image": f"{i}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nOCR:"},
                {"from": "gpt", "value": f"abc {i}"},
            ],
        }
        for i in range(2)
    ]
    (root / "en_page_ocr.json").write_text(json.dumps(entries))
    return root


def run(script: str, *flags: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    command = [sys.executable, str(ROOT / "experiments" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_pages_are_read_once(workdir):
    model, output = f"--model={workdir}/model", workdir / "read"
    ask = ["generate.py", model, f"--pages={workdir}/scans", f"--output={output}", "--max_new=8"]
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    assert "3 pages read" in done.stdout
    assert "1 bad inputs: " in done.stdout
    assert "bad.png" in done.stdout
    before = (output / "pages.json").read_bytes()
    kept = (output / "0.png").stat().st_mtime_ns
    assert (output / "2.txt").exists()
    assert run(*ask).returncode == 0
    assert (output / "pages.json").read_bytes() == before
    assert (output / "0.png").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_scores_stand_beside_their_controls(workdir):
    done = run(
        "evaluate_documents.py", f"--model={workdir}/model", f"--output={workdir}/scores", "--benchmark=pages",
        f"--data={workdir}/en_page_ocr.json", f"--images={workdir}/scans", "--max_new=8", "--peers",
        "--pictures",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((workdir / "scores" / "results.json").read_text())["en_page_ocr"]
    for control in ("model", "other_page", "blank", "no_picture"):
        assert 0 <= results[f"{control}/edit_distance"] <= 1
    assert "rapidocr" in results or "rapidocr/exact" in results
    with Image.open(workdir / "scores" / "en_page_ocr" / "1.png") as page:
        assert page.size == (16, 20)
    lines = (workdir / "scores" / "en_page_ocr.jsonl").read_text().splitlines()
    assert [json.loads(line)["answers"] for line in lines] == [["abc 0"], ["abc 1"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "writes words: name --pages"),
        (["--pages=nowhere"], "nowhere does not exist"),
        (["--pages=scans/bad.png", "--tokenizer=nowhere"], "nowhere/tokenizer.json cannot be read"),
        (["--pages=scans/bad.png", "--beams=2", "--temperature=1"], "a beam search draws nothing"),
    ],
)
@pytest.mark.slow
def test_mistakes_end_in_one_line(workdir, flags, message):
    flags = [flag.replace("scans", f"{workdir}/scans") for flag in flags]
    done = run("generate.py", f"--model={workdir}/model", f"--output={workdir}/none", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("evaluate_documents.py", ["--benchmark=docvqa", "--max_questions=3"], "max_questions is not"),
        ("evaluate_benchmarks.py", ["--benchmark=davis", "--tokenizer=x", "--fold=1"], "fold is not"),
        ("evaluate_benchmarks.py", ["--benchmark=pascal5i", "--tokenizer=x", "--held_out=x"], "held_out"),
    ],
)  # fmt: skip
def test_a_flag_that_this_benchmark_does_not_read_is_refused(tmp_path, script, words, said):
    done = run(script, *words, "--model=x", "--data=x", f"--output={tmp_path}")
    assert (done.returncode, f"error: --{said}" in done.stderr) == (2, True), done.stderr
