r"""Saving and restoring a train state: ours against Orbax's defaults, in turns, in one run.

    python benchmarks/checkpoint.py --megabytes=1400 --rounds=3 --folder=/a/disk

Ours writes digests and verifies every file before it reads; the peer is `CheckpointManager` with `StandardSave`, which
compresses and checks nothing. `blocked` is how long training stands still. `save` ends when the checkpoint is on disk,
`restore` when the arrays are on the devices. The state is AdamW's: parameters, first and second moments, in fp32.
"""

import contextlib
import importlib.metadata
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import flags
from turns import in_turns, seconds

from lvm_jax import cli
from lvm_jax.training.checkpoint import Checkpointer

_MEGABYTES = flags.DEFINE_integer("megabytes", 1400, "size of the state")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "turns of each; medians are printed")
_FOLDER = flags.DEFINE_string("folder", None, "where to write; default: the temporary folder")

_WIDTH, _ARRAYS = 1024, 8  # of each of the three parts


def make_state(megabytes: int) -> dict[str, Any]:
    """Random fp32 arrays, which compress as badly as trained weights."""
    rows = max(1, megabytes * 1_000_000 // (4 * 3 * _ARRAYS * _WIDTH))
    keys = iter(jax.random.split(jax.random.key(0), 3 * _ARRAYS))
    return {
        part: {f"layer{i}": jax.random.normal(next(keys), (rows, _WIDTH)) for i in range(_ARRAYS)}
        for part in ("params", "mu", "nu")
    }


def ours(folder: pathlib.Path, state: Any, abstract: Any) -> dict[str, float]:
    """Seconds that our `Checkpointer` takes."""
    with _emptied(folder):
        writer = Checkpointer(folder)
        result = _timed_save(lambda: writer.save(1, state, 0, {}), writer.wait)
        writer.close()
        reader = Checkpointer(folder)
        result["restore"] = seconds(lambda: reader.restore(abstract).state)
        reader.close()
    return result


def peer(folder: pathlib.Path, state: Any, abstract: Any) -> dict[str, float]:
    """Seconds that Orbax's defaults take."""
    with _emptied(folder):
        writer = ocp.CheckpointManager(folder)
        arguments = ocp.args.StandardSave(state)
        result = _timed_save(lambda: writer.save(1, args=arguments), writer.wait_until_finished)
        writer.close()
        reader = ocp.CheckpointManager(folder)
        target = ocp.args.StandardRestore(abstract)
        result["restore"] = seconds(lambda: reader.restore(1, args=target))
        reader.close()
    return result


@contextlib.contextmanager
def _emptied(folder: pathlib.Path) -> Iterator[None]:
    """Removes `folder` at the end."""
    yield
    shutil.rmtree(folder)


def _timed_save(save: Callable[[], Any], wait: Callable[[], Any]) -> dict[str, float]:
    start = time.perf_counter()
    save()
    blocked = time.perf_counter() - start
    wait()
    return {"blocked": blocked, "save": time.perf_counter() - start}


def main() -> None:
    """Prints the medians of both, and their ratios."""
    state = jax.block_until_ready(make_state(_MEGABYTES.value))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    size = sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(state)) / 1e6
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as scratch:
        medians = in_turns(
            {
                "ours": lambda: ours(pathlib.Path(scratch) / "ours", state, abstract),
                "orbax": lambda: peer(pathlib.Path(scratch) / "orbax", state, abstract),
            },
            _ROUNDS.value,
        )
    version = importlib.metadata.version("orbax-checkpoint")
    print(
        f"state of {size:,.0f} MB, {jax.device_count()} x {jax.devices()[0].device_kind}; Orbax {version}"
    )
    print(f"{'':8} {'ours s':>8} {'orbax s':>8} {'ratio':>6}")
    for what, mine in medians["ours"].items():
        theirs = medians["orbax"][what]
        print(f"{what:8} {mine:8.3f} {theirs:8.3f} {theirs / mine:6.2f}")


if __name__ == "__main__":
    cli.run(main)
