"""A release of LVM, and of any system: what is stored, what it costs, what its card says, and what is refused."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from lvm_jax.demo.found import find_tabs
from lvm_jax.demo.lvm.models import find_models
from lvm_jax.errors import UserError
from lvm_jax.inference.defaults import Defaults
from lvm_jax.models import VQGAN, Llama, presets
from lvm_jax.release import folder as release_folder
from lvm_jax.release.card import CardParts, model_card
from lvm_jax.release.lvm import LvmRun, Measured
from lvm_jax.release.pack import pack
from lvm_jax.release.sheet import draw
from lvm_jax.release.stored import StoredTypes
from lvm_jax.release.systems import open_run
from lvm_jax.reporting.figures import PREDICTION, TRUTH
from lvm_jax.weights.model_folder import read_tensors, rounded

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "digits"), [("bfloat16", 8), ("float16", 11), ("float32", 24)])
def test_models_are_stored_in_a_type_and_read_back(tmp_path, dtype, digits):
    vqgan = VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0))
    model = Llama(presets.llama("debug"), rngs=nnx.Rngs(0))
    for original in (vqgan, model):
        folder = tmp_path / type(original).__name__
        original.save_pretrained(folder, dtype=dtype)
        assert {str(t.dtype) for t in read_tensors(folder).values()} == {dtype}
        loaded = type(original).from_pretrained(folder)
        pairs = list(
            zip(
                *(nnx.to_flat_state(nnx.state(m, nnx.Param)) for m in (original, loaded)),
                strict=True,
            )
        )
        for (_, a), (_, b) in pairs:
            assert b[...].dtype == np.float32
            np.testing.assert_allclose(b[...], a[...], rtol=2.0**-digits, atol=1e-7)
        same = all(np.array_equal(a[...], b[...]) for (_, a), (_, b) in pairs)
        assert same == (dtype == "float32")
    assert json.loads((tmp_path / "Llama/config.json").read_text())["torch_dtype"] == dtype


def test_weights_that_the_type_cannot_hold_are_refused():
    with pytest.raises(
        UserError, match=r"x has a weight of 7e\+04: float16 holds at most 6.55e\+04"
    ):
        rounded({"x": np.array([1.0, -7e4], np.float32)}, "float16")
    with pytest.raises(UserError, match="dtype is 'int8': weights are stored as float32"):
        rounded({}, "int8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_written(dtype, value):
    with pytest.raises(
        UserError, match=r"x has a weight of (nan|inf): save the model of an earlier"
    ):
        rounded({"x": np.array([1.0, value], np.float32)}, dtype)


@pytest.fixture(scope="module")
def finished(workdir, picture, tmp_path_factory):
    """A workdir as the quickstart leaves it, with made-up scores."""
    run = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(workdir, run)
    (run / "corpus").mkdir()
    for i in range(3):
        (run / "corpus" / f"{i}.png").write_bytes(picture(i))
    (run / "corpus/validation.txt").write_text("0.png\n1.png\n")
    (run / "corpus/LICENSES.md").write_text("0.png: CC0-1.0\n")
    Defaults(temperature=0.5, candidates=6).save(run / "lvm/model")
    for part in ("tokenizer", "lvm"):
        (run / part / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
        (run / part / "config.json").write_text('{"train": {"steps": 7, "batch_size": 3}}')
    first = run / "lvm_first"
    first.mkdir()
    (first / "config.json").write_text('{"train": {"steps": 9, "batch_size": 2}}')
    begun = {"init_from": str(first / "model"), "data": {"weights": "clips=2,x=1"}}
    (run / "lvm/config.json").write_text(
        json.dumps({"train": {"steps": 7, "batch_size": 3}} | begun)
    )
    (run / "evaluation").mkdir()
    (run / "evaluation/results.json").write_text(json.dumps(RESULTS))
    folder = run / "prompts" / "000-analogy-x"
    folder.mkdir(parents=True)
    for i in range(4):
        (folder / f"{i}.png").write_bytes(picture(i))
    names = [f"000-analogy-x/{i}.png" for i in range(4)]
    about = {
        "name": "000-analogy-x",
        "source": "x",
        "kind": "analogy",
        "roles": ["a", "b", "a", "b"],
    }
    scores = {"psnr": 10.0, "copy_psnr": 12.0, "token_accuracy": 0.1, "copy_token_accuracy": 0.2}
    prompts = [about | scores | {"prompt": names[:3], "truth": names[3:]}]
    (run / "prompts/prompts.json").write_text(json.dumps({"means": scores, "prompts": prompts}))
    return run


RESULTS = {
    "environment": {"python": "3"},
    "tokenizer": {"image_size": 16, "tokens_per_image": 4, "codebook_size": 9},
    "reconstruction": {
        "images": 3, "psnr": 20.5, "ssim": 0.5, "codebook_usage": 0.5, "code_perplexity": 4.0,
    },
    "next_token": {
        "sentences": 2, "code_loss": 3.25, "baseline/unigram_entropy": 4.5, "baseline/copy_loss": 4.25,
        "baseline/fitted_on": "train", "uniform_loss": 5.0, "source/very/weak/code_loss": 4.75,
        "source/very/weak/sentences": 1, "source/strong/code_loss": 1.0, "source/strong/sentences": 1,
    },
    "in_context": {},
    "controls": {
        "x: image -> mask/sentences": 8, "x: image -> mask/pairs": 3, "x: image -> mask/right": 1.25,
        "x: image -> mask/uses_query": 0.0, "x: image -> mask/uses_query_error": 0.0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "lvm"
    return output, pack(open_run(finished, "bfloat16"), output, name="Tiny")


def test_the_cost_is_measured(packed):
    _, (loss, psnr, codes) = packed
    assert loss.what == "decoder, nats a code, 4 sentences"
    assert psnr.what == "tokenizer, PSNR in dB, 2 images"
    assert psnr.before == psnr.after
    assert codes.after == 1
    assert 0 < abs(loss.after - loss.before) < 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_decoder_names_the_tokenizer_beside_it(finished, tmp_path, dtype):
    output = tmp_path / "lvm"
    pack(LvmRun(finished, StoredTypes("float32", dtype), Measured(images=2)), output, name="Tiny")
    vqgan = VQGAN.from_pretrained(output / "tokenizer")
    assert Llama.from_pretrained(output / "decoder").tokenizer_fingerprint == vqgan.fingerprint()


def test_the_card_is_written_from_the_run(packed):
    output, (loss, *_) = packed
    card = (output / "MODEL_CARD.md").read_text()
    for words in (
        "# Tiny",
        "| clips | unlabelled videos | 2 | 6 | CC0-1.0 | made up |",
        "- **lvm_first**: 9 steps of 2.",
        "- **lvm**: 7 steps of 3, beginning with the model of lvm_first. At the end train/loss 2.00. Settings: "
        "`weights clips=2,x=1`.",
        "| this decoder | 3.25 |",
        "| copying the previous image | 4.25 |",
        "20.5 dB PSNR",
        f"{loss.before:.5f} | {loss.after:.5f}",
        "on average on: very/weak.",
        "in some of: x.",
    ):
        assert words in card
    assert (output / "LICENSES.md").exists()
    assert card.splitlines()[2] == "The answer does not depend on the query in 1 of 1 task."
    assert card.count(card.splitlines()[2]) == 1
    assert "| x: image -> mask | 8 | 3 | 1.25 |" in card
    assert "| **missed** | x: image -> mask | uses_query at least 0.5 nats a code | 0 |" in card
    assert card.index("What is demanded of it") < card.index("## Load")


def test_its_prompts_and_models_are_found(packed, finished):
    output, _ = packed
    found = find_models(output.parent, [])
    (case,) = found.cases
    assert case.kind == "analogy"
    assert [len(case.prompt_PN), len(case.truth_IN)] == [3, 1]
    assert (
        found.vqgan.fingerprint()
        == VQGAN.from_pretrained(finished / "tokenizer/model").fingerprint()
    )
    assert "made up (CC0-1.0)" in found.data_words
    run = find_models("nowhere", ["nowhere", finished])
    assert run.model_words.startswith(str(finished))
    # Pairs lend each other their queries; clips have none.
    assert [case.source for case in run.cases] == ["pairs", "clips", "pairs", "clips"]
    assert (run.drawing.temperature, run.drawing.candidates) == (0.5, 6)
    assert list(run.others) == [run.cases[2], None, run.cases[0], None]
    assert found.others == [None]
    assert found.drawing.candidates == 6


def test_a_sheet_shows_answers_beside_truths(packed, tmp_path):
    output, _ = packed
    colours = set(map(tuple, draw(output.parent, "lvm").reshape(-1, 3).tolist()))
    assert {PREDICTION, TRUTH} <= colours
    with pytest.raises(UserError, match="vary has no release: name another folder or system"):
        draw(output.parent, "vary")
    with pytest.raises(UserError, match=r"--font=.*cannot be read"):
        draw(output.parent, "lvm", font=tmp_path)


def test_it_is_checked(packed, tmp_path):
    output, _ = packed
    copy = tmp_path / "lvm"
    shutil.copytree(output, copy)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=copy, check=True)
    release_folder.verify(copy)
    weights = copy / "decoder/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors is missing or differs from SHA256SUMS"):
        find_models(tmp_path, [])


def test_an_empty_list_of_checksums_checks_nothing(tmp_path):
    (tmp_path / "lvm").mkdir()
    (tmp_path / "lvm/SHA256SUMS").write_text("")
    with pytest.raises(UserError, match=r"SHA256SUMS lists 0 files: fetch the release again"):
        release_folder.find(tmp_path, "lvm")


@pytest.mark.parametrize("workdir", [".", "out"])
def test_only_paths_of_the_workdir_are_shortened_in_commands(workdir):
    line = f"experiments/train.py --output={workdir}/a --config.data.x={workdir} --font=z.{workdir}"
    parts = CardParts(
        *("headline", "what", [], "load", {}, {}),
        *({"read": {"seconds": 3.0, "command": line}}, workdir, {}, [], []),
    )
    shown = f"`experiments/train.py --output=W/a --config.data.x=W --font=z.{workdir}`"
    assert f"| read | 3.00 | {shown} |" in model_card("x", parts, [])


def test_an_archive_that_was_stopped_is_not_there(packed, tmp_path, monkeypatch):
    output, _ = packed

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "addfile", stopped)
    with pytest.raises(KeyboardInterrupt):
        release_folder.write_archive(output, tmp_path / "new/a.tar.gz", "lvm")
    assert not list((tmp_path / "new").iterdir())


def test_the_archive_depends_on_the_files_alone(packed, tmp_path):
    output, _ = packed
    first, second = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    digests = [release_folder.write_archive(output, path, "lvm") for path in (first, second)]
    assert digests[0] == digests[1]
    with tarfile.open(first) as tar:
        tar.extractall(tmp_path, filter="data")
    release_folder.verify(tmp_path / "release/lvm")


def test_the_lines_of_its_card_load_it(packed, run_card, picture):
    output, _ = packed
    images = {f"{i}.png": picture(i) for i in (1, 2)}
    assert len(run_card(output, images)["images"]) == 1


def test_what_is_refused(packed, finished, tmp_path, monkeypatch):
    output, _ = packed
    run = LvmRun(finished, StoredTypes("float16"))
    with pytest.raises(UserError, match="exists: remove it"):
        pack(run, output, name="x")
    with pytest.raises(UserError, match="has none of lvm, two and unified: name the workdir"):
        open_run(tmp_path, "float16")
    (tmp_path / "lvm").mkdir()
    with pytest.raises(UserError, match=r"does not exist: run experiments/train.py first"):
        open_run(tmp_path, "float16")
    with pytest.raises(UserError, match=r"--licences=none.md is no file"):
        pack(run, tmp_path / "new", name="x", licences="none.md")
    monkeypatch.setattr(release_folder, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"the release has .* MB: at most 0 MB"):
        pack(run, tmp_path / "new", name="x")
    assert not release_folder.exists(tmp_path / "new")
    with pytest.raises(UserError, match=r"no trained model in .*: run `make quickstart` first"):
        find_tabs(tmp_path / "new", [tmp_path])


def test_the_releases_of_this_repository_are_whole():
    folders = sorted(path.name for path in (ROOT / "release").iterdir())
    assert "lvm" in folders
    assert set(folders) <= {"lvm", "vary", "unified"}
    assert all(release_folder.find(ROOT / "release", name) for name in folders)
    size = sum(path.stat().st_size for path in (ROOT / "release").rglob("*") if path.is_file())
    assert size < 100_000_000


def test_the_quickstart_asks_the_released_models_too(packed, tmp_path):
    output, _ = packed
    code = (
        "import sys; sys.path.insert(0, 'experiments'); import quickstart; from absl import flags; "
        f"flags.FLAGS(['x', '--release={output.parent}', *sys.argv[1:]]); "
        "print(*[s.name for s in quickstart.lvm_commands('W', False, quickstart._release())])"
    )

    def names(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert names()[-4:] == ["prompts", "released", "compared", "report"]
    assert names("--tiny")[-2:] == ["prompts", "report"]
