"""Drawn things with exact truth in masks, boxes and words, made when they are asked for.

A scene has two or three things, each in a quarter of its own, so that none covers another and "on the upper left" is
true. Every word of a caption follows from how the thing was drawn.
"""

import dataclasses
import itertools
import math

import numpy as np
from jaxtyping import UInt8

from data_pipelines.chance import rng_of
from data_pipelines.hues import HUES, rgb_of
from data_pipelines.in_context.keys import object_key, parts_of, picture_id
from data_pipelines.items import Boxes, Item, Mask, Text
from data_pipelines.synthetic.drawn import SUPERSAMPLING, Drawing, Thing, draw
from data_pipelines.synthetic.grounds import random_ground
from data_pipelines.synthetic.outlines import OUTLINES
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.data.splits import stable_fraction
from lvm_jax.errors import UserError

_LEAST_SIZE = 16
# What tells things apart, in the order of words.
_WORDS = ("texture", "colour", "form")
_TEXTURES = ("plain", "striped")
# Radii of a small and of a large thing, in sides of the picture: nothing lies between them.
_RADII = {"small": (0.10, 0.13), "large": (0.18, 0.23)}
# The centres of the quarters; a thing stays inside its own.
_QUARTERS = {
    "upper left": (0.25, 0.25),
    "upper right": (0.75, 0.25),
    "lower left": (0.25, 0.75),
    "lower right": (0.75, 0.75),
}
DEPTH = 5.0  # of all things: none is in front of another
GREY = 48  # of the ground in one shade: far from all colours, and from the black and white of masks
LIGHT = (0.0, 0.3, 0.954)
HAZE = 0.6
SHADE = (0.9, 0.9)  # saturation and value where each colour has one shade


