"""The whole way, small: every command of the quickstart, interrupted and repeated; and the reader's own folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
TIMES = ("time", "tokens_per_second", "images_per_second", "mfu", "goodput", "badput")


# Compiled as a user's commands are, and not in haste as the suite's programs (tests/conftest.py).
AS_A_USER = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-W", "ignore", *words]


def run(*words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command(*words), cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def refused(*words: str) -> str:
    """Runs a command that must end with one line on stderr and exit code 2."""
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr[-3000:]
    return lines[0]


def numbers(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(TIMES)} for line in lines
    ]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    w = tmp_path_factory.mktemp("quickstart")
    run("experiments/quickstart.py", "--tiny", f"--workdir={w}", env=AS_A_USER)
    return w


@pytest.mark.slow
def test_everything_is_there(workdir):
    report = (workdir / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= 3
    assert not re.search(r"(src|href)=.?https?://", report), "the report is self-contained"
    results = json.loads((workdir / "evaluation" / "results.json").read_text())
    assert {"reconstruction", "next_token", "in_context"} <= set(results)
    assert (workdir / "prompts" / "prompts.json").exists()
    (manifest,) = (workdir / "shards").rglob("manifest.json")
    categories = {
        source["category"] for source in json.loads(manifest.read_text())["sources"].values()
    }
    assert categories == {1, 2, 3, 4, 5}


@pytest.mark.slow
def test_the_unified_chain(tmp_path):
    run("experiments/quickstart.py", "--system=unified", "--tiny", f"--workdir={tmp_path}")
    report = (tmp_path / "report.html").read_text()
    assert "Does it use its examples?" in report
    assert report.count("data:image/png;base64,") >= 6
    for name in ("pictures", "words"):
        results = json.loads((tmp_path / "evaluation" / name / "results.json").read_text())
        assert {"model/miou", "turned/miou"} <= set(results["segmentation"])
        assert {"model/cider_d", "frequent/cider_d"} <= set(results["captioning"])


def test_a_command_that_changed_repeats_all_behind_it():
    code = (
        "import sys; sys.path.insert(0, 'experiments'); from quickstart import lvm_commands, unfinished; "
        "chain = lvm_commands('W', False, None); done = {c.name: {'command': c.line} for c in chain}; "
        "print([c.name for c in unfinished(chain, done)]); done['decoder'] = {'command': 'an older one'}; "
        "print([c.name for c in unfinished(chain, done)])"
    )
    assert run("-c", code).splitlines() == [
        "[]", "['decoder', 'evaluation', 'prompts', 'report']",
    ]  # fmt: skip


def test_a_folder_may_have_spaces_in_its_name(tmp_path):
    w = tmp_path / "my runs"
    code = (
        "import sys; sys.path.insert(0, 'experiments'); import quickstart; from lvm_jax import cli; "
        "show = '-c \"import sys; print(sys.argv[1:])\" --output={}/shards'; "
        "quickstart.CHAINS['vary'] = lambda w, *_: [quickstart.Command('a', 'b', show.format(w))]; "
        f"sys.argv = ['quickstart', '--system=vary', '--workdir={w}']; cli.run(quickstart.main)"
    )
    w.mkdir()
    (w / "stages.json").write_text('{"left out now": {"command": "x", "seconds": 6000.0}}')
    said = run("-c", code).splitlines()
    assert f"['--output={w}/shards']" in said
    assert said[-1].startswith("all of it took 0.0 minutes")


@pytest.mark.slow
def test_a_second_run_does_nothing(workdir):
    before = (workdir / "lvm" / "metrics.jsonl").read_bytes()
    assert run("experiments/quickstart.py", "--tiny", f"--workdir={workdir}").count("(done,") == 7
    assert (workdir / "lvm" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_training_ends_with_the_same_numbers(workdir, tmp_path, number):
    words = [
        "experiments/train.py",
        "--config=experiments/configs/lvm.py:quickstart,runlocal",
        f"--workdir={tmp_path}",
        f"--config.data.shards={workdir}/shards",
    ]
    process = subprocess.Popen(command(*words), cwd=ROOT, env=AS_A_USER, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "checkpoints" / "3").exists():
        time.sleep(0.02)
    process.send_signal(number)
    process.wait()
    run(*words, env=AS_A_USER)
    assert numbers(tmp_path) == numbers(workdir / "lvm")
    weights = "model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (workdir / "lvm" / weights).read_bytes()


@pytest.mark.slow
def test_mistakes_get_one_line(workdir, tmp_path):
    train = ["experiments/train.py", f"--workdir={tmp_path}/lvm"]
    config = "--config=experiments/configs/lvm.py:quickstart,runlocal"
    shards = f"--config.data.shards={workdir}/shards"
    assert "data.shards is empty" in refused(*train, config)
    assert "stepps" in refused(*train, config, shards, "--config.train.stepps=3")
    assert "tensor" in refused(*train, config, shards, "--config.mesh.tensor=3")
    assert "4b" in refused(*train, "--config=experiments/configs/lvm.py:4b", shards)
    assert "vocab_size" in refused(
        *train, "--config=experiments/configs/lvm.py:debug,runlocal", shards
    )
    other = ["experiments/train.py", f"--workdir={workdir}/lvm", config, shards]
    assert "begun with another configuration" in refused(*other, "--config.train.seed=5")
    (tmp_path / "empty").mkdir()
    tokenizer = "--config=experiments/configs/tokenizer.py:quickstart,runlocal"
    assert "holds no image" in refused(
        "experiments/train.py",
        tokenizer,
        f"--workdir={tmp_path}/tokenizer",
        f"--config.data.images={tmp_path}/empty",
    )
    assert not (tmp_path / "lvm" / "checkpoints").exists(), "nothing half-written is left"


@pytest.mark.slow
def test_shards_cut_short_or_of_another_tokenizer(workdir, tmp_path):
    (shard,) = (workdir / "shards").rglob("*-validation.tfrecord-*-of-00001")
    copy = tmp_path / shard.parent.parent.name / shard.parent.name
    copy.mkdir(parents=True)
    for path in shard.parent.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    cut = copy / shard.name
    cut.write_bytes(cut.read_bytes()[:-100])
    config = "--config=experiments/configs/lvm.py:quickstart,runlocal"
    message = refused(
        "experiments/train.py",
        config,
        f"--workdir={tmp_path}/lvm",
        f"--config.data.shards={tmp_path}",
    )
    assert "cut short" in message
    assert shard.name in message


@pytest.mark.slow
def test_the_readers_own_folder(tmp_path):
    """Photographs in three formats, one of them broken; trained, turned into shards, verified."""
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, suffix in enumerate(["jpg", "png", "webp"] * 10):
        smooth = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize((80, 60), Image.Resampling.BICUBIC).save(
            photos / f"{i:02d}.{suffix}"
        )
    broken = photos / "04.png"
    broken.write_bytes(broken.read_bytes()[:200])
    run(
        "experiments/train.py",
        "--config=experiments/configs/tokenizer.py:quickstart,runlocal",
        f"--workdir={tmp_path}/tokenizer",
        f"--config.data.images={photos}",
    )
    model = f"--tokenizer={tmp_path}/tokenizer/model"
    run(
        "-m",
        "data_pipelines.build_uvd",
        "--config=data_pipelines/configs/images_and_videos.py:runlocal",
        f"--config.images={photos}",
        model,
        f"--output={tmp_path}/shards",
    )
    run(
        "-m",
        "data_pipelines.verify",
        f"--shards={tmp_path}/shards",
        model,
        f"--page={tmp_path}/page.png",
    )
    with Image.open(tmp_path / "page.png") as page:
        assert page.size[0] > 100
