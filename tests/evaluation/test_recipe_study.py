"""A recipe study gives all its variants equally much, does nothing twice, and its numbers are those of its runs."""

import contextlib
import dataclasses
import json
import shlex
import statistics

import pytest
from ml_collections import ConfigDict

from experiments.configs import recipe_study as recipes
from lvm_jax import cli
from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.evaluation.recipe_results import collect
from lvm_jax.evaluation.recipe_study import (
    Run,
    Study,
    run_commands,
    speed_commands,
    study_runs,
)
from lvm_jax.evaluation.study_commands import Command, is_done, run_missing
from lvm_jax.reporting.recipe_page import write_page

STUDY = Study(
    seeds=(0, 1, 2),
    equal="items",
    budget=4096,
    seconds=30.0,
    speed_steps=11,
    items_per_step=("train.batch_size", "data.seq_len"),
    follow_steps=("optimizer.decay_steps",),
    common={
        "recipe": "lvm.py:quickstart",
        "train": {"batch_size": 4},
        "data": {"seq_len": 64, "shards": "a folder"},
    },
    variants={
        "muon": {"optimizer": {"kind": "muon"}},
        "plain": {},
        "rows": {"recipe": "lvm.py:small", "data": {"seq_len": 128}},
    },
    base="plain",
    exported="model",
    evaluate={"images": "b folder"},
    columns=(("loss", "next_token/loss"), ("uses_query", "controls/*/uses_query")),
    tables=(("By task", "controls/*/uses_query"),),
)


def test_all_variants_read_equally_much_and_a_run_says_how(tmp_path):
    runs = study_runs(STUDY, tmp_path)
    assert [run.variant for run in runs] == ["plain", "muon", "rows"] * 3
    assert [run.seed for run in runs] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {run.variant: run.steps for run in runs} == {"plain": 16, "muon": 16, "rows": 8}
    alone = dataclasses.replace(STUDY, evaluate={})
    (command,) = run_commands(alone, Run("rows", 2, 8), tmp_path)
    assert shlex.split(command.line) == [
        "experiments/train.py",
        "--config=lvm.py:small",
        f"--workdir={tmp_path}/runs/rows-s2",
        "--config.train.batch_size=4",
        "--config.data.seq_len=128",
        "--config.data.shards=a folder",
        "--config.train.steps=8",
        "--config.train.seed=2",
        "--config.optimizer.decay_steps=8",
    ]
    assert not speed_commands(STUDY, tmp_path)


def test_an_evaluation_follows_a_training(tmp_path):
    study = dataclasses.replace(STUDY, exported="tokenizer")
    train, evaluate = run_commands(study, Run("plain", 0, 16), tmp_path)
    folder = f"{tmp_path}/runs/plain-s0"
    assert train.name != evaluate.name
    assert evaluate.words == (
        "experiments/evaluate.py",
        f"--tokenizer={folder}/model",
        f"--output={folder}/evaluation",
        "--images=b folder",
    )


def test_equal_time_follows_from_the_measured_speed(tmp_path):
    study = dataclasses.replace(STUDY, equal="time")
    commands = speed_commands(study, tmp_path)
    assert [command.name for command in commands] == ["plain-speed", "muon-speed", "rows-speed"]
    assert "--config.train.steps=11" in commands[0].words
    assert not any("decay_steps" in word for word in commands[0].words)
    with pytest.raises(UserError, match="plain-speed has no timed training"):
        study_runs(study, tmp_path)
    for name, seconds in {"plain": 5.0, "muon": 10.0, "rows": 20.0}.items():
        folder = tmp_path / "runs" / f"{name}-speed"
        folder.mkdir(parents=True)
        (folder / "goodput.json").write_text(json.dumps({"training": seconds, "compile": 99.0}))
        (folder / "config.json").write_text('{"train": {"steps": 11}}')
    steps = {run.variant: run.steps for run in study_runs(study, tmp_path)}
    assert steps == {"plain": 60, "muon": 30, "rows": 15}  # 30 s at 0.5, 1 and 2 s a step


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"base": "none"}, "config.base is 'none'"),
        ({"common": {"train": {"batch_size": 4}}}, r"config\.common\.recipe is missing"),
        ({"tables": (("t", "controls/uses_query"),)}, "one \\* stands for the task"),
        ({"evaluate": {"images": ""}}, r"config\.evaluate\.images is empty"),
        ({"speed_steps": 2}, "speed_steps at least 3"),
    ],
)
def test_a_study_that_cannot_be_made_is_refused(changed, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(STUDY, **changed)


def test_items_that_a_step_does_not_divide_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"gives 'rows' 4352.* 512: .* the next that it does is 4608"
    ):
        study_runs(dataclasses.replace(STUDY, budget=4352), tmp_path)
    common = {**STUDY.common, "train": {}}
    with pytest.raises(UserError, match=r"config\.common\.train\.batch_size is missing"):
        study_runs(dataclasses.replace(STUDY, common=common), tmp_path)


