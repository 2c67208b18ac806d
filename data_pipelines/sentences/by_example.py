"""Pairs under a rule that is drawn for the sentence: only its other pairs tell what the query's answer is.

The composers `class_mask`, `palette`, `recolour`, `attribute` and `transformation` are of this sort. An answer is a
function of its query and of the rule, never of the query alone.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import (
    Groups,
    Unfit,
    check_class_of,
    check_positive,
    class_groups,
    permuted_groups,
)
from lvm_jax.data.sentences.visual_sentence import compact_layout
from lvm_jax.errors import UserError

# A class, by its colour, or an attribute, by aspect and value.
Rule = TypeVar("Rule", int, tuple[str, str])
Pair = tuple[Picture, Picture]  # query and answer


@dataclasses.dataclass(frozen=True)
class ByExample:
    """Base class: groups items, and lays out the pairs that `pairs` makes of them.

    Attributes:
      n_pairs: pairs in a sentence.
      pool: items that a sentence chooses its pairs from. A rule must fit as many of them as there are pairs; where
        `class_of` cannot bring items together that share one, such as files without a class in their names, a larger
        pool finds them. 0: `n_pairs`.
      class_of: a regular expression for whole keys; the items of a sentence have the same first group. Empty: any
        items come together.
    """

    n_pairs: int = 8
    pool: int = 0
    class_of: str = ""

    def __post_init__(self):
        check_positive("n_pairs", self.n_pairs)
        if self.class_of:
            check_class_of(self.class_of)
        if self.pool and self.pool < self.n_pairs:
            raise UserError(
                f"pool is {self.pool}: it must be at least n_pairs, {self.n_pairs}, or 0 for as many"
            )

    def refuse_pool(self) -> None:
        """For composers whose rules fit any item: they would never show what is beyond the first `n_pairs`."""
        if self.pool > self.n_pairs:
            raise UserError(f"pool is {self.pool}: {self.role} suits any items, leave it 0")

    @property
    def role(self) -> str:
        """The role of the answers; it names the task."""
        raise NotImplementedError

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 2 * self.n_pairs

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return self.pool or self.n_pairs

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`; a class with too few items for a sentence is left out."""
        size = self.max_items
        if self.class_of:
            return class_groups(keys, self.class_of, size, fewest=size, rng=rng)
        return permuted_groups(keys, size, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        pairs = self.pairs(items, rng)
        return [x for pair in pairs for x in pair], compact_layout(
            ["image", self.role] * len(pairs)
        )

    def pairs(self, items: Sequence[Item], rng: np.random.Generator) -> list[Pair]:
        """`n_pairs` of the items as pairs, under a rule that it draws.

        Raises:
          Unfit: no rule fits enough items, or an item lacks something.
        """
        raise NotImplementedError

    def shared(self, offered: Sequence[Collection[Rule]], what: str) -> dict[Rule, list[int]]:
        """Rules that fit enough items -> the positions of the first `n_pairs` that each fits; sorted.

        Args:
          offered: the rules that fit each item.
          what: names a rule in the message.

        Raises:
          Unfit: there is none.
        """
        positions: dict[Rule, list[int]] = {}
        for position, rules in enumerate(offered):
            for rule in rules:
                positions.setdefault(rule, []).append(position)
        enough = {
            rule: positions[rule][: self.n_pairs]
            for rule in sorted(positions)
            if len(positions[rule]) >= self.n_pairs
        }
        if not enough:
            most = max(positions.values(), key=len, default=[])
            left_out = next(i for i in range(len(offered)) if i not in most)
            raise Unfit(
                left_out,
                f"no {what} suits {self.n_pairs} of the {len(offered)} items it was grouped with: set class_of, or a "
                "larger pool",
            )
        return enough
