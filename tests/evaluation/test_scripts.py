"""evaluate, generate and report, as a user runs them, on a tiny untrained run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CODES = 24
LAYOUTS = {"clips": ("frame*8", 3), "depth": ("image,depth,image,depth", 2), "photos": ("image", 1)}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, model, vqgan, write_shards) -> Path:
    root = tmp_path_factory.mktemp("run")
    vqgan.save_pretrained(root / "tokenizer" / "model")
    model.save_pretrained(root / "lvm" / "model")
    (root / "corpus").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "corpus" / f"{i}.png")
    for item in range(2):
        (root / "scenes" / str(item)).mkdir(parents=True)
        Image.new("RGB", (16, 16), (200, 200, 200)).save(root / "scenes" / str(item) / "depth.png")
    (root / "validation.txt").write_text("scenes/1\n")
    write_shards(root / "shards", LAYOUTS, vqgan.fingerprint())
    for part in ("tokenizer", "lvm"):
        lines = [json.dumps({"step": s, "time": 0.0, "train/loss": 3 - s / 9}) for s in (1, 2, 3)]
        (root / part / "metrics.jsonl").write_text("\n".join(lines))
    return root


def run(script: str, *flags: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "experiments" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def models(root: Path) -> list[str]:
    return [f"--tokenizer={root}/tokenizer/model", f"--model={root}/lvm/model"]


@pytest.mark.slow
def test_from_models_to_a_page(workdir):
    shards, output = f"--shards={workdir}/shards", workdir / "prompts"
    done = run(
        "evaluate.py", *models(workdir), shards, f"--images={workdir}/corpus", "--held_out_fraction=0.4",
        f"--output={workdir}/evaluation", "--shots=1", f"--maps={workdir}/scenes", "--probe_steps=2",
        "--answer_sentences=2", "--answer_controls",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((workdir / "evaluation" / "results.json").read_text())
    assert results["reconstruction"]["images"] == 2
    assert results["next_token"]["sentences"] == 9
    assert results["controls"]["depth: image -> depth/sentences"] == 3
    assert results["in_context"]["sequential/sentences"] == 3
    assert results["annotations"]["depth/examples"] == 3
    assert "annotation/depth/code_loss" in results["next_token"]
    assert results["codes"]["images"] == 2
    assert (results["probe"]["steps"], results["probe"]["questions"]) == (2, 10)
    assert results["ceilings"]["depth/maps"] == 1
    answers = {name.rpartition("/")[2] for name in results["answers"]}
    assert {"model", "copy", "nearest", "mean", "query", "control_shuffled"} <= answers
    assert results["answers"]["depth: image -> depth/metric"] == "absrel"
    text = (workdir / "evaluation" / "results.md").read_text()
    assert "| code_loss |" in text
    assert "Its answers score better than a copy" in text

    ask = ["generate.py", *models(workdir), shards, "--prompts=3", "--seed=1"]
    done = run(*ask, f"--output={output}")
    assert done.returncode == 0, done.stderr
    first = (output / "prompts.json").read_bytes()
    names = [prompt["name"] for prompt in json.loads(first)["prompts"]]
    assert names == ["000-analogy-depth", "001-sequential-clips", "002-analogy-depth"]
    strip = output / names[0] / "strip.png"
    kept = strip.stat().st_mtime_ns
    (output / names[1] / "prompt.json").unlink()  # as if it had been killed there
    assert run(*ask, f"--output={output}").returncode == 0
    assert (output / "prompts.json").read_bytes() == first
    assert strip.stat().st_mtime_ns == kept

    done = run("report.py", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    page = (workdir / "report.html").read_text()
    assert "Visual prompts" in page
    assert "are the codes easy to learn?" in page
    assert "Good, middling and bad answers" in page
    assert "depth: image -&gt; depth · absrel" in page
    assert "ceilings: maps encoded and decoded" in page


@pytest.mark.slow
def test_a_file_of_prompts_continues_after_a_stop(workdir, tmp_path):
    corpus, output = workdir / "corpus", tmp_path / "out"
    lines = [
        {"input": ["0.png", "1.png"], "target": ["2.png"]},
        {"input": ["3.png"], "output": "given/name.png"},
        {"pairs": [["0.png", "1.png"]], "query": "2.png"},
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps(line) for line in lines))
    ask = [
        "generate.py", *models(workdir), f"--prompt={prompts}", f"--prompt_base={corpus}", f"--output={output}",
        "--aspect=original", "--batch_size=2", "--cache_dtype=int8", "--min_p=0.01",
    ]  # fmt: skip
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    files = sorted(path for path in output.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    assert output / "given" / "name" / "prediction_1_0.png" in before
    with Image.open(output / "00000" / "prediction_0_0.png") as picture:
        assert picture.size == (16, 20)  # of the prompt's last image
    records = json.loads((output / "prompts.json").read_text())["prompts"]
    assert [record["name"] for record in records] == ["00000", "given/name", "00002"]
    assert "psnr" in records[0]
    (output / "00002" / "prompt.json").unlink()  # as if it had been killed there
    (output / "00002" / "strip.png").unlink()
    (output / "prompts.json").unlink()
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in files} == before
    prompts.write_text('{"pairs": [], "query": "0.png"}')
    done = run(*ask)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: prompts.jsonl line 1: the analogy")


@pytest.mark.slow
def test_a_task_on_class_folders(workdir, tmp_path):
    folder = tmp_path / "val" / "n01"
    folder.mkdir(parents=True)
    for file in (workdir / "corpus").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    ask = [
        "evaluate_benchmarks.py", *models(workdir), "--benchmark=colorization", f"--data={tmp_path / 'val'}",
        "--episodes=3", "--shots=2", "--controls", f"--output={tmp_path / 'out'}",
    ]  # fmt: skip
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "out" / "colorization.json").read_bytes()
    results = json.loads(first)["colorization"]
    assert results["episodes"] == 3
    assert results["copy/mse"] > 0
    for control in ("control_other_query", "control_shuffled"):
        assert results[f"{control}/mse"] > 0
        change = results[f"{control}/code_loss"] - results["model/code_loss"]
        assert results[f"{control}/code_loss_change"] == pytest.approx(change, abs=1e-5)
    page = (tmp_path / "out" / "colorization.html").read_text()
    pictures = sorted(path.name for path in (tmp_path / "out" / "colorization").iterdir())
    assert pictures == ["best_1.png", "middle_1.png", "worst_1.png"]
    assert page.count("data:image/png;base64,") == 3
    assert "the truth, encoded and decoded" in page
    assert "| tokenizer_ceiling/mse |" in (tmp_path / "out" / "colorization.md").read_text()
    assert run(*ask).returncode == 0
    assert (tmp_path / "out" / "colorization.json").read_bytes() == first
    done = run(*ask, "--benchmark=pascal5i")
    assert done.returncode == 2
    assert "point at the root of the data set" in done.stderr


@pytest.mark.slow
def test_prompts_from_files_and_mistakes_in_one_line(workdir, tmp_path):
    photo = [f"{workdir}/corpus/{i}.png" for i in range(5)]
    ask = ["generate.py", *models(workdir), f"--output={tmp_path / 'out'}"]
    mistakes = {
        "name one kind of prompt": [],
        "--pairs needs --query": [f"--pairs={photo[0]}:{photo[1]}"],
        "nowhere.png": ["--prompt_images=nowhere.png"],
        "at most 7 leave room": ["--prompt_images=" + ",".join([photo[0]] * 8)],
    }
    for words, flags in mistakes.items():
        done = run(*ask, *flags)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    done = run(*ask, f"--pairs={photo[0]}:{photo[1]}", f"--query={photo[2]}", "--temperature=0")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "prompts.json").read_text())["prompts"][0]
    assert record["roles"] == ["input", "answer", "input"]
    assert len(record["predictions"]) == 2
    done = run("report.py", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "experiments/train.py" in done.stderr


@pytest.mark.slow
def test_a_sampling_study_sets_how_answers_are_drawn(workdir, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(workdir / "lvm/model", model)
    both = [f"--tokenizer={workdir}/tokenizer/model", f"--model={model}"]
    shards, study = tmp_path / "shards", tmp_path / "study"
    shutil.copytree(workdir / "shards", shards)
    ask = [
        "sampling_study.py", *both, f"--shards={shards}", f"--output={study}", "--temperature=0.5", "--top_p=1",
        "--candidates=2", "--sentences=4", "--write_default", "--split=train",
    ]  # fmt: skip
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    results = json.loads((study / "results.json").read_text())
    assert set(results["tasks"]) == {"depth: image -> depth", "clips: next frame"}
    assert len(results["ranks"]) == 1 + 3
    assert "Best over all tasks" in (study / "results.md").read_text()
    assert (study / "generation.json").read_bytes() == (model / "generation.json").read_bytes()

    wanted = {"temperature": 0.9, "candidates": 3, "answer": "mean"}
    (model / "generation.json").write_text(json.dumps(wanted))
    prompts = [
        "generate.py",
        *both,
        f"--shards={shards}",
        "--prompts=1",
        f"--output={tmp_path}/out",
    ]
    for flags, candidates, answer, shown in (
        ((), 3, "mean", 1),
        (("--answer=each", "--candidates=2"), 2, "each", 2),
    ):
        done = run(*prompts, *flags)
        assert done.returncode == 0, done.stderr
        made = json.loads((tmp_path / "out/prompts.json").read_text())
        asked = made["request"]
        assert (asked["n_candidates"], asked["answer"]) == (candidates, answer)
        assert asked["sampling"]["temperature"] == 0.9
        assert len(made["prompts"][0]["predictions"]) == shown
    (model / "generation.json").write_text('{"temperature": -1}')
    done = run(*prompts)
    assert done.returncode == 2
    assert "generation.json: temperature is -1" in done.stderr


STUDY = f"""
from ml_collections import ConfigDict
from experiments.configs import scaling_study as scaling

