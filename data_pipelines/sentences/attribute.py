"""Masks of what an attribute points out: the largest, the leftmost, the nearest, the red ones.

Shape legend: H, W of a picture.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from data_pipelines.hues import hue_name
from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import aligned
from data_pipelines.sentences.by_example import ByExample, Pair
from data_pipelines.sentences.coloured import areas, colour_ids, connected
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

ASPECTS = ("size", "place", "distance", "colour")
_LEAST_AREA = 0.005  # of the picture; what shows less is no object
# How far the first must be ahead of the second: a factor of area, shares of the side, a level of depth in [0, 1].
_AREA_APART, _PLACE_APART, _DEPTH_APART = 1.15, 0.04, 0.03

Mask = Bool[np.ndarray, "H W"]
Rule = tuple[str, str]  # aspect and value, such as ("size", "largest")


@dataclasses.dataclass(frozen=True)
class Attribute(ByExample):
    """The mask of what one attribute points out, drawn for the sentence: `image,attribute,image,attribute`.

    The largest or smallest object, the leftmost, rightmost, highest or lowest, the nearest or farthest, or those of a
    colour with a name. Only attributes that are clear in every picture are drawn.

    Attributes:
      objects: the role that has a colour for each object, on black.
      depth: the role whose bright pixels are near; empty leaves out near and far.
      connected: takes each connected area of a colour for an object, as where `objects` has the colours of classes.
      aspects: which of `ASPECTS` it chooses from; "distance" needs `depth`.
    """

    objects: str = "instances"
    depth: str = ""
    connected: bool = False
    aspects: tuple[str, ...] = ASPECTS

    def __post_init__(self):
        super().__post_init__()
        unknown = sorted(set(self.aspects) - set(ASPECTS))
        if unknown or not self.aspects:
            raise UserError(f"aspects is {self.aspects}: name some of {', '.join(ASPECTS)}")
        if not self.depth and set(self.aspects) == {"distance"}:
            raise UserError(
                "aspects is 'distance' alone: name the role of the depth, as in depth='depth'"
            )

    @property
    def role(self) -> str:
        """See `ByExample`."""
        return "attribute"

    def pairs(self, items: Sequence[Item], rng: np.random.Generator) -> list[Pair]:
        """See `ByExample`."""
        told = [self._pointed_out(items, i) for i in range(len(items))]
        shared = self.shared(told, "attribute")
        # The aspect first, or the four places would be drawn four times as often as a colour.
        aspects = sorted({aspect for aspect, _ in shared})
        aspect = aspects[int(rng.integers(len(aspects)))]
        rules = [rule for rule in shared if rule[0] == aspect]
        rule = rules[int(rng.integers(len(rules)))]
        return [
            (aligned(items, i, ("image",))[0], maps.mask_to_rgb(told[i][rule]))
            for i in shared[rule]
        ]

    def _pointed_out(self, items: Sequence[Item], position: int) -> Mapping[Rule, Mask]:
        """The attributes that are clear in a picture, and what each points out."""
        roles = ("image", self.objects, *((self.depth,) if self.depth else ()))
        image, objects, *depths = aligned(items, position, roles)
        masks = self._masks(colour_ids(objects), position)
        if len(masks) < 2:
            return {}
        found = _extremes(_numbers(masks), masks) | _coloured(image, masks)
        for depth in depths:
            levels = [float(depth[mask].mean()) / 255 for mask in masks]
            near = _Scale("distance", "farthest", "nearest", levels, _DEPTH_APART)
            found |= _extremes([near], masks)
        return {rule: mask for rule, mask in found.items() if rule[0] in self.aspects}

    def _masks(self, ids_HW: np.ndarray, position: int) -> list[Mask]:
        least = _LEAST_AREA * ids_HW.size
        masks = [ids_HW == colour for colour in areas(ids_HW, position, self.objects)]
        if self.connected:
            masks = [part for mask in masks for part in connected(mask)]
        return [mask for mask in masks if np.count_nonzero(mask) >= least]


class _Scale(NamedTuple):
    """Numbers by which objects are compared.

    Attributes:
      aspect, least, most: the names of the two rules.
      numbers: of the objects.
      apart: how far the first must be ahead of the second.
    """

    aspect: str
    least: str
    most: str
    numbers: list[float]
    apart: float


def _numbers(masks: Sequence[Mask]) -> list[_Scale]:
    height, width = masks[0].shape
    points = [np.nonzero(mask) for mask in masks]
    logs = [float(np.log(len(y))) for y, _ in points]
    across = [float(x.mean()) / width for _, x in points]
    down = [float(y.mean()) / height for y, _ in points]
    return [
        _Scale("size", "smallest", "largest", logs, float(np.log(_AREA_APART))),
        _Scale("place", "leftmost", "rightmost", across, _PLACE_APART),
        _Scale("place", "highest", "lowest", down, _PLACE_APART),
    ]


def _extremes(scales: Sequence[_Scale], masks: Sequence[Mask]) -> dict[Rule, Mask]:
    """The first and the last object of each scale, where they are clear of the others."""
    found = {}
    for scale in scales:
        order = np.argsort(scale.numbers, kind="stable")
        ranked = [scale.numbers[i] for i in order]
        if ranked[1] - ranked[0] >= scale.apart:
            found[scale.aspect, scale.least] = masks[order[0]]
        if ranked[-1] - ranked[-2] >= scale.apart:
            found[scale.aspect, scale.most] = masks[order[-1]]
    return found


def _coloured(image: Picture, masks: Sequence[Mask]) -> dict[Rule, Mask]:
    """All objects of each colour with a name; none if an object's colour has no name, as it might count or not."""
    names = [hue_name(tuple(image[mask].mean(axis=0).tolist())) for mask in masks]
    found: dict[Rule, Mask] = {}
    if None in names:
        return found
    for name in sorted({name for name in names if name}):
        of_colour = [mask for mask, other in zip(masks, names, strict=True) if other == name]
        found["colour", name] = np.logical_or.reduce(of_colour)
    return found
