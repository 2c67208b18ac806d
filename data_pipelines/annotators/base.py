"""What an annotator is: it makes an annotation of each picture of an item, itself a picture."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from data_pipelines.items import Picture
from lvm_jax.errors import BadData

T = TypeVar("T")


class CannotAnnotate(BadData):
    """These pictures cannot be annotated, as one frame shows no motion; the item counts as bad."""


class Annotator(Protocol):
    """A small frozen dataclass; a recipe names it by its kind."""

    def annotate(self, images: Sequence[Picture], rng: np.random.Generator) -> list[Picture]:
        """One annotation for each image, of the image's size.

        Args:
          images: one picture, or the frames of a clip in order.
          rng: the only source of randomness.

        Raises:
          CannotAnnotate: these pictures cannot be annotated.
        """
        ...


class ImageAnnotator:
    """Base class of annotators that look at one image at a time."""

    def annotate(self, images: Sequence[Picture], rng: np.random.Generator) -> list[Picture]:
        """See `Annotator`."""
        return [self.one(image, rng) for image in images]

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """The annotation of one image."""
        raise NotImplementedError


def once_per_process(load: Callable[..., T], most: int = 8) -> Callable[..., T]:
    """Caches `load` for its last `most` arguments; a lock keeps threads from loading the same thing twice."""
    cached, lock = functools.lru_cache(maxsize=most)(load), threading.Lock()

    @functools.wraps(load)
    def locked(*args: object) -> T:
        with lock:
            return cached(*args)

    return locked
