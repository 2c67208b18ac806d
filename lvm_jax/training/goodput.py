"""Where a run's time goes: goodput is the share spent on steps that count; the rest is badput, by cause.

One ledger accounts for every second of the workdir's processes. A restart moves the seconds of steps that it must
compute again from `training` to `lost`.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping

from etils import epath

from lvm_jax import files

# startup: restore or init. data: the devices were idle until the batch came. lost: steps after the last checkpoint,
# computed again after a restart.
CAUSES = ("training", "startup", "compile", "data", "checkpoint", "evaluation", "lost")


class Ledger:
    """Seconds by cause. Exactly one cause runs at any moment; the first is `startup`.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
        self._running = ("startup", clock())

    def enter(self, cause: str) -> None:
        """From now on, time counts for `cause`."""
        now = self._clock()
        previous, since = self._running
        self._seconds[previous] += now - since
        self._running = (cause, now)

    @contextlib.contextmanager
    def phase(self, cause: str) -> Iterator[None]:
        """Time inside counts for `cause`; afterwards the previous cause goes on."""
        before = self._running[0]
        self.enter(cause)
        try:
            yield
        finally:
            self.enter(before)

    def move(self, seconds: float, source: str, target: str) -> None:
        """Moves `seconds` from one cause to another."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def running(self) -> tuple[str, float]:
        """The running cause, and for how many seconds it has run; any thread may ask."""
        cause, since = self._running
        return cause, self._clock() - since

    def seconds(self) -> dict[str, float]:
        """Seconds by cause up to now."""

        self.enter(self._running[0])
        return dict(self._seconds)

    def fractions(self) -> dict[str, float]:
        """`goodput`, and `badput/CAUSE` for each other cause; they sum to 1."""
        seconds = self.seconds()
        total = max(sum(seconds.values()), 1e-9)
        shares = {f"badput/{cause}": seconds[cause] / total for cause in CAUSES[1:]}
        return {"goodput": seconds["training"] / total, **shares}

    def resume(self, at_end: Mapping[str, float], at_checkpoint: Mapping[str, float]) -> None:
        """Adds the seconds of earlier processes; what they trained after the checkpoint is lost.

        Args:
          at_end: their last known seconds by cause.
          at_checkpoint: their seconds when the checkpoint was saved that this process resumes from. Where a process was
            killed before it wrote again, these are the later ones.
        """
        for cause in self._seconds:
            self._seconds[cause] += max(at_end.get(cause, 0.0), at_checkpoint.get(cause, 0.0))
        lost = at_end.get("training", 0.0) - at_checkpoint.get("training", 0.0)
        self.move(max(lost, 0.0), "training", "lost")

    def save(self, path: epath.Path) -> None:
        """Writes the seconds by cause, atomically."""
        files.write_json(path, self.seconds())


def load(path: epath.Path) -> dict[str, float]:
    """What `Ledger.save` wrote; {} if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else {}
