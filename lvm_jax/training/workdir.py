"""The configuration that a workdir belongs to: printed, saved, and compared with that of a run that resumes it."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from lvm_jax import config as configs
from lvm_jax import files
from lvm_jax.errors import UserError

_FILE = "config.json"
# What does not change the numbers: periods, monitoring, and where the data lies.
_PERIODS = (
    ".log_every",
    ".eval_every",
    ".checkpoint_every",
    ".keep_checkpoints",
    ".keep_every_steps",
)
_WATCHING = (".watchdog_seconds", ".profile_steps", ".wandb_project", ".print_config")
_GUARD = (
    ".on_bad_step",
    ".spike_factor",
    ".max_skips",
)  # to get past a step that stopped the run
_PARTS = (".mesh.", ".evaluators.", ".evaluation.")  # with all keys below them
# A recipe's record has the fingerprint of its tokenizer beside the place.
_PLACES = (
    ".data.shards",
    ".data.images",
    ".data.held_out",
    ".data.tokenizer",
    ".data.text_tokenizer",
)


def claim(
    workdir: epath.Path,
    experiment: Mapping[str, Any],
    whole: bool = True,
    defaults: Mapping[str, Any] | None = None,
) -> bool:
    """Writes config.json. Prints it (`whole`) or its path; at resume, prints how it differs from the saved one.

    Two runs of a workdir may differ in mesh, periods, evaluations, monitoring, treatment of bad steps, and the place of
    the data; in nothing else.

    Args:
      workdir: of the run.
      experiment: all that identifies the run.
      whole: print it all.
      defaults: of keys of `experiment`. A run that began before such a key existed did what the default says.

    Returns:
      whether no run had begun here.

    Raises:
      UserError: another configuration began this workdir; lists the keys that differ.
    """
    path = workdir / _FILE
    is_new = not path.exists()
    # Tuples become lists, as in the file it is compared with.
    experiment = json.loads(json.dumps(experiment))
    text = json.dumps(experiment, indent=2) + "\n"
    said = text if whole else f"the configuration is in {path}\n"
    if not is_new:
        begun = _as_called_today(json.loads(path.read_text()))
        begun = _filled(begun, json.loads(json.dumps(defaults or {})), experiment)
        changed = configs.differences(begun, experiment)
        if refused := [line for line in changed if not _may_change(line.split(":")[0])]:
            raise UserError(
                f"workdir {workdir} was begun with another configuration ({'; '.join(refused[:4])}): "
                "name another --workdir, or use the same configuration"
            )
        said = "".join(f"{line}\n" for line in changed)
    if jax.process_index() == 0:
        print(said, end="")
        workdir.mkdir(parents=True, exist_ok=True)
        files.write(path, text)
    return is_new


def leave(workdir: epath.Path) -> None:
    """Undoes `claim`, for a run that ends before its first step: a mended configuration may then begin here."""
    if jax.process_index() == 0:
        (workdir / _FILE).unlink(missing_ok=True)


def _as_called_today(begun: dict[str, Any]) -> dict[str, Any]:
    """An older workdir's configuration, with keys as they are called today."""
    model = begun.get("model")
    if isinstance(model, dict) and "layout" in model:  # of a tokenizer
        renamed = {"architecture" if name == "layout" else name: v for name, v in model.items()}
        return {**begun, "model": renamed}
    return begun


def _filled(
    begun: Mapping[str, Any], defaults: Mapping[str, Any], experiment: Mapping[str, Any]
) -> dict[str, Any]:
    """`begun` with the defaults of keys that it lacks and `experiment` has."""
    filled = dict(begun)
    for name, default in defaults.items():
        if name not in experiment:
            continue
        if name not in filled:
            filled[name] = default
        elif all(isinstance(x[name], Mapping) for x in (filled, defaults, experiment)):
            filled[name] = _filled(filled[name], default, experiment[name])
    return filled


def _may_change(key: str) -> bool:
    return any(part in f"{key}." for part in _PARTS) or key.endswith(
        _PERIODS + _WATCHING + _GUARD + _PLACES
    )
