"""Runs the commands of the launch scripts: prints each as you would type it, and executes it unless it is a dry run."""

import shlex
import subprocess
from collections.abc import Sequence

from lvm_jax.errors import UserError

Command = Sequence[str]


def run(command: Command, *, dry_run: bool, stdin: str | None = None) -> str:
    """Prints the command, runs it, and returns what it wrote to stdout.

    Args:
      command: program and arguments.
      dry_run: only print.
      stdin: its input, which is printed too.

    Raises:
      UserError: the program does not exist, or it failed.
    """
    print(f"$ {shlex.join(command)}", flush=True)
    if stdin is not None:
        print(stdin)
    if dry_run:
        return ""
    try:
        done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{command[0]} is not installed here: install it, or use --dry_run"
        ) from error
    if done.returncode:
        raise UserError(
            f"{shlex.join(command[:5])} ... ended with {done.returncode}: see its message above"
        )
    return done.stdout


def run_together(commands: Sequence[Command], *, dry_run: bool) -> None:
    """Prints the commands, runs them at the same time, and waits for all: slices of one training wait for each other.

    Raises:
      UserError: one of them failed.
    """
    for command in commands:
        print(f"$ {shlex.join(command)} &", flush=True)
    if dry_run:
        return
    processes = [subprocess.Popen(command) for command in commands]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise UserError(
            f"the commands ended with {codes}: the same launch continues from the last checkpoint"
        )