def loss_of(run: Run) -> float:
    return {"plain": 4.0, "muon": 3.5, "rows": 4.25}[run.variant] + (0.125, 0.375, 0.25)[run.seed]


def write_runs(workdir) -> list[Run]:
    """What trainings and evaluations leave behind."""
    runs = study_runs(STUDY, workdir)
    for run in runs:
        folder = workdir / "runs" / run.name
        (folder / "model").mkdir(parents=True)
        (folder / "evaluation").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        (folder / "goodput.json").write_text(json.dumps({"training": 10.0 + run.seed}))
        lines = [
            {"step": 1, "evaluation/next_token/loss": 9.0, "train/loss": 2.0},
            {"step": 16, "evaluation/next_token/loss": 8.0},
            {"step": 16, "evaluation/controls/s: image -> depth/uses_query": 0.5 * run.seed},
        ]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        results = {
            "next_token": {"loss": loss_of(run)},
            "controls": {"s: image -> edges/uses_query": 1.0, "note": "text"},
        }
        (folder / "evaluation" / "results.json").write_text(json.dumps(results))
    return runs


def test_means_errors_and_differences_are_over_seeds(tmp_path):
    found = collect(STUDY, write_runs(tmp_path), tmp_path)
    plain, muon, rows = found["variants"]
    assert [v["variant"] for v in (plain, muon, rows)] == ["plain", "muon", "rows"]
    losses = [loss_of(Run("muon", seed, 16)) for seed in range(3)]
    error = statistics.stdev(losses) / 3**0.5
    assert muon["numbers"]["next_token/loss"] == pytest.approx(
        {"mean": 3.75, "error": error, "seeds": 3}
    )
    # Seeds move both alike: their difference has no error.
    difference = muon["beside"]["next_token/loss"]
    assert difference == {"mean": -0.5, "error": 0.0, "seeds": 3}
    assert (muon["seeds"], muon["steps"], muon["items"]) == (3, 16, 4096)
    assert (rows["steps"], rows["items"], rows["seconds"]) == (8, 4096, 11.0)
    tasks = {t: f"controls/{t}/uses_query" for t in ("s: image -> depth", "s: image -> edges")}
    assert found["tables"] == [("By task", tasks)]
    # The mean over both tasks, 0, .5 and 1 by seed, and 1: the older file of a number loses.
    assert plain["numbers"]["controls/*/uses_query"]["mean"] == pytest.approx(0.75)


def test_a_variant_may_read_a_share_and_milestones_say_when(tmp_path):
    study = dataclasses.replace(
        STUDY,
        shares={"muon": 0.5},
        milestones={"next_token/loss": 8.5, "train/loss": 1.0},
        columns=(
            ("steps", "steps_to/next_token/loss"),
            ("never", "reached/train/loss"),
            ("not known", "steps_to/train/loss"),
        ),
    )
    runs = study_runs(study, tmp_path)
    assert {run.variant: run.steps for run in runs} == {"plain": 16, "muon": 8, "rows": 8}
    write_runs(tmp_path)
    _, muon, _ = collect(study, runs, tmp_path)["variants"]
    assert muon["items"] == 2048
    # Not at step 1, where the loss was 9.
    assert muon["numbers"]["steps_to/next_token/loss"] == {"mean": 16.0, "error": 0.0, "seeds": 3}
    assert muon["numbers"]["reached/train/loss"]["mean"] == 0
    with pytest.raises(UserError, match="'other', which is no variant"):
        dataclasses.replace(STUDY, shares={"other": 0.5})


