import os
import time

import pytest

from lvm_jax.training.watchdog import WATCHED, Watchdog


@pytest.fixture
def ended(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)  # so it barks on
    return codes


def watch(ended, phase, seconds, limit):
    with Watchdog(lambda: (phase, seconds), limit):
        for _ in range(20):
            if not ended:
                time.sleep(0.01)


@pytest.mark.parametrize("phase", sorted(WATCHED))
def test_it_says_which_phase_hangs(ended, capfd, phase):
    watch(ended, phase, 31.0, 0.02)
    assert set(ended) == {75}
    said = capfd.readouterr().err
    assert f"error: {WATCHED[phase]} has taken 31 s" in said
    assert "test_watchdog.py" in said  # the main thread's stack


@pytest.mark.parametrize(
    ("phase", "limit"), [("startup", 0.02), ("compile", 0.02), ("training", 100.0), ("data", 0)]
)
def test_it_lets_live_what_is_not_watched_or_not_late(ended, capfd, phase, limit):
    watch(ended, phase, 31.0, limit)
    assert ended == []
    assert "error" not in capfd.readouterr().err
