"""Starts a peer in its own environment and exchanges JSON lines with it."""

import json
import os
import pathlib
import subprocess
from types import TracebackType
from typing import Any

from lvm_jax.errors import UserError

# The settings of `runtime.keep_freed_memory`, as a variable that glibc reads when a program starts.
_KEEP_FREED = (
    "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:glibc.malloc.arena_max=1"
)


class Peer:
    """A script of this folder, run by another Python; `with Peer(...) as peer: peer.ask({...})`.

    Args:
      python: the interpreter.
      script: a file of this folder.
      *arguments: its command line.
      keep_freed_memory: as `runtime.keep_freed_memory` does here, for a fair comparison.

    Raises:
      UserError: it does not start.
    """

    def __init__(
        self, python: str, script: str, *arguments: object, keep_freed_memory: bool = False
    ) -> None:
        command = [python, str(pathlib.Path(__file__).parent / script), *map(str, arguments)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | ({"GLIBC_TUNABLES": _KEEP_FREED} if keep_freed_memory else {}),
            )
        except OSError as error:
            raise UserError(
                f"--peer_python {python} does not start ({error}): give a Python with torch"
            ) from error
        self.versions = self._read()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The peer's answer.

        Raises:
          UserError: the peer has ended.
        """
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise UserError(
                f"the peer ended with status {self._process.wait()}: its Python needs what the script imports"
            )
        return json.loads(line)
