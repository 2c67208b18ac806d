import pytest
from etils import epath

from lvm_jax.training import goodput
from lvm_jax.training.goodput import Ledger


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def a_run(clock):
    """3 s of start-up, 10 of training, 2 of checkpoints, 5 of training."""
    ledger = Ledger(clock)
    clock.now += 3
    ledger.enter("training")
    clock.now += 10
    with ledger.phase("checkpoint"):
        clock.now += 2
    at_checkpoint = ledger.seconds()
    clock.now += 5
    return ledger, at_checkpoint


def test_every_second_has_one_cause():
    ledger, _ = a_run(Clock())
    seconds = ledger.seconds()
    assert {name: s for name, s in seconds.items() if s} == {
        "startup": 3.0,
        "training": 15.0,
        "checkpoint": 2.0,
    }
    fractions = ledger.fractions()
    assert fractions["goodput"] == pytest.approx(0.75)
    assert sum(fractions.values()) == pytest.approx(1.0)
    assert set(fractions) == {"goodput"} | {f"badput/{c}" for c in goodput.CAUSES[1:]}


def test_what_was_trained_after_the_checkpoint_is_lost(tmp_path):
    clock = Clock()
    ledger, at_checkpoint = a_run(clock)
    path = epath.Path(tmp_path / "goodput.json")
    ledger.save(path)
    again = Ledger(clock)
    again.resume(goodput.load(path), at_checkpoint)
    clock.now += 4  # start-up of the second process
    seconds = again.seconds()
    assert (seconds["training"], seconds["lost"], seconds["startup"]) == (10.0, 5.0, 7.0)


def test_a_checkpoint_knows_of_seconds_that_a_killed_process_did_not_write(tmp_path):
    clock = Clock()
    ledger, _ = a_run(clock)
    path = epath.Path(tmp_path / "goodput.json")
    ledger.save(path)
    with ledger.phase("evaluation"):
        clock.now += 60
    clock.now += 2
    at_checkpoint = ledger.seconds()
    again = Ledger(clock)
    again.resume(goodput.load(path), at_checkpoint)
    assert again.seconds() == at_checkpoint


def test_an_inner_phase_restarts_the_time_of_what_is_running():
    clock = Clock()
    ledger = Ledger(clock)
    ledger.enter("training")
    clock.now += 9
    with ledger.phase("data"):
        clock.now += 1
        assert ledger.running() == ("data", 1.0)
    assert ledger.running() == ("training", 0.0)


def test_no_file_is_an_empty_past(tmp_path):
    assert goodput.load(epath.Path(tmp_path / "goodput.json")) == {}
