"""Starts a peer in its own environment and exchanges JSON lines with it; see answers.py for its side."""

import contextlib
import json
import os
import pathlib
import subprocess
from types import TracebackType
from typing import Any

from absl import flags

from lvm_jax.errors import UserError

_PYTHON = flags.DEFINE_string(
    "peer_python", None, "a Python interpreter with torch and, but for tokenizers, transformers"
)
# The settings of `runtime.keep_freed_memory`, as a variable that glibc reads when a program starts.
_KEEP_FREED = (
    "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:glibc.malloc.arena_max=1"
)


class Peer:
    """A script of this folder, run by --peer_python; `with Peer(...) as peer: peer.ask({...})`.

    Args:
      script: a file of this folder.
      *arguments: its command line.
      keep_freed_memory: as `runtime.keep_freed_memory` does here, for a fair comparison.

    Raises:
      UserError: it does not start.
    """

    def __init__(self, script: str, *arguments: object, keep_freed_memory: bool = True) -> None:
        command = [_PYTHON.value, str(pathlib.Path(__file__).parent / script), *map(str, arguments)]
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
                f"--peer_python={_PYTHON.value} does not start ({error}): give a Python with torch"
            ) from error
        self._script = script
        self.versions: dict[str, str] = self._read()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()  # closes the pipes too, whatever a broken one still holds

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The peer's answer.

        Raises:
          UserError: the peer has ended.
        """
        with contextlib.suppress(BrokenPipeError):  # `_read` says that it has ended, and how
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise UserError(
                f"the peer {self._script} ended with status {self._process.wait()}; what it printed last is above: its "
                "Python needs the packages that the script imports; -9 is often a lack of memory"
            )
        return json.loads(line)
