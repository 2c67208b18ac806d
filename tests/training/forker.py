"""Trainings in processes of their own without the seconds of imports: this process imports, and forks for each.

Reads lines of JSON, {"workdir", "config", "hang_at", "signal_at", "disk_full_at"}; answers each with a line of the
child's pid, and another of its exit status (negative: the signal). The child writes its position to WORKDIR/position.
"""

import dataclasses
import errno
import json
import os
import pathlib
import signal
import sys
import time

import jax
from linear_task import LinearBatches, LinearTask

from lvm_jax import cli
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.training import digests
from lvm_jax.training.loop import TrainConfig, train


def child(workdir, config, hang_at=-1, signal_at=-1, disk_full_at=-1):
    folder = pathlib.Path(workdir)
    folder.mkdir(exist_ok=True)
    seal = digests.write

    def on_step(step):
        (folder / "position").write_text(str(step))
        if step == hang_at:
            time.sleep(1000)
        if step == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def slow_seal(*args):
        """A second SIGTERM arrives while the save is being sealed."""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        seal(*args)

    def full(place, *args):
        raise OSError(errno.ENOSPC, "No space left on device", str(place))

    if signal_at >= 0:
        digests.write = slow_seal
    if disk_full_at >= 0:
        digests.write = lambda place, *args: (
            full(place) if f"{disk_full_at}." in place.name else seal(place, *args)
        )
    with (folder / "stderr").open("w") as stderr, (folder / "stdout").open("w") as stdout:
        os.dup2(stderr.fileno(), 2)
        os.dup2(stdout.fileno(), 1)
    base = TrainConfig(steps=8, batch_size=8, log_every=5, eval_every=0, checkpoint_every=4)
    config = dataclasses.replace(base, **config)
    mesh = make_mesh(devices=jax.devices()[:1])
    batches = LinearBatches(on_step=on_step)
    sys.argv = sys.argv[:1]
    cli.run(lambda: train(LinearTask(), batches, config, mesh=mesh, workdir=workdir) and None)


def main():
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                child(**json.loads(line))
            except SystemExit as stop:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(stop.code or 0)
            os._exit(1)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
