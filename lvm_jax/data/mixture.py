"""How much of the training data comes from where: weights by data set, by source, or by category.

A weight is a share of the images, relative to the other weights: `{"laion": 9, "coco": 1}` draws nine images of laion
for one of coco, however many each has. A data set too small for its share is repeated more often, and every step knows
how often. A weight of 0 leaves a group out. Without weights, everything is seen once before anything is seen again.

A weight names a data set (NAME of `uvd_NAME-train.tfrecord-...`), a source of the manifest, or `category/NAME`. If a
data set and a source share a name but not their contents, write `dataset/NAME` or `source/NAME`. Exactly one of the
names must cover each origin.

This module knows names and counts only; the schema of the records says what categories and origins are.

Shape legend: O origins, G groups.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from lvm_jax.errors import UserError


class Origin(NamedTuple):
    """The smallest unit that can be weighted: one source and category within one data set."""

    dataset: str
    source: str
    category: str


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Groups of origins, and the share of the images that each group gets.

    Attributes:
      names: of the groups; without weights, one group named "all".
      group_of: the group of each origin.
      shares: of the images, by group; they sum to 1. None: the natural shares, each image once a pass.
    """

    names: tuple[str, ...]
    group_of: tuple[int, ...]
    shares: tuple[float, ...] | None

    def rates(self, images: Int64[np.ndarray, " O"]) -> Float64[np.ndarray, " G"]:
        """How often each group is seen in as many draws as there are images; 1 without weights.

        Args:
          images: number of images of each origin.
        """
        if self.shares is None:
            return np.ones(1)
        available = np.bincount(self.group_of, weights=images, minlength=len(self.names))
        return np.asarray(self.shares) * images.sum() / available


def parse_weights(text: str) -> dict[str, float]:
    """Parses `"laion=9,category/unlabelled_video=1"`; empty text means no weights.

    Raises:
      UserError: an entry that is not NAME=NUMBER, or a name given twice.
    """
    weights: dict[str, float] = {}
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        name, _, value = (word.strip() for word in entry.rpartition("="))
        try:
            number = float(value)
        except ValueError:
            number = None
        if not name or number is None:
            raise UserError(f"weights have the entry {entry!r}: write NAME=NUMBER, such as laion=9")
        if name in weights:
            raise UserError(f"weights name {name!r} twice: keep one of the two")
        weights[name] = number
    return weights


def make_mixture(
    origins: Sequence[Origin],
    images: Int64[np.ndarray, " O"],
    weights: Mapping[str, float],
) -> Mixture:
    """Groups origins by the names of the weights.

    Args:
      origins: all there are.
      images: number of images of each origin.
      weights: name -> weight; empty: everything once a pass.

    Raises:
      UserError: a weight is negative or not a number, or all are 0; a name matches no origin, or none with images; two
        names match one origin; an origin with images has no weight.
    """
    if not weights:
        return Mixture(("all",), (0,) * len(origins), None)
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(
                f"the weight of {name!r} is {weight}: it must be a number, 0 (left out) or more"
            )
    if not any(weights.values()):
        raise UserError(f"all weights are 0 ({', '.join(weights)}): at least one must be above 0")
    group_of: list[int | None] = [None] * len(origins)
    names = tuple(weights)
    for group, name in enumerate(names):
        members = _members(name, origins)
        if not images[members].sum():
            raise UserError(f"{name!r} has a weight, but no sentence in this split: remove it")
        for member in members:
            other = group_of[member]
            if other is not None:
                raise UserError(
                    f"the weights {names[other]!r} and {name!r} both hold {_described(origins[member])}: "
                    "weight names that do not overlap"
                )
            group_of[member] = group
    # An origin without images draws nothing, so it needs no weight.
    left = [o for o, group, n in zip(origins, group_of, images, strict=True) if group is None and n]
    if left:
        raise UserError(
            f"{_described(left[0])} has no weight: weight its data set, its source or its category too, "
            "or leave it out of shards"
        )
    total = sum(weights.values())
    return Mixture(
        names,
        tuple(group or 0 for group in group_of),
        tuple(weight / total for weight in weights.values()),
    )


def _members(name: str, origins: Sequence[Origin]) -> list[int]:
    """The numbers of the origins that a weight's name covers."""
    prefix, _, rest = name.partition("/")
    by_dataset = [i for i, origin in enumerate(origins) if origin.dataset == name]
    by_source = [i for i, origin in enumerate(origins) if origin.source == name]
    # A data set often has one source of the same name: then both readings mean the same origins.
    if by_dataset and by_source and by_dataset != by_source:
        raise UserError(
            f"the weight {name!r} names a data set and a source with other sentences: "
            f"write 'dataset/{name}' or 'source/{name}'"
        )
    members = by_dataset or by_source
    if prefix == "dataset":
        members += [i for i, origin in enumerate(origins) if origin.dataset == rest]
    elif prefix == "source":
        members += [i for i, origin in enumerate(origins) if origin.source == rest]
    elif prefix == "category":
        members += [i for i, origin in enumerate(origins) if origin.category == rest]
    if not members:
        datasets, sources = {o.dataset for o in origins}, {o.source for o in origins}
        categories = {f"category/{o.category}" for o in origins}
        known = ", ".join([*sorted(datasets | sources), *sorted(categories)])
        raise UserError(f"the weight {name!r} names nothing in the shards: they have {known}")
    return members


def _described(origin: Origin) -> str:
    return f"source {origin.source!r} ({origin.category}) of the data set {origin.dataset!r}"
