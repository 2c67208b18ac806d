"""A real, small checkpoint, damaged in every way that a disk can."""

import re
import shutil

import jax
import numpy as np
import pytest
from linear_task import LinearBatches, LinearTask

from lvm_jax.errors import UserError
from lvm_jax.files import read_jsonl
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.training import digests
from lvm_jax.training.loop import TrainConfig, train

CONFIG = TrainConfig(steps=8, batch_size=8, log_every=4, eval_every=0, checkpoint_every=4)


def run(workdir):
    mesh = make_mesh(devices=jax.devices()[:1])
    return train(LinearTask(), LinearBatches(), CONFIG, mesh=mesh, workdir=workdir)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    state = run(workdir)
    return workdir, jax.device_get(jax.tree.leaves(state))


@pytest.fixture
def workdir(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "run")


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_byte_in_any_file_is_found_and_the_file_is_named(workdir):
    folder = workdir / "checkpoints" / "8"
    assert not digests.damaged(folder)
    assert len(files(folder)) > 10
    for path in files(folder):
        for position in {0, path.stat().st_size // 2, path.stat().st_size - 1}:
            if path.stat().st_size == 0:
                continue
            flip(path, position)
            found = digests.damaged(folder)
            assert found, (path, position)
            assert found[0].startswith(str(path.relative_to(folder))), (path, found)
            flip(path, position)
    assert not digests.damaged(folder)


def test_a_missing_and_a_short_file_are_named(workdir):
    folder = workdir / "checkpoints" / "8"
    data = folder / "data" / "metadata"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    assert digests.damaged(folder) == [
        f"data/metadata ({len(whole) - 1} bytes instead of {len(whole)})"
    ]
    data.unlink()
    assert digests.damaged(folder) == ["data/metadata (missing)"]
    (folder / digests.CONTENTS).unlink()
    assert "digests.txt (missing)" in digests.damaged(folder)


def test_the_shares_of_several_hosts_cover_every_file(workdir):
    folder = workdir / "checkpoints" / "8"
    for path in files(folder / "state"):
        if path.stat().st_size == 0:
            continue
        flip(path, 0)
        found = [digests.damaged(folder, part, 3) for part in range(3)]
        assert sorted(map(len, found)) == [0, 0, 1]
        flip(path, 0)


@pytest.mark.parametrize("where", ["state", "_CHECKPOINT_METADATA"])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_goes_on_from_the_one_before(
    workdir, trained, capsys, where
):
    damaged = workdir / "checkpoints" / "8" / where
    if damaged.is_dir():
        damaged = max(files(damaged), key=lambda path: path.stat().st_size)
    flip(damaged, damaged.stat().st_size // 2)
    state = run(workdir)
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "damaged" in line]
    assert re.match(
        rf"checkpoint 8 is damaged \(.*{damaged.name}.*going on from checkpoint 4", line
    )
    for a, b in zip(jax.tree.leaves(state), trained[1]):
        np.testing.assert_array_equal(a, b)
    assert (workdir / "damaged_checkpoints" / "8").is_dir()
    assert not digests.damaged(workdir / "checkpoints" / "8")  # saved anew
    lines = read_jsonl(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines if line.get("damaged_checkpoints") == 1] == [4]


def test_with_no_whole_checkpoint_nothing_is_moved_and_nothing_starts_afresh(workdir):
    for step in ("4", "8"):
        flip(workdir / "checkpoints" / step / "meta" / "metadata", 1)
    with pytest.raises(UserError, match=r"none of the checkpoints.*8: meta/metadata.*4: meta/meta"):
        run(workdir)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "8"]
