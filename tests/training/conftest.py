import json
import os
import pathlib
import subprocess
import sys

import pytest


class Forker:
    """Starts trainings (see forker.py) and says how they ended."""

    def __init__(self):
        here = pathlib.Path(__file__).parent
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(here / "forker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(here.parent.parent)},
        )

    def start(self, workdir, *, config=None, **events):
        """The pid of a training in `workdir`."""
        job = {"workdir": str(workdir), "config": config or {}, **events}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def exit_status(self):
        """Of the training started last, once it has ended; negative: the signal that killed it."""
        return int(self._process.stdout.readline())

    def run(self, workdir, **job):
        self.start(workdir, **job)
        return self.exit_status()

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="session")
def forker():
    forker = Forker()
    yield forker
    forker.close()
