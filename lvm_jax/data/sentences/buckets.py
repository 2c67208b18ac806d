"""Buckets of sentences: the unit in which rows are planned.

A bucket is all sentences of one mixture group and one length. What fits beside what in a row depends on lengths, and
how often something is drawn depends on its group: so to whoever packs rows, sentences of one bucket are alike. A corpus
of a billion sentences has a few dozen buckets, and what is packed by bucket takes no memory, whatever the corpus. Which
sentence it is that fills a place is found when the place is read, by a permutation (`shuffle`). The only thing that
grows with the corpus is one uint32 a sentence: the sentences, sorted by bucket.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64, UInt16, UInt32

from lvm_jax.data import shuffle

# A weighted pass draws the rarest bucket at least this often, so that rounding draws to whole numbers moves a share by
# no more than a percent.
_FEWEST_DRAWS = 64


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Sentences of one group and length.

    Attributes:
      group: of the mixture.
      codes: of each sentence.
      first, count: they are `BucketTable._order[first : first + count]`.
      draws: how many of them a pass draws; `count`, each of them once, where nothing is weighed.
    """

    group: int
    codes: int
    first: int
    count: int
    draws: int


class BucketTable:
    """The buckets of a corpus, and its sentences sorted by bucket.

    Attributes:
      buckets: by group, then by length.
    """

    buckets: list[Bucket]

    def __init__(
        self,
        lengths: UInt32[np.ndarray, " n"],
        group: UInt16[np.ndarray, " n"],
        rates: Float64[np.ndarray, " groups"],
    ):
        """Sorts the sentences.

        Args:
          lengths: codes of each sentence; those of 0 are left out.
          group: of each sentence.
          rates: how often each group is drawn in the time in which a group of rate 1 is drawn once.
        """
        # Counting in images, not codes, keeps the table of lengths as short as the longest sentence has images.
        unit = max(1, int(np.gcd.reduce(lengths)))
        images = lengths // np.uint32(unit)
        present = np.bincount(images) > 0
        distinct = np.flatnonzero(present) * unit
        rank = (np.cumsum(present) - 1).astype(np.uint32)
        # One key says group and length; sorted by it, every bucket is a slice.
        keys = group.astype(np.uint32) * np.uint32(len(distinct)) + rank[images]
        counts = np.bincount(keys, minlength=len(rates) * len(distinct))
        if len(counts) <= 1 << 16:
            keys = keys.astype(np.uint16)  # NumPy sorts two bytes by radix, four by comparing
        self._order = np.argsort(keys, kind="stable").astype(np.min_scalar_type(len(keys)))
        firsts = np.cumsum(counts) - counts
        found = [
            (divmod(int(key), len(distinct)), int(firsts[key]), int(counts[key]))
            for key in np.flatnonzero(counts)
        ]
        found = [f for f in found if distinct[f[0][1]] > 0]
        natural = bool((rates == 1).all())
        rarest = min(rates[group] * count for (group, _), _, count in found)
        scale = 1.0 if natural else max(1.0, _FEWEST_DRAWS / rarest)
        self.buckets = [
            Bucket(group, int(distinct[length]), first, count, round(scale * rates[group] * count))
            for (group, length), first, count in found
        ]

    def passes_of_groups(self, groups: int) -> Float64[np.ndarray, " groups"]:
        """How often a pass draws each sentence of a group, on average; 1 where nothing is weighed."""
        codes, drawn = np.zeros(groups), np.zeros(groups)
        for bucket in self.buckets:
            codes[bucket.group] += bucket.codes * bucket.count
            drawn[bucket.group] += bucket.codes * bucket.draws
        return drawn / np.maximum(codes, 1)

    def sentence(
        self,
        first: Int64[np.ndarray, " m"],
        count: Int64[np.ndarray, " m"],
        nth: Int64[np.ndarray, " m"],
        salt: Int64[np.ndarray, " m"],
        seed: int,
    ) -> Int64[np.ndarray, " m"]:
        """The `nth` sentence, counted from 0, that is drawn from each of some buckets (given by `first` and `count`).

        All of a bucket are drawn once, in an order of their own, before any is drawn again; `salt` names independent
        series of draws.
        """
        # Counted by bucket, not by pass of the rows: a weighted pass may draw half a bucket, or a bucket twice.
        round_of_bucket, position = np.divmod(nth, count)
        key = shuffle.keys(seed, salt, round_of_bucket)
        return self._order[first + shuffle.shuffled(position, count, key)].astype(np.int64)
