"""An endless series of items of several types, dealt evenly: any stretch of it is found in O(types).

The series runs in passes, rounds over the data in which type k comes `counts[k]` times. A pass is cut into blocks of
about `block_items` items, each with its share of every type; within a block the order is random. A formula gives the
number of items of each type before any block, so the series can be entered anywhere: resuming at step 1,000,000 is as
cheap as starting, and nobody has to shuffle, or even hold, a list of all items.

Shape legend: K types, N items.
"""

import bisect
import functools

import numpy as np
from jaxtyping import Int64

from lvm_jax.errors import UserError

_SEEDS = 1 << 63  # as for `jax.random.key`


class EvenDealer:
    """Deals a pass so that every stretch of it holds its share of each type; see the module.

    Attributes:
      counts: items of each type in a pass.
      blocks: number of blocks in a pass.
      begin: (block) to the number of items, of all types together, that lie before it in a pass.
    """

    def __init__(self, counts: Int64[np.ndarray, " K"], block_items: int, seed: int):
        check_seed(seed)
        self.counts = np.asarray(counts, np.int64)
        self.blocks = max(1, round(int(self.counts.sum()) / block_items))
        self._whole, self._rest = np.divmod(self.counts, self.blocks)
        # Without a phase of its own, every type that is rarer than a block would come in the last block.
        self._phase = np.random.default_rng((seed, 0)).integers(0, self.blocks, len(self.counts))
        self._seed = seed
        # One batch after another lies in the same block, and asks for the same begins.
        self.begin = functools.lru_cache(maxsize=64)(self._begin)

    def before(self, block: int) -> Int64[np.ndarray, " K"]:
        """Items of each type before `block` of a pass, 0..blocks."""
        # `counts * block // blocks`, in two steps so that no product leaves 64 bits.
        return self._whole * block + (self._rest * block + self._phase) // self.blocks

    def _begin(self, block: int) -> int:
        """Items of a pass before `block`, of all types together."""
        return int(self.before(block).sum())

    def find(self, place: int, size: Int64[np.ndarray, " types"] | None = None) -> int:
        """The block in which `place` of a pass lies, where an item takes `size` places."""
        begin = self.begin if size is None else lambda block: int((self.before(block) * size).sum())
        return bisect.bisect_right(range(self.blocks), place, key=begin) - 1

    def types(self, number: int, block: int) -> Int64[np.ndarray, " N"]:
        """The types of the items in `block` of pass `number`, in order."""
        inside = self.before(block + 1) - self.before(block)
        types = np.repeat(np.arange(len(self.counts)), inside)
        # The 1 keeps this stream of random numbers apart from that of the phases, (seed, 0).
        return np.random.default_rng((self._seed, 1, number, block)).permutation(types)


def check_seed(seed: int) -> None:
    """Refuses a seed that NumPy, JAX or `shuffle.keys` cannot take.

    Raises:
      UserError: it is negative or has more than 63 bits.
    """
    if not 0 <= seed < _SEEDS:
        raise UserError(f"seed is {seed}: it must be from 0 to {_SEEDS - 1}")


def occurrence(items: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Counts the equal elements before each element: `[5, 7, 5, 5]` gives `[0, 0, 1, 2]`."""
    # A stable sort puts equal elements side by side in order; an element's number is its distance from the first.
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    nth = np.empty(len(items), np.int64)
    nth[order] = np.arange(len(items)) - np.repeat(begins, np.diff(begins, append=len(items)))
    return nth
