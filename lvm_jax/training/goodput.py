"""Where the time of a run goes: goodput is the share spent on steps that count; the rest is badput, by cause.

One ledger holds every second since training began, over all restarts of the workdir. A restart moves the seconds of
steps that have to be computed again from `training` to `lost`.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping

from etils import epath

from lvm_jax import files

# startup: restore or init; data: the devices had nothing to do until the batch came; lost: computed, then lost.
CAUSES = ("training", "startup", "compile", "data", "checkpoint", "evaluation", "lost")


class Ledger:
    """Seconds by cause; at any moment exactly one cause runs, at first `startup`.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
        self._running = ("startup", clock())

    def enter(self, cause: str) -> None:
        """From here on the time is `cause`'s."""
        now = self._clock()
        previous, since = self._running
        self._seconds[previous] += now - since
        self._running = (cause, now)

    @contextlib.contextmanager
    def phase(self, cause: str) -> Iterator[None]:
        """The time in here is `cause`'s; then the cause of before goes on."""
        before = self._running[0]
        self.enter(cause)
        try:
            yield
        finally:
            self.enter(before)

    def move(self, seconds: float, source: str, target: str) -> None:
        """Books `seconds` of one cause on another."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def running(self) -> tuple[str, float]:
        """What runs, and for how many seconds already; any thread may ask."""
        cause, since = self._running
        return cause, self._clock() - since

    def seconds(self) -> dict[str, float]:
        """Seconds by cause up to now."""
        self.enter(self._running[0])
        return dict(self._seconds)

    def fractions(self) -> dict[str, float]:
        """`goodput`, and `badput/CAUSE` for the others; together 1."""
        seconds = self.seconds()
        total = max(sum(seconds.values()), 1e-9)
        shares = {f"badput/{cause}": seconds[cause] / total for cause in CAUSES[1:]}
        return {"goodput": seconds["training"] / total, **shares}

    def resume(self, at_end: Mapping[str, float], at_checkpoint: Mapping[str, float]) -> None:
        """Adds an earlier process's seconds; what it trained after the checkpoint is lost.

        Args:
          at_end: its last known seconds by cause.
          at_checkpoint: the same when the checkpoint was saved from which this process goes on.
        """
        for cause, seconds in at_end.items():
            self._seconds[cause] += seconds
        lost = at_end.get("training", 0.0) - at_checkpoint.get("training", 0.0)
        self.move(max(lost, 0.0), "training", "lost")

    def save(self, path: epath.Path) -> None:
        """Writes the seconds by cause, atomically."""
        files.write_json(path, self.seconds())


def load(path: epath.Path) -> dict[str, float]:
    """What `Ledger.save` wrote; {} where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}
