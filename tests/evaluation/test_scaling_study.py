"""A scaling study's numbers are those of its runs, and its page shows those numbers."""

import json

import numpy as np
import pytest

from lvm_jax.config import to_dict
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.scaling_study import fits, mean_over_seeds, read_run
from lvm_jax.models import presets
from lvm_jax.reporting.scaling_page import charts, limits, write_page

WIDTHS, STEPS = (32, 64, 128), (250, 500, 1000)
BATCH = 4 * 512
FLOOR = {"d32": 1.2, "d64": 1.1, "d128": 1.0}


def loss_of(size, steps, seed=0):
    return FLOOR[size] * 9.0 * (steps * BATCH) ** -0.08 + 0.01 * seed


def write_run(folder, size, steps, seed=0, mixture="all"):
    """What a training leaves behind, with a loss that is a power law of the tokens."""
    width = int(size[1:])
    model = presets.llama(
        "quickstart", hidden_size=width, intermediate_size=2 * width, num_attention_heads=2
    )
    config = {
        "model": to_dict(model),
        "data": {"seq_len": 512},
        "train": {"steps": steps, "batch_size": 4},
    }
    loss = loss_of(size, steps, seed) + (mixture != "all")
    scores = {
        "next_token/loss": loss,
        "next_token/sentences": 352,
        "next_token/tokens": 166814,
        "next_token/baseline/unigram_entropy": 5.65,
        "next_token/baseline/copy_loss": 4.68,
        "next_token/category/unlabelled_image/code_loss": loss + 2,
        "next_token/category/unlabelled_video/code_loss": loss - 0.3,
        "annotations/shots": 3,
        "annotations/depth/mean_example_perplexity": np.exp(loss),
        "annotations/depth/corpus_perplexity": 1.0,
        "annotations/edges/mean_example_perplexity": 3 * np.exp(loss),
        **{
            f"in_context/sequential/context_{c}/mean_example_perplexity": (40 - 10 * (c > 0) - c) * loss
            for c in (0, 1, 2, 10)
        },
    }  # fmt: skip
    lines = [
        {"step": s, "time": 0.0, "train/loss": loss_of(size, s) + 0.05 * np.sin(s)}
        for s in range(10, steps + 1, 10)
    ]
    lines.append({"step": steps} | {f"evaluation/{name}": v for name, v in scores.items()})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def record(folder, size, steps, seed=0, mixture="all"):
    write_run(folder / f"{size}-{steps}-{mixture}-{seed}", size, steps, seed, mixture)
    about = {"size": size, "steps": steps, "mixture": mixture, "seed": seed, "passes": steps / 600}
    return about | read_run(folder / f"{size}-{steps}-{mixture}-{seed}")


@pytest.fixture
def study(tmp_path):
    runs = [record(tmp_path / "runs", size, steps) for steps in STEPS for size in FLOOR]
    runs += [record(tmp_path / "runs", "d128", 1000, mixture=m) for m in ("videos", "images")]
    means = mean_over_seeds(runs)
    study = {"records": means, "fits": fits(means), "images": {}, "runs": runs}
    (tmp_path / "scaling.json").write_text(json.dumps(study))
    return tmp_path, study


def test_a_run_is_read_from_its_own_files(tmp_path):
    found = record(tmp_path, "d128", 500)
    assert found["tokens"] == 500 * BATCH
    # 6 FLOPs a weight of a product, and causal attention
    weights = 4 * (4 * 128**2 + 3 * 128 * 256)
    looking_back, of_heads = 2 * 128**2, 2 * 4 * 64
    assert found["parameters"] == weights + looking_back + (2 * 4 + 1) * 128 + of_heads
    products = weights + looking_back + 612 * 128 + 4 * 128 * 512
    assert found["flops"] == 6 * products * found["tokens"]
    assert found["loss"] == loss_of("d128", 500)
    assert list(found["frames"]) == ["0", "1", "2", "10"]  # as numbers, not as texts
    assert found["perplexity"]["next frame"] == found["frames"]["10"]
    assert set(found["perplexity"]) == {"depth", "edges", "next frame"}
    assert found["train"]["tokens"][:2] == [10 * BATCH, 20 * BATCH]
    (tmp_path / "d128-500-all-0" / "metrics.jsonl").write_text('{"step": 10, "train/loss": 3}\n')
    with pytest.raises(UserError, match="holds no finished training with its evaluation"):
        read_run(tmp_path / "d128-500-all-0")


