"""What an annotator is: from each picture of an item to an annotation of it, a picture too."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from data_pipelines.items import Picture

T = TypeVar("T")


class CannotAnnotate(Exception):
    """The pictures allow no such annotation, as one frame allows no motion; the item is a bad one."""


class Annotator(Protocol):
    """A small frozen dataclass; a recipe names it by its kind."""

    def annotate(self, images: Sequence[Picture], rng: np.random.Generator) -> list[Picture]:
        """One annotation for each image, of the image's size.

        Args:
          images: one picture, or the frames of a clip in order.
          rng: the only source of chance.

        Raises:
          CannotAnnotate: see there.
        """
        ...


class ImageAnnotator:
    """Base of annotators that look at one image at a time."""

    def annotate(self, images: Sequence[Picture], rng: np.random.Generator) -> list[Picture]:
        """See `Annotator`."""
        return [self.one(image, rng) for image in images]

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """The annotation of one image."""
        raise NotImplementedError


def once_per_process(load: Callable[..., T]) -> Callable[..., T]:
    """Remembers what `load` returned for its last few arguments; threads wait for each other, so none loads twice."""
    cached, lock = functools.lru_cache(maxsize=8)(load), threading.Lock()

    @functools.wraps(load)
    def locked(*args: object) -> T:
        with lock:
            return cached(*args)

    return locked
