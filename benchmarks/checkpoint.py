r"""Saving and restoring a train state: ours beside Orbax's defaults, in turns, in one run.

    python benchmarks/checkpoint.py --megabytes=1400 --rounds=3 --folder=/a/disk

Ours writes digests and verifies every file before it reads; the peer is `CheckpointManager` with `StandardSave`, which
compresses and checks nothing. `blocked` is how long training stands still; `save` ends when the checkpoint is on disk;
`restore` ends when the arrays are on the devices. The state is AdamW's: parameters, first and second moments, fp32.
"""

import importlib.metadata
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import flags

from lvm_jax import cli
from lvm_jax.training.checkpoint import Checkpointer

_MEGABYTES = flags.DEFINE_integer("megabytes", 1400, "size of the state")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "turns of each; medians are printed")
_FOLDER = flags.DEFINE_string("folder", None, "where to write; default: the temporary folder")

_WIDTH, _ARRAYS = 1024, 8  # of each of the three parts
_WHAT = ("blocked", "save", "restore")


def make_state(megabytes: int) -> dict[str, Any]:
    """Random fp32 arrays: as hard to compress as trained weights."""
    rows = max(1, megabytes * 1_000_000 // (4 * 3 * _ARRAYS * _WIDTH))
    keys = iter(jax.random.split(jax.random.key(0), 3 * _ARRAYS))
    return {
        part: {f"layer{i}": jax.random.normal(next(keys), (rows, _WIDTH)) for i in range(_ARRAYS)}
        for part in ("params", "mu", "nu")
    }


def ours(folder: pathlib.Path, state: Any, abstract: Any) -> tuple[float, float, float]:
    """Seconds of (blocked, save, restore) of `Checkpointer`."""
    writer = Checkpointer(folder)
    blocked, total = _timed_save(lambda: writer.save(1, state, 0, {}), writer.wait)
    writer.close()
    reader = Checkpointer(folder)
    restore = _timed(lambda: reader.restore(abstract).state)
    reader.close()
    return blocked, total, restore


def peer(folder: pathlib.Path, state: Any, abstract: Any) -> tuple[float, float, float]:
    """The same of Orbax's defaults."""
    writer = ocp.CheckpointManager(folder)
    arguments = ocp.args.StandardSave(state)
    blocked, total = _timed_save(lambda: writer.save(1, args=arguments), writer.wait_until_finished)
    writer.close()
    reader = ocp.CheckpointManager(folder)
    restore = _timed(lambda: reader.restore(1, args=ocp.args.StandardRestore(abstract)))
    reader.close()
    return blocked, total, restore


def _timed_save(save: Callable[[], Any], wait: Callable[[], Any]) -> tuple[float, float]:
    start = time.perf_counter()
    save()
    blocked = time.perf_counter() - start
    wait()
    return blocked, time.perf_counter() - start


def _timed(restore: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(restore())
    return time.perf_counter() - start


def main() -> None:
    """Prints the medians of each, and the ratios."""
    state = jax.block_until_ready(make_state(_MEGABYTES.value))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    size = sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(state)) / 1e6
    seconds: dict[str, list[tuple[float, float, float]]] = {"ours": [], "orbax": []}
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as scratch:
        for turn in range(_ROUNDS.value + 1):  # the first of each warms up
            for name, measure in (("ours", ours), ("orbax", peer)):
                folder = pathlib.Path(scratch) / name
                result = measure(folder, state, abstract)
                shutil.rmtree(folder)
                if turn:
                    seconds[name].append(result)
    medians = {name: [statistics.median(x) for x in zip(*rows)] for name, rows in seconds.items()}
    version = importlib.metadata.version("orbax-checkpoint")
    print(
        f"state of {size:,.0f} MB, {jax.device_count()} x {jax.devices()[0].device_kind}; Orbax {version}"
    )
    print(f"{'':8} {'ours s':>8} {'orbax s':>8} {'ratio':>6}")
    for what, mine, theirs in zip(_WHAT, medians["ours"], medians["orbax"]):
        print(f"{what:8} {mine:8.3f} {theirs:8.3f} {theirs / mine:6.2f}")


if __name__ == "__main__":
    cli.run(main)
