"""What an annotator is: from the images of an item to one annotation each, as pictures."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "H W 3"]
T = TypeVar("T")


class CannotAnnotate(Exception):
    """The images allow no such annotation, such as the motion of a clip of one frame; makes a bad item."""


class Annotator(Protocol):
    """A small frozen dataclass, named by its kind in a recipe."""

    def annotate(self, images: Sequence[Image], rng: np.random.Generator) -> list[Image]:
        """One annotation an image, of the image's size.

        Args:
          images: one picture, or the frames of a clip in order.
          rng: the only source of chance.

        Raises:
          CannotAnnotate: see there.
        """
        ...


class ImageAnnotator:
    """Base of annotators that look at each image by itself."""

    def annotate(self, images: Sequence[Image], rng: np.random.Generator) -> list[Image]:
        """See `Annotator`."""
        return [self.one(image, rng) for image in images]

    def one(self, image: Image, rng: np.random.Generator) -> Image:
        """The annotation of one image."""
        raise NotImplementedError


def once_per_process(load: Callable[..., T]) -> Callable[..., T]:
    """Keeps what `load` returned for its last few arguments; threads wait for each other and do not load twice."""
    cached, lock = functools.lru_cache(maxsize=8)(load), threading.Lock()

    @functools.wraps(load)
    def locked(*args: object) -> T:
        with lock:
            return cached(*args)

    return locked