def test_fits_are_over_the_ends_of_the_runs(study):
    laws = study[1]["fits"]
    assert laws["tokens"]["d64"]["exponent"] == pytest.approx(0.08)
    assert laws["tokens"]["d64"]["points"] == 3
    assert laws["size"]["points"] == 3
    assert laws["size"]["exponent"] > 0
    assert ["d128", 1000] in laws["frontier"]
    assert ["d32", 250] in laws["frontier"]
    wasteful = study[1]["records"][-1] | {"mixture": "all", "flops": 1e15, "loss": 4.0}
    assert fits([*study[1]["records"], wasteful])["compute"] == laws["compute"]
    two = [r for r in study[1]["records"] if r["steps"] > 250]
    assert fits(two)["tokens"]["d64"] is None  # two points are no fit


def test_seeds_become_a_mean_and_a_spread(tmp_path):
    runs = [record(tmp_path, "d32", 250, seed) for seed in (0, 1, 2)]
    (mean,) = mean_over_seeds(runs)
    assert mean["loss"] == pytest.approx(loss_of("d32", 250, 1))
    assert mean["loss_spread"] == pytest.approx(0.01)
    assert mean["perplexity"]["depth"] == pytest.approx(
        np.mean([r["perplexity"]["depth"] for r in runs])
    )
    assert "3 seeds a run" in " ".join(limits({"records": [mean]}))


def test_charts_draw_the_numbers_of_the_runs(study):
    drawn = {name: picture for name, (picture, _) in charts(study[1]).items()}
    dots = {line.label: line for line in drawn["tokens"].series if line.label}
    assert dots["d64"].y == [loss_of("d64", steps) for steps in STEPS]
    fit = drawn["compute"].series[-1]
    assert fit.line == "--"
    law = study[1]["fits"]["compute"]
    assert fit.y[-1] == pytest.approx(law["coefficient"] * law["last"] ** -law["exponent"])
    tasks = {line.label: line.y for line in drawn["tasks"].series}
    assert tasks["depth"] == pytest.approx([np.exp(loss_of(size, 1000)) for size in FLOOR])
    assert drawn["ablation"].groups == ["depth", "edges", "next frame"]
    assert [label for label, _ in drawn["ablation"].series] == ["videos only", "images only", "everything"]  # fmt: skip
    bars = dict(drawn["ablation"].series)
    assert bars["everything"][0] == pytest.approx(np.exp(loss_of("d128", 1000)))
    assert bars["videos only"][0] == pytest.approx(np.exp(loss_of("d128", 1000) + 1))
    assert drawn["frames"].series[0].x == [0, 1, 2, 10]


def test_the_page_is_self_contained_and_says_what_small_means(study):
    folder, numbers = study
    page = write_page(folder).read_text()
    assert page.count("<svg") == 5
    assert not any(word in page for word in ("http-equiv", "<script", 'src="h', 'href="h'))
    for words in (
        "a factor of",
        "One seed a run",
        "352 sentences, 166,814 tokens",
        "passed 1.67 times",
        "0.0800 ±",
    ):
        assert words in page, words
    pngs = sorted(path.name for path in (folder / "figures").iterdir())
    assert pngs == ["ablation.png", "compute.png", "frames.png", "tasks.png", "tokens.png"]
    numbers["records"][0]["loss"] = 7.7777
    (folder / "scaling.json").write_text(json.dumps(numbers))
    assert "7.78" in write_page(folder).read_text()
