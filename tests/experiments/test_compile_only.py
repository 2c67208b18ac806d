"""Ahead-of-time compilation, with the TPU compiler where it is installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lvm_jax.recipes.base import LossConfig
from lvm_jax.training.train_config import TrainConfig

ROOT = pathlib.Path(__file__).parent.parent.parent
TINY = ["--config=experiments/configs/lvm.py:debug,runlocal", "--config.data.seq_len=256"]
TINY += ["--config.model.attention=xla", "--config.model.dtype=bfloat16"]


def compile_only(*flags):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "experiments/compile_only.py", *TINY, *flags]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_an_unknown_topology_is_one_line():
    done = compile_only("--topology=v5p:4x4")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: topology 'v5p:4x4' does not")


def test_the_largest_batch_divides_into_microbatches_that_divide_over_the_mesh(monkeypatch):
    spec = importlib.util.spec_from_file_location(
        "compile_only", ROOT / "experiments" / "compile_only.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    tried = []

    def report(task, config, mesh, chip):
        tried.append(config.batch_size)
        return SimpleNamespace(memory=SimpleNamespace(peak=config.batch_size * 1e9))

    monkeypatch.setattr(script, "report_step", report)
    config = SimpleNamespace(loss=LossConfig(accumulation=3))
    assert (script.microbatches(config), script.microbatches(SimpleNamespace())) == (3, 1)
    unit = 2 * script.microbatches(config)
    train = TrainConfig(steps=1, batch_size=12)
    assert script.largest_batch(None, train, None, SimpleNamespace(hbm_bytes=100e9), unit) == 96
    assert not [rows for rows in tried if rows % unit]


@pytest.mark.slow
@pytest.mark.skipif(
    "TPU_LIBRARY_PATH" not in os.environ and importlib.util.find_spec("libtpu") is None,
    reason="needs libtpu, the TPU compiler: pip install libtpu",
)
def test_a_tiny_decoder_compiles_for_sixteen_chips(tmp_path):
    path = tmp_path / "report.json"
    done = compile_only("--topology=v5e:4x4", "--config.train.batch_size=32", f"--output={path}")
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert (report["chips"], report["mesh"]["fsdp"]) == (16, 16)
    # 'xla' computes the attention that the causal mask throws away, and a little more.
    assert 1.05 < report["compiled_flops"] / report["model_flops"] < 1.35
    assert report["collectives_per_chip"]["all-gather"]["payload_bytes"] > 0
    assert 0 < report["memory_bytes_per_chip"]["peak"] < 2**30
    assert report["predicted_seconds"]["step"] > 0
    odd = compile_only("--topology=v5e:4x4", "--config.train.batch_size=24")
    assert odd.stderr.strip().splitlines()[-1].startswith("error: batch of 24 does not divide")
