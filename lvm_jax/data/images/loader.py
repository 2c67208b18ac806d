"""Raw image files to tokenizer batches `{"images": uint8 (B, R, R, 3)}`, RGB.

Shape legend: B images of this process, R the resolution; H, W a source image.
"""

import os
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8

from lvm_jax.data.step_loader import HostBatch, StepLoader, shuffled_index
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage, load_image
from lvm_jax.pictures.listing import find_images
from lvm_jax.pictures.resize import CROPS, MAX_ASPECT, Crop, cut, resize


class FileImages:
    """Image files as a source (see `lvm_jax.data.images.sources`); an image's name is its path."""

    def __init__(self, files: Sequence[epath.PathLike]):
        self.names = [str(file) for file in files]

    def load(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Decodes file `index`."""
        return load_image(self.names[index], fit=True)  # it is resized anyway


class Images(Protocol):
    """What the loader reads: numbered images with names; `lvm_jax.data.images.sources` opens every format."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each image, stable and unique."""
        ...

    def load(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Decodes image `index`; raises `BadImage` if it cannot."""
        ...


def as_source(images: "epath.PathLike | Sequence[epath.PathLike] | Images") -> Images:
    """Makes a source of a folder or a list of files; returns a source unchanged."""
    if isinstance(images, str | os.PathLike):
        return FileImages(find_images(images))
    return FileImages(images) if isinstance(images, Sequence) else images


class ImageLoader(StepLoader):
    """Endless batches of images; the batch of step s is a pure function of the files, the arguments and s.

    A file that cannot be decoded is counted and logged, and the next file in name order takes its place: the result is
    the same on every run and for any number of processes.

    Attributes:
      files: all names, in the order that the seed permutes.
    """

    def __init__(
        self,
        images: epath.PathLike | Sequence[epath.PathLike] | Images,
        resolution: int,
        global_batch: int,
        seed: int,
        crop: Crop = "random",
        flip: bool = True,
        process_index: int = 0,
        process_count: int = 1,
        *,
        max_bad: int = 100,
        cache_bytes: int = 1 << 29,
        threads: int = 1,
        prefetch: int = 2,
    ):
        """Lists the files; reads none.

        Args:
          images: a folder (`find_images`), files, or a source.
          resolution: side of the square in pixels.
          global_batch: images a step, over all processes.
          seed: of the order, the cuts and the flips.
          crop: see `resize_and_crop`.
          flip: mirrors half of the images, drawn from the seed.
          process_index: which slice of the global batch this process reads.
          process_count: number of slices.
          max_bad: how many undecodable files each process may skip.
          cache_bytes: up to so many bytes of resized images stay in memory and are decoded only once.
          threads: threads that read ahead; 0 reads on demand.
          prefetch: batches to read ahead, at least one a thread.

        Raises:
          UserError: no image, an unknown crop, or a batch that does not divide.
        """
        self._source = as_source(images)
        self.files = self._source.names
        if not self.files:
            raise UserError("the list of images is empty: name some")
        if crop not in CROPS:
            raise UserError(f"crop is {crop!r}: it must be one of {', '.join(CROPS)}")
        if resolution < 1:
            raise UserError(f"resolution is {resolution}: it must be at least 1")
        self._resolution = resolution
        self._crop: Crop = crop
        self._flip = flip
        self._max_bad = max_bad
        self._cache: dict[int, np.ndarray] = {}
        self._cache_room = cache_bytes
        self._bad: set[int] = set()
        self._lock = threading.Lock()
        super().__init__(
            seed=seed,
            global_batch=global_batch,
            process_index=process_index,
            process_count=process_count,
            threads=threads,
            prefetch=prefetch,
        )

    @property
    def bad(self) -> int:
        """How many different undecodable files this process has met so far."""
        return len(self._bad)

    def batch_at(self, step: int) -> HostBatch:
        """This process's images of `step`."""
        return {"images": np.stack([self._image(i) for i in self.indices_at(step)])}

    def _image(self, index: int) -> np.ndarray:
        """Element `index` of the global order."""
        resized = self._resized(shuffled_index(index, len(self.files), self.seed))
        # Keyed by the place in the global order: a file is cut anew in every pass, and alike on any number of hosts.
        rng = np.random.default_rng((self.seed, index))
        image = cut(resized, self._resolution, self._crop, rng)
        return image[:, ::-1] if self._flip and rng.random() < 0.5 else image

    def _resized(self, first: int) -> np.ndarray:
        """File `first`, or the next one that decodes, before the cut."""
        # The neighbour in name order, not the next of the shuffled order: it depends on nothing but the files.
        for turn in range(len(self.files)):
            file = (first + turn) % len(self.files)
            if file in self._cache:
                return self._cache[file]
            if file in self._bad:
                continue
            try:
                resized = self._decode(file)
            except BadImage as error:
                self._count_bad(file, error)
                continue
            # Two threads may have decoded the same file: only one may spend the room. Nothing is ever evicted.
            with self._lock:
                if file not in self._cache and resized.nbytes <= self._cache_room:
                    self._cache[file] = resized
                    self._cache_room -= resized.nbytes
            return resized
        raise UserError(
            f"none of the {len(self.files)} images can be decoded, the last is {self.files[first - 1]}"
        )

    def _decode(self, file: int) -> np.ndarray:
        image = self._source.load(file)
        height, width = image.shape[:2]
        # Crops scale by the short side, so a very long image would grow huge; a squash cannot.
        if self._crop != "squash" and max(height, width) > MAX_ASPECT * min(height, width):
            raise BadImage(self.files[file], f"{width}x{height} is longer than {MAX_ASPECT} to 1")
        return resize(image, self._resolution, self._crop)

    def _count_bad(self, file: int, error: BadImage) -> None:
        with self._lock:
            if file in self._bad:  # another thread met it first
                return
            if len(self._bad) == self._max_bad:
                raise UserError(
                    f"more undecodable images than the limit of {self._max_bad}; the last: {error}"
                )
            self._bad.add(file)
            count = len(self._bad)
        logging.warning("skipped an image (%d of at most %d): %s", count, self._max_bad, error)
