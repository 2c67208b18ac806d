"""Vary's quickstart, small: every command, its page, and nothing done twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def quickstart(workdir: Path) -> str:
    words = ["experiments/quickstart.py", "--system=vary", "--tiny", f"--workdir={workdir}"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_command_runs_once_and_the_page_shows_what_was_read(tmp_path):
    quickstart(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "What it should reach" in page
    assert page.count("data:image/png;base64,") >= 4, (
        "pictures of lines, charts, shapes, photographs"
    )
    assert "bit for bit as the first stage left it" in page
    assert "0 of 47 tensors changed" in page
    scores = json.loads((tmp_path / "evaluation" / "two" / "results.json").read_text())
    assert {"lines", "charts", "shapes"} <= set(scores)
    before = (tmp_path / "two" / "metrics.jsonl").read_bytes()
    assert quickstart(tmp_path).count("(done,") == 10
    assert (tmp_path / "two" / "metrics.jsonl").read_bytes() == before
