"""Buckets of sentences: the unit of packing.

A bucket is all sentences of one mixture group and one length. The length decides what fits into a row, the group how
often it is drawn: to the packer, all sentences of a bucket are alike. A corpus of a billion sentences has a few dozen
buckets, so packing by bucket takes next to no memory. Which sentence fills a place is found when the place is read, by
a permutation (`shuffle`). Only one thing grows with the corpus: the sentences sorted by bucket, a uint32 each.

Shape legend: N sentences, G groups of the mixture, M draws.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64, UInt16, UInt32

from lvm_jax.data import shuffle

# A weighted pass draws the rarest bucket at least this often: then rounding draws to whole numbers moves a share by a
# percent at most.
_FEWEST_DRAWS = 64


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Sentences of one group and length.

    Attributes:
      group: of the mixture.
      codes: number of codes of each sentence.
      first, count: the sentences are `BucketTable._order[first : first + count]`.
      draws: how many sentences a pass draws; without weights `count`, each of them once.
    """

    group: int
    codes: int
    first: int
    count: int
    draws: int


class BucketTable:
    """The buckets of a corpus, and its sentences sorted by bucket.

    Attributes:
      buckets: sorted by group, then by length.
    """

    buckets: list[Bucket]

    def __init__(
        self,
        lengths: UInt32[np.ndarray, " N"],
        group: UInt16[np.ndarray, " N"],
        rates: Float64[np.ndarray, " G"],
    ):
        """Sorts the sentences into buckets.

        Args:
          lengths: number of codes of each sentence; 0 leaves it out.
          group: of each sentence.
          rates: how often each group is drawn while a group of rate 1 is drawn once.
        """
        # Count images, not codes: the table of lengths below then has one entry for each image of the longest sentence.
        unit = max(1, int(np.gcd.reduce(lengths)))
        images = lengths // np.uint32(unit)
        present = np.bincount(images) > 0
        distinct = np.flatnonzero(present) * unit
        rank = (np.cumsum(present) - 1).astype(np.uint32)
        # One key for group and length: sorted by it, every bucket is a slice.
        keys = group.astype(np.uint32) * np.uint32(len(distinct)) + rank[images]
        counts = np.bincount(keys, minlength=len(rates) * len(distinct))
        if len(counts) <= 1 << 16:
            # NumPy sorts 16-bit keys by radix, in linear time, and wider ones by comparing.
            keys = keys.astype(np.uint16)
        # uint32 up to four billion sentences: half of what argsort gives.
        self._order = np.argsort(keys, kind="stable").astype(np.min_scalar_type(len(keys)))
        firsts = np.cumsum(counts) - counts
        found = [
            (divmod(int(key), len(distinct)), int(firsts[key]), int(counts[key]))
            for key in np.flatnonzero(counts)
        ]
        found = [f for f in found if distinct[f[0][1]] > 0]
        # Without weights the draws are the counts: scaling them would make one pass out of several.
        natural = bool((rates == 1).all())
        rarest = min(rates[group] * count for (group, _), _, count in found)
        scale = 1.0 if natural else max(1.0, _FEWEST_DRAWS / rarest)
        self.buckets = [
            Bucket(group, int(distinct[length]), first, count, round(scale * rates[group] * count))
            for (group, length), first, count in found
        ]

    def passes_of_groups(self, groups: int) -> Float64[np.ndarray, " G"]:
        """How often a pass draws each sentence of a group, on average over its codes; 1 without weights."""
        codes, drawn = np.zeros(groups), np.zeros(groups)
        for bucket in self.buckets:
            codes[bucket.group] += bucket.codes * bucket.count
            drawn[bucket.group] += bucket.codes * bucket.draws
        return drawn / np.maximum(codes, 1)

    def sentence(
        self,
        first: Int64[np.ndarray, " M"],
        count: Int64[np.ndarray, " M"],
        nth: Int64[np.ndarray, " M"],
        salt: Int64[np.ndarray, " M"],
        seed: int,
    ) -> Int64[np.ndarray, " M"]:
        """The sentences that are drawn as the `nth`, counted from 0, of their buckets (given by `first` and `count`).

        A bucket gives all its sentences once, shuffled, before it repeats any, and shuffles anew each round; `salt`
        tells independent series of draws apart.
        """
        # Rounds of the bucket, not passes over the rows: a weighted pass may draw half a bucket, or a bucket twice.
        round_of_bucket, position = np.divmod(nth, count)
        key = shuffle.keys(seed, salt, round_of_bucket)
        return self._order[first + shuffle.shuffled(position, count, key)].astype(np.int64)