def test_a_variant_may_be_another_evaluated_otherwise(tmp_path):
    study = dataclasses.replace(
        STUDY,
        variants={**STUDY.variants, "asked": {}},
        trained_as={"asked": "rows"},
        asked={"asked": {"shots": 0}, "plain": {"shots": 1}},
        also={"unseen": {"split": "other"}},
        columns=(("loss", "next_token/loss"), ("unseen", "unseen/next_token/loss")),
        tables=(),
        milestones={"next_token/loss": 8.5},
    )
    runs = study_runs(study, tmp_path)
    assert [run.variant for run in runs[:4]] == ["plain", "muon", "rows", "asked"]
    assert (runs[3].steps, study.per_step("asked")) == (8, 512)
    assert [c.name for c in speed_commands(dataclasses.replace(study, equal="time"), tmp_path)] == [
        "plain-speed", "muon-speed", "rows-speed",
    ]  # fmt: skip
    first, other = run_commands(study, runs[3], tmp_path)
    assert first.words == (
        "experiments/evaluate.py",
        f"--model={tmp_path}/runs/rows-s0/model",
        f"--output={tmp_path}/runs/asked-s0/evaluation",
        "--images=b folder",
        "--shots=0",
    )
    assert other.words[2:] == (
        f"--output={tmp_path}/runs/asked-s0/evaluation-unseen",
        "--images=b folder",
        "--shots=0",
        "--split=other",
    )
    assert [c.name for c in run_commands(study, runs[0], tmp_path)] == [
        "plain-s0", "plain-s0-evaluation", "plain-s0-evaluation-unseen",
    ]  # fmt: skip
    write_runs(tmp_path)
    for place, run in enumerate(runs):
        for name, loss in {"evaluation": 1.0, "evaluation-unseen": 2.0}.items():
            folder = tmp_path / "runs" / run.name / name
            folder.mkdir(parents=True, exist_ok=True)
            results = {"next_token": {"loss": loss + place}}
            (folder / "results.json").write_text(json.dumps(results))
    found = collect(study, runs, tmp_path)
    assert found["runs"][3]["numbers"] == {"next_token/loss": 4.0, "unseen/next_token/loss": 5.0}
    assert found["runs"][3]["seconds"] == found["runs"][2]["seconds"]
    assert found["runs"][2]["curves"] == {"next_token/loss": [(1, 9.0), (16, 8.0)]}
    assert found["runs"][3]["curves"] == {}
    assert found["settings"]["asked"] == {"trained_as": "rows", "evaluated": {"shots": 0}}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"trained_as": {"muon": "plain"}}, "has 'muon', which is evaluated as 'plain' was"),
        ({"trained_as": {"none": "plain"}}, r"config\.trained_as has 'none', which is no variant"),
        ({"asked": {"none": {"shots": 0}}}, r"config\.asked has 'none', which is no variant"),
        ({"orders": (("o", "loss", "plain", "none"),)}, r"config\.orders has 'none', which is"),
        ({"also": {"u": {"x": 1}}, "evaluate": {}}, r"config\.evaluate is empty"),
    ],
)
def test_evaluations_that_cannot_be_made_are_refused(changed, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(STUDY, **changed)


@pytest.mark.parametrize("arg", ["decoder", "tokenizer,maps", "unified", "unified_context"])
def test_every_configured_study_is_one(arg, tmp_path):
    """Whole and shrunk; a study whose paths are named has commands for each variant."""
    for more in ("", ",runlocal"):
        config = recipes.get_config(arg + more).unlock()
        fill_paths(config)
        study = from_mapping(Study, config)
        runs = study_runs(dataclasses.replace(study, equal="items"), tmp_path)
        named = [command.name for run in runs for command in run_commands(study, run, tmp_path)]
        assert len(set(named)) == len(named) >= len(runs)


def fill_paths(config):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fill_paths(value)
        elif value == "":
            config[name] = "a folder"


def test_one_seed_has_no_error_and_an_unfinished_run_is_named(tmp_path):
    runs = write_runs(tmp_path)[:3]
    found = collect(STUDY, runs, tmp_path)
    assert found["variants"][0]["numbers"]["next_token/loss"]["error"] is None
    missing = dataclasses.replace(STUDY, columns=(("PSNR", "reconstruction/psnr"),))
    with pytest.raises(UserError, match="no run has the number 'reconstruction/psnr'"):
        collect(missing, runs, tmp_path)
    (tmp_path / "runs" / "muon-s0" / "evaluation" / "results.json").unlink()
    with pytest.raises(UserError, match="muon-s0 is not evaluated"):
        collect(STUDY, runs, tmp_path)
    training_alone = collect(dataclasses.replace(STUDY, evaluate={}), runs, tmp_path)
    assert training_alone["variants"][1]["numbers"]["next_token/loss"]["mean"] == 8.0
    (tmp_path / "runs" / "muon-s0" / "model" / "config.json").unlink()
    with pytest.raises(UserError, match="muon-s0 has no finished training"):
        collect(STUDY, runs, tmp_path)


def test_the_page_and_the_tables_show_the_numbers(tmp_path):
    found = collect(STUDY, write_runs(tmp_path), tmp_path)
    (tmp_path / "study.json").write_text(json.dumps(found))
    page, text = write_page(tmp_path).read_text(), (tmp_path / "study.md").read_text()
    assert "| muon | 3 | 16 | 4.1k | 11 | 3.75 ± 0.072 | 0.750 ± 0.14 |" in text
    assert "| muon | -0.500 ± 0 | 0 ± 0 |" in text
    assert "| variant | s: image -> depth | s: image -> edges |" in text
    assert "3 seeds each" in text
    assert "Every training read 4.1k items" in text
    for words in ("3.75 ± 0.072", "Difference to plain", "By task"):
        assert words in page
    assert not any(word in page for word in ("<script", 'src="h', 'href="h'))
    found["equal"] = "time"
    (tmp_path / "study.json").write_text(json.dumps(found))
    assert (
        "equal time by its measured speed: 11.0 to 11.0 seconds" in write_page(tmp_path).read_text()
    )


def test_a_number_that_some_seeds_lack_says_of_how_many_it_is(tmp_path):
    found = collect(STUDY, write_runs(tmp_path), tmp_path)
    muon = found["variants"][1]
    for part in ("numbers", "beside"):
        muon[part]["next_token/loss"]["seeds"] = 2
    (tmp_path / "study.json").write_text(json.dumps(found))
    write_page(tmp_path)
    text = (tmp_path / "study.md").read_text()
    assert "| muon | 3 | 16 | 4.1k | 11 | 3.75 ± 0.072 (2 of 3 seeds) | 0.750 ± 0.14 |" in text
    assert "| muon | -0.500 ± 0 (2 of 3 seeds) | 0 ± 0 |" in text


def test_a_command_is_done_once_and_a_stopped_one_again(tmp_path, monkeypatch):
    seen, stopped = [], []

    def run_python(line, lock):
        del lock
        seen.append(line)
        if stopped:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_python", run_python)
    commands = [Command(name, ("do.py", f"--in={tmp_path}/{name}")) for name in "ab"]

    def run():
        seen.clear()
        with cli.only_one_run(tmp_path) as lock, contextlib.suppress(KeyboardInterrupt):
            run_missing(commands, tmp_path, lock)
        return list(seen)

    stopped.append("now")
    assert run() == [f"do.py --in={tmp_path}/a"]
    assert not is_done(commands[0], tmp_path)
    stopped.clear()
    assert run() == [command.line for command in commands]
    assert run() == []
    commands[1] = Command("b", (*commands[1].words, "--more"))
    assert run() == [f"do.py --in={tmp_path}/b --more"]
    # The study's folder may move.
    there = tmp_path.rename(tmp_path.with_name("moved"))
    assert is_done(Command("a", ("do.py", f"--in={there}/a")), there)
    there.rename(tmp_path)
