"""Orbax checkpoints of {state, data, meta}: written in the background, verified, restored onto any mesh.

WORKDIR/checkpoints/STEP holds three items: `state`, the train state as a flat map of readable names to arrays
("params/layers/attention/query"); `data`, the loader's one integer; `meta`, JSON about the run that wrote it.
Beside them lie digests of all files (`digests.py`), written before the folder gets its final name. So every finished
checkpoint can be verified, and is, before it is read.
"""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.tasks.base import leaf_name
from lvm_jax.training import digests


class Restored(NamedTuple):
    """What a checkpoint held; `rejected` counts newer checkpoints that were damaged."""

    state: Any
    next_step: int
    meta: dict[str, Any]
    rejected: int


class Checkpointer:
    """Saves and restores train states under WORKDIR/checkpoints.

    Args:
      workdir: the run's folder.
      keep: how many of the newest checkpoints to keep.
      keep_every: checkpoints at multiples of this step stay for ever; 0: none does.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 2, keep_every: int = 0) -> None:
        self._folder = (epath.Path(workdir) / "checkpoints").resolve()
        self._set_aside = self._folder.parent / "damaged_checkpoints"
        # The step of the save in progress, until the digests of its commit are written too.
        self._saving: int | None = None
        logging.getLogger("absl").addFilter(_not_disk_full)  # our error says it in one line
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            create=True,
            cleanup_tmp_directories=True,  # of a save that was killed
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        handlers = {
            # Trained floats hardly compress (7%), while zstd made saving 2.5 times and restoring 8 times slower.
            "state": ocp.PyTreeCheckpointHandler(use_compression=False),
            "data": ocp.JsonCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def latest_step(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, data_state: int, meta: Mapping[str, Any]) -> None:
        """Copies the state off the devices and writes it in the background; saving a step twice does nothing.

        Raises:
          UserError: the disk is full. A failure in the background is raised by the next save or by `wait`.
        """
        if self.latest_step() == step:
            return
        self.wait()
        self._saving = step
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(_flatten(state)),
                    data=ocp.args.JsonSave({"next_step": data_state}),
                    meta=ocp.args.JsonSave(dict(meta)),
                ),
            )

    def restore(self, state: Any) -> Restored:
        """Reads the newest undamaged checkpoint into the shapes and shardings of `state`.

        Names each damaged one in a line and moves it to WORKDIR/damaged_checkpoints.

        Args:
          state: abstract state (ShapeDtypeStructs with shardings), in the structure to return.

        Raises:
          UserError: no checkpoint, only damaged ones, or one of another model, whose first few differing tensors it
            names.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise UserError(
                f"{self._folder} holds no finished checkpoint: train first, or name another workdir"
            )
        rejected: dict[int, str] = {}
        for step in steps:
            if not (wrong := self._damaged(step)):
                break
            rejected[step] = wrong
        else:
            every = "; ".join(f"{step}: {wrong}" for step, wrong in rejected.items())
            raise UserError(
                f"none of the checkpoints in {self._folder} is whole ({every}): put a copy back, or move the folder "
                "away to start from step 0"
            )
        for newer, wrong in rejected.items():
            print(
                f"checkpoint {newer} is damaged ({wrong}): going on from checkpoint {step}; the damaged one is now in "
                f"{self._set_aside}"
            )
        # Out of the folder, because Orbax saves no step up to the newest one there.
        self._move_away(list(rejected))
        target = _flatten(state)
        self._check_same_tensors(step, target)
        with _quiet_orbax():
            restored: Any = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        item=target,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                    ),
                    data=ocp.args.JsonRestore(),
                    meta=ocp.args.JsonRestore(),
                ),
            )
        leaves = [restored.state[name] for name in target]
        tree = jax.tree.unflatten(jax.tree.structure(state), leaves)
        return Restored(tree, restored.data["next_step"], restored.meta, len(rejected))

    def wait(self) -> None:
        """Blocks until the save in progress, if any, is on disk, and writes the digests of its commit.

        Raises:
          UserError: the disk was full.
        """
        with self._explained():
            self._manager.wait_until_finished()
            # The commit writes files at the top of the folder after `_seal` has listed those below.
            if self._saving is not None and jax.process_index() == 0:
                folder = self._folder / str(self._saving)
                names = [name for name in digests.files_of(folder) if "/" not in name]
                digests.write(folder, names, digests.COMMIT)
            self._saving = None

    def close(self) -> None:
        """Waits for the save in progress, then frees Orbax's threads."""
        try:
            self.wait()
        finally:
            with self._explained():
                self._manager.close()

    def _seal(self) -> None:
        """Writes the digests. Orbax calls it on its own thread, after all hosts have written and before the commit."""
        if jax.process_index() != 0:
            return
        # An object store cannot rename: there the folder has its final name from the start, and a mark commits it.
        unfinished = files.named(self._folder, f"{self._saving}.orbax-checkpoint-tmp*")
        folder = unfinished[0] if unfinished else self._folder / str(self._saving)
        names = [name for name in digests.files_of(folder) if "/" in name]
        digests.write(folder, names, digests.CONTENTS)

    def _damaged(self, step: int) -> str:
        """What is wrong with a checkpoint, in a few words, the same on all hosts; "" if it is whole."""
        hosts = jax.process_count()
        wrong = digests.damaged(self._folder / str(step), jax.process_index(), hosts)
        text = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        if hosts == 1:
            return text
        # Each host verifies a share of the files, but all must reject the same checkpoints. A gather needs arrays of
        # one shape, so each host's text travels as 1024 bytes.
        letters = np.zeros(1024, np.uint8)
        encoded = text.encode()[:1024]
        letters[: len(encoded)] = np.frombuffer(encoded, np.uint8)
        rows = np.asarray(multihost_utils.process_allgather(letters))
        found = (bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows)
        return ", ".join(dict.fromkeys(filter(None, found)))

    def _move_away(self, steps: list[int]) -> None:
        if not steps:
            return
        if jax.process_index() == 0:
            self._set_aside.mkdir(exist_ok=True)
            for step in steps:
                earlier = len(files.named(self._set_aside, f"{step}*"))
                name = f"{step}.{earlier}" if earlier else str(step)
                (self._folder / str(step)).rename(self._set_aside / name)
        # No host may list the folder again before the first one has renamed.
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a full disk into an error of one line; other errors pass through."""
        try:
            yield
        except Exception as error:
            if not _is_disk_full(error):
                raise
            free = shutil.disk_usage(self._folder).free if os.path.isdir(self._folder) else 0
            last = [s for s in self._manager.all_steps() if s != self._saving]
            kept = f"checkpoint {max(last)} is whole" if last else "no earlier checkpoint exists"
            # Cleared, or `close` would write digests of the failed save.
            step, self._saving = self._saving, None
            raise UserError(
                f"no space left for checkpoint {step} on the file system of {self._folder} ({free / 1e6:,.0f} MB are "
                f"free): free some or lower config.train.keep_checkpoints, then run again; {kept}"
            ) from error

    def _check_same_tensors(self, step: int, target: Mapping[str, Any]) -> None:
        saved = self._manager.item_metadata(step).state
        saved = {name: tuple(info.shape) for name, info in (saved or {}).items()}
        expected = {name: tuple(x.shape) for name, x in target.items()}
        wrong = [
            f"{name}: {saved.get(name, 'absent')} in the checkpoint, {expected.get(name, 'absent')} here"
            for name in sorted(saved.keys() | expected.keys())
            if saved.get(name) != expected.get(name)
        ]
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise UserError(
                f"{self._folder / str(step)} was written by another configuration: {'; '.join(wrong[:3])}{more}; "
                "use that configuration, or another workdir"
            )


def _not_disk_full(record: logging.LogRecord) -> bool:
    return not (record.exc_info and _is_disk_full(record.exc_info[1]))


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether ENOSPC, from Python or as TensorStore words it, is in the chain of causes."""
    while error is not None:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _flatten(tree: Any) -> dict[str, Any]:
    """Leaves by readable name, in the tree's order, without the `value` of Variables."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {leaf_name(path): leaf for path, leaf in leaves}


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Silences the warning that a restore takes its shardings from the target: that is intended."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