@dataclasses.dataclass(frozen=True)
class DrawnObjects:
    """Objects of `count` scenes: `{"image", "mask", "boxes", "class", "caption", "shows"}`.

    The things of a scene are of different classes. A class that training must not see stands in no scene of training,
    not even beside another.

    Attributes:
      count: scenes of seen classes; each class is the first thing's in equally many.
      held_out: scenes whose first thing is of an unseen class.
      every_thing: all things of a scene are objects, so that one picture has several answers; else the first is one.
      class_words: what tells classes apart: some of texture, colour, form. "red ring" is a class of colour and form.
      unseen: names of classes that training must not see, or "" for a share of all.
      unseen_share: of the classes, picked by a hash of their names, if `unseen` names none.
      things: fewest and most in a scene.
      size: of the square picture, pixels.
      plain_ground: a single colour behind the things, not a pattern.
      one_shade: each colour in one shade, all grounds in one grey, no shadows: equal parts of things look alike in all
        pictures, and a tokenizer whose codes are canonical gives them one code.
      seed: of the scenes.
    """

    count: int = 10_000
    held_out: int = 500
    every_thing: bool = False
    class_words: tuple[str, ...] = ("colour", "form")
    unseen: tuple[str, ...] = ()
    unseen_share: float = 0.25
    things: tuple[int, ...] = (2, 3)
    size: int = 64
    plain_ground: bool = False
    one_shade: bool = False
    seed: int = 0
    name: str = "drawn_objects"
    licence: str = "Apache-2.0"
    origin: str = "drawn by data_pipelines.synthetic.drawn"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        if self.count < 1 or self.held_out < 0 or self.size < _LEAST_SIZE:
            raise UserError(
                f"count is {self.count}, held_out {self.held_out}, size {self.size}: at least 1 object, none or more "
                f"held out, and at least {_LEAST_SIZE} pixels"
            )
        if len(self.things) != 2 or not 1 <= self.things[0] <= self.things[1] <= len(_QUARTERS):
            raise UserError(
                f"things is {self.things}: fewest and most in a scene, from 1 to {len(_QUARTERS)}"
            )
        if not self.class_words or not set(self.class_words) <= set(_WORDS):
            raise UserError(f"class_words is {self.class_words}: some of {', '.join(_WORDS)}")
        if not 0 <= self.unseen_share <= 1:
            raise UserError(f"unseen_share is {self.unseen_share}: a share of the classes, 0 to 1")
        seen, unseen = self.classes()
        wrong = sorted(set(self.unseen) - set(unseen))
        if wrong:
            raise UserError(f"unseen has {wrong[0]!r}, which is no class: one is {seen[0]!r}")
        if len(seen) < self.things[1] or (self.held_out and not unseen):
            raise UserError(
                f"{len(seen)} classes are seen and {len(unseen)} unseen: a scene needs {self.things[1]} seen ones, and "
                "held-out objects an unseen one; change unseen, unseen_share or held_out"
            )

    @property
    def root(self) -> str:
        """Names the scenes: entries of one seed show the same ones, and must hold out the same."""
        return f"drawn objects of seed {self.seed}, {self.name}"

    def classes(self) -> tuple[list[str], list[str]]:
        """The names of the classes that are seen, and of those that are not."""
        chosen = [word for word in _WORDS if word in self.class_words]
        values = {"texture": _TEXTURES, "colour": tuple(HUES), "form": tuple(OUTLINES)}
        names = [" ".join(words) for words in itertools.product(*(values[w] for w in chosen))]
        unseen = set(self.unseen) & set(names)
        if not self.unseen:
            # The lowest hashes, for the exact number.
            ordered = sorted(names, key=lambda name: (stable_fraction(name), name))
            unseen = set(ordered[: round(self.unseen_share * len(names))])
        return [n for n in names if n not in unseen], [n for n in names if n in unseen]

    def keys(self) -> list[str]:
        """See `keys`; a picture is a number, and its object the class."""
        seen, unseen = self.classes()
        found: list[str] = []
        # Numbers go on, so that no two scenes share one.
        for number in range(self.count + self.held_out):
            is_held_out, scene = number >= self.count, f"{number:07d}"
            first = self._first(number, seen, unseen)
            names = [first]
            if self.every_thing:
                names = self._names(first, seen, self._rng(object_key(scene, first, is_held_out)))
            found += [object_key(scene, name, is_held_out) for name in names]
        return sorted(found)

    def load(self, key: str) -> Item:
        """One object with its scene; see `Source`."""
        scene, name = parts_of(key)
        seen, unseen = self.classes()
        first = self._first(int(scene), seen, unseen) if self.every_thing else name
        rng = self._rng(object_key(scene, first, key.startswith("held_out/")))
        names = self._names(first, seen, rng)
        quarters = [tuple(_QUARTERS)[i] for i in rng.permutation(len(_QUARTERS))]
        placed = [
            self._thing(one, quarter, rng) for one, quarter in zip(names, quarters, strict=False)
        ]
        things, captions = zip(*placed, strict=True)
        frame = draw(self._drawing(things, rng), self.size)
        place = names.index(name)
        return {
            "image": [frame.image],
            "mask": [Mask(frame.segmentation == place + 1)],
            "boxes": [Boxes(frame.boxes[place : place + 1], (name,))],
            "class": [Text(name)],
            "caption": [Text(captions[place])],
            "shows": [Text(picture_id(self.name, scene))],
            "unseen": [Text(name)] if name in unseen else [],
        }

    def _rng(self, first: str) -> np.random.Generator:
        """Of a scene, by the key of its first thing."""
        return rng_of(self.seed, "object", self.name, first)

    def _first(self, number: int, seen: list[str], unseen: list[str]) -> str:
        """The class of the first thing of a scene."""
        beyond = number - self.count
        return seen[number % len(seen)] if beyond < 0 else unseen[beyond % len(unseen)]

    def _names(self, first: str, seen: list[str], rng: np.random.Generator) -> list[str]:
        """The classes of a scene's things; what is drawn first of a scene."""
        others = [other for other in seen if other != first]
        more = int(rng.integers(self.things[0], self.things[1] + 1)) - 1
        return [first, *(others[i] for i in rng.choice(len(others), more, replace=False))]

    def _drawing(self, things: tuple[Thing, ...], rng: np.random.Generator) -> Drawing:
        ground = random_ground(rng, SUPERSAMPLING * self.size)
        if self.one_shade:
            ground[:] = GREY
        elif self.plain_ground:
            ground[:] = ground[0, 0]
        return Drawing(things, ground, LIGHT, haze=HAZE, shadows=not self.one_shade)

    def _thing(self, name: str, quarter: str, rng: np.random.Generator) -> tuple[Thing, str]:
        """A thing of a class, and what is true of it."""
        said = self._words(name, rng)
        size = tuple(_RADII)[int(rng.integers(len(_RADII)))]
        radius = float(rng.uniform(*_RADII[size]))
        x, y = (float(c + rng.uniform(-1, 1) * (0.24 - radius)) for c in _QUARTERS[quarter])
        hue, saturation, value, turn, stripes = rng.random(5).tolist()
        if self.one_shade:
            hue = saturation = value = stripes = 0.5  # the middle: HUES with SHADE
        thing = Thing(
            kind=said["form"],
            colour=rgb_of(
                HUES[said["colour"]] + 8 * hue - 4, 0.8 + 0.2 * saturation, 0.8 + 0.2 * value
            ),
            x=x,
            y=y,
            radius=radius,
            turn=2 * math.pi * turn,
            depth=DEPTH,
            stripes=0.35 + 0.2 * stripes if said["texture"] == "striped" else 0.0,
        )
        texture = "striped " if said["texture"] == "striped" else ""
        caption = f"a {size} {texture}{said['colour']} {said['form']} on the {quarter}"
        return thing, caption

    def _words(self, name: str, rng: np.random.Generator) -> dict[str, str]:
        """Texture, colour and form of a class; what its name leaves open is drawn."""
        drawn = {
            "texture": _TEXTURES[0],  # stripes only where they tell classes apart
            "colour": tuple(HUES)[int(rng.integers(len(HUES)))],
            "form": tuple(OUTLINES)[int(rng.integers(len(OUTLINES)))],
        }
        chosen = [word for word in _WORDS if word in self.class_words]
        return drawn | dict(zip(chosen, name.split(), strict=True))


def shade_of(colour: str) -> UInt8[np.ndarray, " 3"]:
    """How a thing of a colour looks in one shade, in the middle of its picture."""
    size = SUPERSAMPLING * _LEAST_SIZE
    rgb = rgb_of(HUES[colour], *SHADE)
    thing = Thing("disc", rgb, x=0.5, y=0.5, radius=0.4, turn=0.0, depth=DEPTH)
    ground = np.full((size, size, 3), GREY, np.uint8)
    return draw(Drawing((thing,), ground, LIGHT, HAZE, shadows=False), _LEAST_SIZE).image[
        _LEAST_SIZE // 2, _LEAST_SIZE // 2
    ]
