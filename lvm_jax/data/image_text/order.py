"""The order in which records are seen: passes, each dealt evenly over the groups of a mixture.

A pass has every record once; with weights, a group's records as often as its share says. Within a group records come in
an order of their own in every round over the group.

Shape legend: N records, G groups, K places that are asked for.
"""

import math

import numpy as np
from jaxtyping import Float64, Int64

from lvm_jax.data import shuffle
from lvm_jax.data.dealing import EvenDealer, occurrence
from lvm_jax.errors import UserError

_BLOCK = 4096  # records that are ordered at a time


class RecordOrder:
    """Which record stands at a place of the endless series.

    Attributes:
      records_per_pass: length of a pass.
    """

    def __init__(self, group: Int64[np.ndarray, " N"], rates: Float64[np.ndarray, " G"], seed: int):
        """Sorts the records by group.

        Args:
          group: of each record; -1 leaves it out.
          rates: how often a pass sees each record of a group; 0 leaves the group out.
          seed: of the order.

        Raises:
          UserError: no record is left.
        """
        self._members = [np.flatnonzero(group == g) for g in range(len(rates))]
        sizes = np.array([len(members) for members in self._members], np.int64)
        # Rounded up: a group whose share of a short pass is below one record is still seen.
        self._counts = np.array(
            [math.ceil(size * rate) for size, rate in zip(sizes, rates.tolist(), strict=True)],
            np.int64,
        )
        self.records_per_pass = int(self._counts.sum())
        if not self.records_per_pass:
            raise UserError("no record is left to train on: ask for longer texts, or other weights")
        self._dealer = EvenDealer(self._counts, _BLOCK, seed)
        self._seed = seed

    def records(self, places: range) -> Int64[np.ndarray, " K"]:
        """The records at consecutive places."""
        found: list[np.ndarray] = []
        place = places.start
        while place < places.stop:
            number, within = divmod(place, self.records_per_pass)
            block = self._dealer.find(within)
            begin = self._dealer.begin(block)
            groups = self._dealer.types(number, block)
            first = within - begin
            last = min(first + places.stop - place, len(groups))
            before = number * self._counts + self._dealer.before(block)
            nth = before[groups] + occurrence(groups)
            found.append(self._drawn(groups[first:last], nth[first:last]))
            place += last - first
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _drawn(self, groups: np.ndarray, nth: np.ndarray) -> np.ndarray:
        """The n-th draw of each group."""
        drawn = np.zeros(len(groups), np.int64)
        for g in np.unique(groups).tolist():
            here, members = groups == g, self._members[g]
            rounds, position = np.divmod(nth[here], len(members))
            keys = shuffle.keys(self._seed, g, rounds)
            drawn[here] = members[shuffle.shuffled(position, len(members), keys)]
        return drawn
