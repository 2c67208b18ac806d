"""What studies share: the commands of their runs, each done once, and settings as flags.

A study is a folder. DIR/runs/NAME is the workdir of a training, DIR/done/NAME.txt the command that has done it.
"""

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lvm_jax import cli, files


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a study.

    Attributes:
      name: of what it does, and of the file that says that it is done.
      words: all that follows `python`.
    """

    name: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command as a shell reads it, without the leading `python`."""
        return shlex.join(self.words)


def run_folder(workdir: Path, name: str) -> Path:
    """The workdir of a study's training."""
    return workdir / "runs" / name


def training(workdir: Path, name: str, recipe: str, settings: Mapping[str, Any]) -> Command:
    """Trains a run in its folder.

    Args:
      workdir: of the study.
      name: of the run.
      recipe: configuration file and argument of experiments/train.py.
      settings: flag -> value, such as "config.train.steps" -> 100.
    """
    flags = {"config": recipe, "workdir": run_folder(workdir, name), **settings}
    return Command(name, ("experiments/train.py", *as_words(flags)))


def as_words(flags: Mapping[str, Any]) -> list[str]:
    """Flags as words of a command."""
    return [f"--{name}={value}" for name, value in flags.items()]


def flags_of(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested settings as flag -> value: {"train": {"seed": 1}} is `PREFIX.train.seed` -> 1."""
    return dict(_leaves(settings, prefix))


def _leaves(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


def run_missing(commands: Sequence[Command], workdir: Path, lock: TextIO) -> None:
    """Runs the commands that have not been done, in order. One that fails ends the process.

    A command that differs from the one that was done runs again: training resumes in its workdir, or refuses to go on
    with another configuration and names what differs.

    Args:
      commands: of the study.
      workdir: of the study.
      lock: from `cli.only_one_run`.
    """
    for number, command in enumerate(commands, 1):
        done = is_done(command, workdir)
        print(f"[{number}/{len(commands)}] {command.name}{' (done)' if done else ''}", flush=True)
        if not done:
            print(f"$ python {command.line}", flush=True)
            cli.run_python(command.line, lock)
            path = _mark(command, workdir)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, _said(command, workdir))


def is_done(command: Command, workdir: Path) -> bool:
    """Whether this very command has been done; the study's folder may have moved since."""
    path = _mark(command, workdir)
    return path.exists() and path.read_text() == _said(command, workdir)


def _mark(command: Command, workdir: Path) -> Path:
    return workdir / "done" / f"{command.name}.txt"


def _said(command: Command, workdir: Path) -> str:
    return f"{command.line.replace(str(workdir), 'WORKDIR')}\n"
