"""Coloured shapes on paper and what they are: what the old vocabulary sees, and text has no part in.

Shape legend: H, W of the picture.
"""

import dataclasses

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from data_pipelines.documents import sides
from data_pipelines.documents.lines import check_range
from data_pipelines.items import Item, Text
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

_COLOURS = {
    "red": "#d62728",
    "green": "#2ca02c",
    "blue": "#1f77b4",
    "gold": "#e6b800",
    "pink": "#e377c2",
    "black": "#202020",
}
_SHAPES = ("disc", "ring", "square", "cross")


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes named from left to right, `red disc, blue ring`: `{"image": [x], "text": [Text], "facets": [Text]}`.

    Attributes:
      count, held_out: number of seen and of held-out pictures.
      height, width: of the picture in pixels.
      shapes: fewest and most shapes.
      sizes: smallest and largest side of a shape in pixels.
      held_out_texts: share of the answers that only held-out pictures have.
      seed: of every draw.
    """

    count: int = 1000
    held_out: int = 100
    height: int = 32
    width: int = 128
    shapes: tuple[int, ...] = (1, 2)
    sizes: tuple[int, ...] = (16, 26)
    held_out_texts: float = 0.1
    seed: int = 0
    name: str = "shapes"
    licence: str = "Apache-2.0"
    origin: str = "random shapes and colours, drawn"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        sides.check_fraction(self.held_out_texts)
        check_range("sizes", self.sizes, self.height)
        check_range("shapes", self.shapes, self.width // max(1, self.sizes[1]))
        if self.shapes[0] < 1 or self.sizes[0] < 4:
            raise UserError(
                f"shapes are from {self.shapes[0]} and sizes from {self.sizes[0]}: at least 1 and 4 pixels"
            )

    def keys(self) -> list[str]:
        """See `sides.rendered_keys`."""
        return sides.rendered_keys(self.count, self.held_out)

    def load(self, key: str) -> Item:
        """One picture; see `Source`."""
        rng = sides.item_rng(self.seed, self.name, key)
        drawn: list[tuple[str, str]] = []

        def draw() -> str:
            nonlocal drawn
            count = int(rng.integers(self.shapes[0], self.shapes[1] + 1))
            drawn = [(_chosen(tuple(_COLOURS), rng), _chosen(_SHAPES, rng)) for _ in range(count)]
            return ", ".join(" ".join(one) for one in drawn)

        answer = sides.drawn_text(draw, key, self.held_out_texts)
        return {
            "image": [self._drawn(drawn, rng)],
            "text": [Text(answer)],
            "facets": sides.facets([answer]),
        }

    def _drawn(
        self, shapes: list[tuple[str, str]], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Each shape anywhere in its share of the width."""
        picture = Image.new("RGB", (self.width, self.height), "white")
        draw = ImageDraw.Draw(picture)
        share = self.width // len(shapes)
        for place, (colour, shape) in enumerate(shapes):
            size = int(rng.integers(self.sizes[0], self.sizes[1] + 1))
            x = place * share + int(rng.integers(0, share - size + 1))
            y = int(rng.integers(0, self.height - size + 1))
            _draw_shape(draw, shape, (x, y, x + size - 1, y + size - 1), _COLOURS[colour])
        return np.asarray(picture)


def _draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], colour: str
) -> None:
    left, top, right, bottom = box
    thick = (right - left) // 4 + 1
    if shape == "square":
        draw.rectangle(box, fill=colour)
    elif shape == "cross":
        middle, centre = (left + right) // 2, (top + bottom) // 2
        half = thick // 2
        draw.rectangle((middle - half, top, middle + half, bottom), fill=colour)
        draw.rectangle((left, centre - half, right, centre + half), fill=colour)
    else:
        hole = {"disc": 0, "ring": thick}[shape]
        draw.ellipse(box, fill=None if hole else colour, outline=colour, width=hole or 1)


def _chosen(names: tuple[str, ...], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]
