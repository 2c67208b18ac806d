"""What benchmarks require before they time anything."""

import pathlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lvm_jax.errors import UserError

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"  # its scripts import each other by name


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])


def test_equal_arrays_pass_and_others_name_the_difference(capsys):
    from agreement import require_equal

    require_equal("sums", [1.0, -4.0], np.array([1.0, -4.0004]), within=1e-3)
    assert "sums: equal within 1.0e-04 of the largest value, 2 numbers" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"ids: the two sides differ by 1\.0e\+00 of the largest"):
        require_equal("ids", [[3, 0]], [[3, 3]])
    with pytest.raises(UserError, match=r"ids: the shapes are \(1,\) and \(2,\)"):
        require_equal("ids", [3], [3, 3])


@pytest.mark.parametrize("broken", [[np.nan, 1.0], [np.inf, 1.0]])
def test_numbers_that_are_not_finite_agree_with_nothing(broken):
    from agreement import require_equal, require_losses

    for one, other in ((broken, [1.0, 1.0]), ([1.0, 1.0], broken), (broken, broken)):
        with pytest.raises(UserError, match="nothing was timed"):
            require_equal("outputs", one, other, within=1.0)
        with pytest.raises(UserError, match="nothing was timed"):
            require_losses({"ours": one, "theirs": other})


def test_losses_are_compared_more_closely_where_nothing_has_been_updated(capsys):
    from agreement import require_losses

    require_losses({"ours": [5.0, 4.0], "theirs": [5.00005, 4.0005]})
    assert "losses of 2 steps agree with theirs within 5.0e-04 nats" in capsys.readouterr().out
    for theirs in ([5.0005, 4.0], [5.0, 4.005]):
        with pytest.raises(UserError, match=r"losses differ by \S+ in the first step"):
            require_losses({"ours": [5.0, 4.0], "theirs": theirs})


def test_a_peer_has_its_speed_where_our_side_fails(monkeypatch):
    import train_gpu

    def ask(command, question):
        if "files" in question:
            return {"seq_len": 10}
        if command[0] == "ours" and question["warm_up"]:
            raise UserError("out of memory")
        times = {"seconds": 2.0, "compile_seconds": 1.0, "peak_bytes": 1, "versions": {}}
        return {"losses": [1.0] * train_gpu.GATE_STEPS, **times}

    names = ("reference", "ours", "peer")
    sides = [train_gpu.Side(name, [name], {}) for name in names]
    monkeypatch.setattr(train_gpu, "sides_of", lambda args: sides)
    monkeypatch.setattr(train_gpu, "ask", ask)
    args = SimpleNamespace(rows=3, scratch=None, seq_len=10, rounds=1, steps=4)
    ours, peer = train_gpu.measure("debug", args)
    assert ours["problem"] == "out of memory"
    assert peer["tokens_per_second"] == 4 * 3 * 10 / 2.0


def test_a_length_that_a_system_cannot_take_is_refused():
    from gpu_subjects import SUBJECTS

    rows = SUBJECTS["unified"].rows
    assert rows("debug", 2, 3, 0)["tokens"].shape == (2, 3, 76)
    assert rows("debug", 2, 3, 75)["tokens"].shape == (2, 3, 76)
    with pytest.raises(UserError, match="--seq_len=64: rows of unified:debug have 75 tokens"):
        rows("debug", 2, 3, 64)


def test_a_peer_that_has_ended_is_one_line(monkeypatch, tmp_path):
    from peers import driver

    script = tmp_path / "peer.py"
    script.write_text("print('{}', flush=True)\nraise SystemExit(3)\n")
    monkeypatch.setattr(driver, "_PYTHON", SimpleNamespace(value=sys.executable))
    with driver.Peer(str(script)) as peer:
        peer._process.wait()
        with pytest.raises(UserError, match="ended with status 3"):
            peer.ask({})