def get_config(arg=None):
    config = scaling.get_config("quickstart,runlocal")
    config.steps = (2,)
    ids = {{"bos_token_id": {CODES}, "eos_token_id": {CODES + 1}, "pad_token_id": {CODES + 2}}}
    images = {{"tokens_per_image": 4, "look_back": 4}}
    config.common.model = ConfigDict({{"vocab_size": {CODES + 100}, **ids, **images}})
    config.common.data = ConfigDict({{"seq_len": 32}})
    return config
"""


@pytest.mark.slow
def test_a_scaling_study(workdir, tmp_path):
    config = tmp_path / "study.py"
    config.write_text(STUDY)
    ask = [
        "scaling_study.py",
        f"--config={config}",
        f"--shards={workdir}/shards",
        f"--workdir={tmp_path}",
    ]
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "scaling.json").read_text())
    of_run = {
        "-".join(map(str, (r["size"], r["steps"], r["mixture"]))): r for r in study["records"]
    }
    assert sorted(of_run) == [
        "d16-2-all", "d16-2-annotated", "d16-2-images", "d16-2-videos", "d32-2-all", "d64-2-all",
    ]  # fmt: skip
    for name, record in of_run.items():
        folder = tmp_path / "runs" / f"{name}-s0"
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [line.get("evaluation/next_token/loss") for line in lines]
        assert [loss for loss in losses if loss] == [record["loss"]]
    assert study["fits"]["size"]["points"] == 3
    assert study["fits"]["tokens"]["d16"] is None
    weights = json.loads((tmp_path / "runs/d16-2-videos-s0/config.json").read_text())["data"]
    kept = "category/unlabelled_image=0,category/annotated_image=0,category/unlabelled_video=32"
    assert weights["weights"] == kept
    model = tmp_path / "runs" / "d16-2-all-s0" / "model" / "config.json"
    trained = model.stat().st_mtime_ns
    (tmp_path / "scaling.html").unlink()
    assert run(*ask).returncode == 0
    assert (tmp_path / "scaling.html").exists()
    assert model.stat().st_mtime_ns == trained  # what is done is not done again
    done = run(*ask, "--dry_run")
    assert done.stdout.count("python experiments/train.py") == 6
    done = run(*ask, "--config.ablation_size=d17")
    assert done.returncode == 2
    assert "config.ablation_size is 'd17': the sizes are d16, d32, d64" in done.stderr


RECIPES = f"""
from ml_collections import ConfigDict
from experiments.configs import recipe_study as recipes

