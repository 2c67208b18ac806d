"""Crowds of drawn things in a few colours: whoever answers about a colour has to find all things that have it.

A scene of two or three things asks for one place, and the words about it hold a handful of decisions that the picture
makes. In a crowd each thing is one, in the mask and in the list of boxes, so a small decoder soon learns to look; what
it learns holds for scenes of `drawn_objects`, which have the same things. See docs/notes.md.
"""

import dataclasses
import math

import numpy as np

from data_pipelines.chance import rng_of
from data_pipelines.hues import HUES, rgb_of
from data_pipelines.in_context.drawn_objects import DEPTH, GREY, HAZE, LIGHT, SHADE, DrawnObjects
from data_pipelines.in_context.keys import object_key, parts_of, picture_id
from data_pipelines.items import Boxes, Item, Mask, Text
from data_pipelines.synthetic.drawn import SUPERSAMPLING, Drawing, Thing, draw
from data_pipelines.synthetic.outlines import OUTLINES
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

_SIDE = 3  # cells along an edge, one thing in each at most
_RADII = (0.10, 0.14)  # in sides of the picture; less than half a cell
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True)
class DrawnCrowds:
    """Colours of `count` scenes: `{"image", "mask", "boxes", "class", "caption", "shows"}`.

    A class is a colour; its mask and its boxes are those of all things that have it, from left to right and from top
    to bottom, and its caption counts them. Colours that `DrawnObjects` keeps from training are in no scene.

    Attributes:
      count: scenes.
      things: fewest and most in a scene.
      colours: fewest and most in a scene; each is some thing's.
      unseen_share: of the colours, as in `DrawnObjects`.
      size: of the square picture, pixels.
      seed: of the scenes.
    """

    count: int = 2_000
    things: tuple[int, ...] = (5, 9)
    colours: tuple[int, ...] = (2, 4)
    unseen_share: float = 0.25
    size: int = 32
    seed: int = 0
    name: str = "drawn_crowds"
    licence: str = "Apache-2.0"
    origin: str = "drawn by data_pipelines.synthetic.drawn"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count is {self.count}: at least 1 scene")
        for name, most in (("things", _SIDE**2), ("colours", min(self.things))):
            value = getattr(self, name)
            if len(value) != 2 or not 1 <= value[0] <= value[1] <= most:
                raise UserError(f"{name} is {value}: fewest and most in a scene, from 1 to {most}")
        if len(self._seen()) < self.colours[1]:
            raise UserError(
                f"colours is {self.colours} and only {len(self._seen())} are seen in training: take fewer, or a "
                "smaller unseen_share"
            )

    @property
    def root(self) -> str:
        """Names the scenes: entries of one seed show the same ones, and must hold out the same."""
        return f"drawn crowds of seed {self.seed}, {self.name}"

    def keys(self) -> list[str]:
        """See `keys`; a picture is a number, and its object the colour."""
        scenes = (f"{number:07d}" for number in range(self.count))
        return sorted(
            object_key(scene, colour, False) for scene in scenes for colour in set(self._of(scene))
        )

    def load(self, key: str) -> Item:
        """One colour with its scene; see `Source`."""
        scene, name = parts_of(key)
        colours = self._of(scene)
        rng = rng_of(self.seed, "scene", self.name, scene)
        # Cells in order, so that the things of a colour come as people read.
        cells = sorted(rng.permutation(_SIDE**2)[: len(colours)].tolist())
        things = tuple(self._thing(*pair, rng) for pair in zip(colours, cells, strict=True))
        ground = np.full((SUPERSAMPLING * self.size,) * 2 + (3,), GREY, np.uint8)
        frame = draw(Drawing(things, ground, LIGHT, HAZE, shadows=False), self.size)
        places = [place for place, colour in enumerate(colours) if colour == name]
        things_or_thing = "thing" if len(places) == 1 else "things"
        return {
            "image": [frame.image],
            "mask": [Mask(np.isin(frame.segmentation, np.array(places) + 1))],
            "boxes": [Boxes(frame.boxes[places], (name,) * len(places))],
            "class": [Text(name)],
            "caption": [Text(f"{_NUMBERS[len(places) - 1]} {name} {things_or_thing}")],
            "shows": [Text(picture_id(self.name, scene))],
            "unseen": [],
        }

    def _seen(self) -> list[str]:
        # Its scenes have their own demands on the number of colours; here the names are wanted.
        one = DrawnObjects(
            1, 0, class_words=("colour",), unseen_share=self.unseen_share, things=(1, 1)
        )
        return one.classes()[0]

    def _of(self, scene: str) -> list[str]:
        """The colours of a scene's things, each of its colours at least once."""
        rng, seen = rng_of(self.seed, "colours", self.name, scene), self._seen()
        kinds = int(rng.integers(self.colours[0], self.colours[1] + 1))
        chosen = [seen[i] for i in rng.permutation(len(seen))[:kinds]]
        count = int(rng.integers(max(self.things[0], kinds), self.things[1] + 1))
        more = [chosen[i] for i in rng.integers(kinds, size=count - kinds)]
        return [(chosen + more)[i] for i in rng.permutation(count)]

    def _thing(self, colour: str, cell: int, rng: np.random.Generator) -> Thing:
        row, column = divmod(cell, _SIDE)
        radius = float(rng.uniform(*_RADII))
        x, y = ((place + 0.5) / _SIDE for place in (column, row))
        free = 0.5 / _SIDE - radius
        return Thing(
            kind=tuple(OUTLINES)[int(rng.integers(len(OUTLINES)))],
            colour=rgb_of(HUES[colour], *SHADE),
            x=x + free * float(rng.uniform(-1, 1)),
            y=y + free * float(rng.uniform(-1, 1)),
            radius=radius,
            turn=2 * math.pi * float(rng.random()),
            depth=DEPTH,
        )
