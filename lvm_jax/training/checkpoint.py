"""Orbax checkpoints of {state, data, meta}: written in the background, restored onto any mesh.

WORKDIR/checkpoints/STEP holds three items: `state`, the train state as a flat map of readable names to arrays
("params/layers/attention/query/kernel"); `data`, the loader's one integer; `meta`, JSON that says what wrote it.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from lvm_jax.errors import UserError


class Checkpointer:
    """Saves and restores train states under WORKDIR/checkpoints.

    Args:
      workdir: the run's folder.
      keep: how many of the newest checkpoints stay.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 2) -> None:
        self._folder = epath.Path(workdir) / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            cleanup_tmp_directories=True,  # what a killed save left behind
            enable_async_checkpointing=True,
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(
            self._folder.resolve(), options=options, item_handlers=handlers
        )

    def latest_step(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, data_state: int, meta: Mapping[str, Any]) -> None:
        """Copies the state off the devices and writes it in the background; saving a step again does nothing."""
        if self.latest_step() == step:
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_flatten(state)),
                data=ocp.args.JsonSave({"next_step": data_state}),
                meta=ocp.args.JsonSave(dict(meta)),
            ),
        )

    def restore(self, state: Any, step: int | None = None) -> tuple[Any, int, dict[str, Any]]:
        """Reads a checkpoint into the shapes and shardings of `state`.

        Args:
          state: abstract state (ShapeDtypeStructs with shardings), in the structure to return.
          step: which; the newest by default.

        Returns:
          The state, the loader's next step, and the meta dict.

        Raises:
          UserError: no checkpoint, or one of another model: the first few tensors that differ are named.
        """
        step = self.latest_step() if step is None else step
        if step is None:
            raise UserError(
                f"{self._folder} holds no finished checkpoint: train first, or name another workdir"
            )
        target = _flatten(state)
        self._check_same_tensors(step, target)
        with _quiet_orbax():
            restored: Any = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target),
                    data=ocp.args.JsonRestore(),
                    meta=ocp.args.JsonRestore(),
                ),
            )
        leaves = [restored.state[name] for name in target]
        structure = jax.tree.structure(state)
        return jax.tree.unflatten(structure, leaves), restored.data["next_step"], restored.meta

    def wait(self) -> None:
        """Blocks until the save in progress is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees Orbax's threads."""
        self._manager.wait_until_finished()
        self._manager.close()

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
                f"{self._folder / str(step)} is of another configuration: {'; '.join(wrong[:3])}{more}; "
                "use the configuration that wrote it, or another workdir"
            )


def _flatten(tree: Any) -> dict[str, Any]:
    """Leaves by readable name, in the tree's order; Variables are seen through."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    parts = (jax.tree_util.keystr((key,), simple=True) for key in path)
    return "/".join(part for part in parts if part not in ("", "value"))


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """A restore warns that shardings come from the target: that is what we ask for."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