def get_config(arg=None):
    config = recipes.get_config("decoder,runlocal")
    config.budget = 2 * 2 * 32
    ids = {{"bos_token_id": {CODES}, "eos_token_id": {CODES + 1}, "pad_token_id": {CODES + 2}}}
    config.common.model.update({{"vocab_size": {CODES + 100}, **ids}})
    config.common.data.seq_len = 32
    config.variants.together.model.update({{"look_back": 4, "tokens_per_image": 4}})
    return config
"""


@pytest.mark.slow
def test_a_recipe_study(workdir, tmp_path):
    config = tmp_path / "study.py"
    config.write_text(RECIPES)
    ask = ["recipe_study.py", f"--config={config}", f"--workdir={tmp_path}"]
    done = run(*ask)
    assert done.returncode == 2
    assert "config.common.data.shards is empty" in done.stderr
    ask += [f"--config.common.data.shards={workdir}/shards"]
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "study.json").read_text())
    plain, together = study["variants"]
    assert (plain["variant"], together["variant"]) == ("plain", "together")
    assert (plain["steps"], plain["items"]) == (together["steps"], together["items"]) == (2, 128)
    assert "controls/depth: image -> depth/uses_query" in plain["numbers"]
    assert together["beside"]["next_token/after_first_image/code_loss"]["error"] is None
    assert "Difference to plain" in (tmp_path / "study.html").read_text()
    model = tmp_path / "runs" / "plain-s0" / "model" / "config.json"
    trained = model.stat().st_mtime_ns
    (tmp_path / "study.md").unlink()
    assert run(*ask).returncode == 0
    assert (tmp_path / "study.md").exists()
    assert model.stat().st_mtime_ns == trained  # what is done is not done again
    done = run(*ask, "--dry_run")
    assert done.stdout.count("python experiments/train.py") == 2


def write_video(path: Path, frames: int) -> None:
    """Frame n is grey 4 n; a key frame every 12, so that strides seek."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24, options={"g": "12"})
        stream.width = stream.height = 32
        for n in range(frames):
            picture = np.full((32, 32, 3), 4 * n % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


@pytest.mark.slow
def test_frame_prediction_on_class_folders_of_videos(workdir, tmp_path):
    for name, frames in (("climbing/a.mp4", 40), ("climbing/b.mp4", 60), ("diving/c.mp4", 10)):
        write_video(tmp_path / "val" / name, frames)
    (tmp_path / "val" / "diving" / "d.mp4").write_bytes(b"no video")
    ask = [
        "evaluate_videos.py", *models(workdir), f"--data={tmp_path / 'val'}", "--frames=4", f"--output={tmp_path}",
    ]  # fmt: skip
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "videos.json").read_bytes()
    results = json.loads(first)
    assert results["sequential/sentences"] == 2
    assert (results["too_short"], results["unreadable"]) == (1, 1)
    assert results["sequential/context_3/mean_example_perplexity"] > 1
    assert "sequential/context_4/mean_example_perplexity" not in results
    assert run(*ask).returncode == 0
    assert (tmp_path / "videos.json").read_bytes() == first
    done = run(*ask, "--frames=9")
    assert done.returncode == 2
    assert "error: --frames is 9: the model reads 8 images" in done.stderr
