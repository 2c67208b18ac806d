"""What storing weights in another type costs: the same held-out measurement before and after."""

import dataclasses
from collections.abc import Sequence

from lvm_jax.reporting import markdown


@dataclasses.dataclass(frozen=True)
class Change:
    """One measurement.

    Attributes:
      what: was measured, with its unit and on how much.
      before: as trained; None: it compares the two models.
      after: as stored.
    """

    what: str
    before: float | None
    after: float

    def in_words(self) -> str:
        """For a terminal."""
        return f"{self.what}: {_fine(self.before)} -> {_fine(self.after)}"


def as_markdown(changes: Sequence[Change]) -> str:
    """A table."""
    rows = [(change.what, _fine(change.before), _fine(change.after)) for change in changes]
    return markdown.table(("held out", "as trained", "as stored"), rows)


def _fine(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"
