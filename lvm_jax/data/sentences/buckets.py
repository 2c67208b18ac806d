"""Kinds of sentences: the unit in which rows are planned.

A kind is all sentences of one mixture group and one length. A corpus of a billion sentences has a few dozen kinds, so
whatever is planned by kind takes no memory; which sentence it is that fills a place is found when it is needed, by
a permutation (`shuffle`). What grows with the corpus is one uint32 a sentence: the sentences, sorted by kind.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64, UInt16, UInt32

from lvm_jax.data import shuffle


@dataclasses.dataclass(frozen=True)
class Kind:
    """Sentences of one group and length.

    Attributes:
      group: of the mixture.
      codes: of each sentence.
      first, count: they are `KindTable.order[first : first + count]`.
      draws: how many of them a pass draws; `count`, each of them once, where nothing is weighed.
    """

    group: int
    codes: int
    first: int
    count: int
    draws: int


class KindTable:
    """The kinds of a corpus, and its sentences sorted by kind.

    Attributes:
      kinds: by group, then by length.
    """

    kinds: list[Kind]

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
        unit = max(1, int(np.gcd.reduce(lengths)))  # an image
        images = lengths // np.uint32(unit)
        present = np.bincount(images) > 0
        distinct = np.flatnonzero(present) * unit
        rank = (np.cumsum(present) - 1).astype(np.uint32)
        keys = group.astype(np.uint32) * np.uint32(len(distinct)) + rank[images]
        counts = np.bincount(keys, minlength=len(rates) * len(distinct))
        if len(counts) <= 1 << 16:
            keys = keys.astype(np.uint16)  # sorted by radix
        self._order = np.argsort(keys, kind="stable").astype(np.min_scalar_type(len(keys)))
        firsts = np.cumsum(counts) - counts
        found = [
            (divmod(int(key), len(distinct)), int(firsts[key]), int(counts[key]))
            for key in np.flatnonzero(counts)
        ]
        found = [f for f in found if distinct[f[0][1]] > 0]
        # A pass is long enough for the rarest kind to be drawn as often as it should be, to a percent.
        natural = bool((rates == 1).all())
        rarest = min(rates[group] * count for (group, _), _, count in found)
        scale = 1.0 if natural else max(1.0, 64 / rarest)
        self.kinds = [
            Kind(group, int(distinct[length]), first, count, round(scale * rates[group] * count))
            for (group, length), first, count in found
        ]

    def passes_of_groups(self, groups: int) -> Float64[np.ndarray, " groups"]:
        """How often a pass draws each sentence of a group, on average; 1 where nothing is weighed."""
        codes, drawn = np.zeros(groups), np.zeros(groups)
        for kind in self.kinds:
            codes[kind.group] += kind.codes * kind.count
            drawn[kind.group] += kind.codes * kind.draws
        return drawn / np.maximum(codes, 1)

    def sentence(
        self,
        first: Int64[np.ndarray, " m"],
        count: Int64[np.ndarray, " m"],
        nth: Int64[np.ndarray, " m"],
        salt: Int64[np.ndarray, " m"],
        seed: int,
    ) -> Int64[np.ndarray, " m"]:
        """The `nth` sentence that is drawn from each of some kinds (given by `first` and `count`), counted from 0.

        All of a kind are drawn once, in an order of their own, before any is drawn again; `salt` names independent
        series of draws.
        """
        epoch, position = np.divmod(nth, count)
        key = shuffle.keys(seed, salt, epoch)
        return self._order[first + shuffle.shuffled(position, count, key)].astype(np.int64)
