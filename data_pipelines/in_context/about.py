"""The composer of pools: a square of a picture around one object, with what is known about the object in it.

Shape legend: N boxes; H, W of a picture.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from data_pipelines.items import Boxes, Item, Kind, Mask, Picture, Text, Value
from data_pipelines.sentences.base import OneItem, Unfit, of_role, words_of_role
from lvm_jax.errors import UserError
from lvm_jax.pictures.boxes import draw_boxes

_ROUNDING = 1.0  # pixels that an annotator's box may reach outside; more is a mistake
_COLOUR = 1  # of drawn boxes, in the palette
_TAKER = "a pool"


@dataclasses.dataclass(frozen=True)
class About(OneItem):
    """One object: its picture, perhaps the picture with its boxes drawn, perhaps its mask, and facts as JSON.

    Roles of an item: `image`, `class`, `shows`, `boxes` (the object's own first), and of `mask` and `caption` at least
    one; `unseen` if the class is kept from training.

    Attributes:
      scale: smallest and largest share of the crop's side that the object's longer side takes, drawn evenly; the crop
        lies anywhere around the object. (): the whole picture, for captions that speak of all of it.
      boxed: adds the picture with its boxes drawn.
    """

    scale: tuple[float, ...] = ()
    boxed: bool = False

    def __post_init__(self) -> None:
        if self.scale and not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1):
            raise UserError(
                f"scale is {self.scale}: the smallest and the largest share of a crop's side, above 0 and at most 1"
            )

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 1 + self.boxed

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Value], str]:
        """The values of one record; see the class."""
        item = items[0]
        image, boxes_N4 = _image(item), _boxes(item)
        window = _window(boxes_N4[0], image, self.scale, rng)
        cut, boxes_N4 = window.of(image), window.boxes(boxes_N4)
        values: list[Value] = [cut]
        roles = ["image"]
        if self.boxed:
            thickness = max(1, round(min(cut.shape[:2]) / 40))
            ids = np.full(len(boxes_N4), _COLOUR)
            values.append(draw_boxes(boxes_N4, ids, cut.shape[:2], cut, thickness=thickness))
            roles.append("boxed")
        mask = _mask(item, image)
        if mask is not None:
            mask = Mask(window.of(mask.inside_HW))
            values.append(mask)
            roles.append("mask")
        values.append(_facts(item, boxes_N4, mask, cut))
        return values, ",".join([*roles, "facts"])


class _Window(NamedTuple):
    """A part of a picture, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, picture: Any) -> Any:
        """That part of an array."""
        return np.ascontiguousarray(
            picture[self.y : self.y + self.height, self.x : self.x + self.width]
        )

    def boxes(self, boxes_N4: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "M 4"]:
        """The boxes whose centres lie inside, cut off at its edges, in its pixels."""
        moved = boxes_N4 - np.array([self.x, self.y] * 2)
        ends = np.array([self.width, self.height], np.float64)
        centres = (moved[:, :2] + moved[:, 2:]) / 2
        inside = ((centres >= 0) & (centres <= ends)).all(1)
        return np.clip(moved[inside], 0, np.tile(ends, 2))


def _window(
    box: Float64[np.ndarray, " 4"],
    image: UInt8[np.ndarray, "H W 3"],
    scale: tuple[float, ...],
    rng: np.random.Generator,
) -> _Window:
    height, width = image.shape[:2]
    if not scale:
        return _Window(0, 0, width, height)
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = math.ceil(box[2]), math.ceil(box[3])
    smallest, largest = scale
    side = math.ceil(max(right - left, bottom - top) / rng.uniform(smallest, largest))
    # An object as long as a wide picture is needs more than the picture's height: then the crop is no square.
    w, h = min(side, width), min(side, height)
    x = rng.integers(max(0, right - w), min(left, width - w) + 1)
    y = rng.integers(max(0, bottom - h), min(top, height - h) + 1)
    return _Window(int(x), int(y), w, h)


def _image(item: Item) -> Picture:
    (image, *_) = of_role(item, "image", Kind.PICTURE, _TAKER)
    assert isinstance(image, np.ndarray)
    return image


def _boxes(item: Item) -> Float64[np.ndarray, "N 4"]:
    """The boxes, checked and within the picture."""
    (boxes, *_) = of_role(item, "boxes", Kind.BOXES, _TAKER)
    assert isinstance(boxes, Boxes)
    height, width = _image(item).shape[:2]
    corners_N4 = boxes.corners_N4.astype(np.float64)
    ends = np.array([width, height] * 2, np.float64)
    inside_N4 = np.clip(corners_N4, 0, ends)
    wrong = (np.abs(inside_N4 - corners_N4) > _ROUNDING).any(1)
    wrong |= (inside_N4[:, 2:] <= inside_N4[:, :2]).any(1) | ~np.isfinite(corners_N4).all(1)
    if wrong.any():
        told = corners_N4[wrong][0].tolist()
        raise Unfit(
            0, f"its box {told} is empty or lies outside its picture of {width}x{height} pixels"
        )
    if not len(inside_N4):
        raise Unfit(0, "it has no box")
    return inside_N4


def _mask(item: Item, image: UInt8[np.ndarray, "H W 3"]) -> Mask | None:
    if not item.get("mask"):
        return None
    (mask, *_) = of_role(item, "mask", Kind.MASK, _TAKER)
    assert isinstance(mask, Mask)
    if mask.inside_HW.shape != image.shape[:2]:
        theirs, ours = (f"{w}x{h}" for h, w in (mask.inside_HW.shape, image.shape[:2]))
        raise Unfit(0, f"its mask is {theirs} pixels, its picture {ours}")
    return mask


def _facts(
    item: Item,
    boxes_N4: Float64[np.ndarray, "N 4"],
    mask: Mask | None,
    cut: UInt8[np.ndarray, "H W 3"],
) -> Text:
    height, width = cut.shape[:2]
    shares = boxes_N4 / np.array([width, height] * 2, np.float64)
    if mask is None:
        sizes = shares[:, 2:] - shares[:, :2]
        area = float(min(1.0, sizes.prod(1).sum()))
    else:
        area = float(mask.inside_HW.mean())
    facts = {
        "class": words_of_role(item, "class", _TAKER),
        "shows": words_of_role(item, "shows", _TAKER),
        "caption": words_of_role(item, "caption", _TAKER) if item.get("caption") else "",
        "unseen": bool(item.get("unseen")),
        # 1e-6: a caption's bins are a thousandth of an edge.
        "boxes": [[round(share, 6) for share in box] for box in shares.tolist()],
        "area": area,
    }
    return Text(json.dumps(facts, sort_keys=True))
