"""Raw image files to tokenizer batches `{"images": uint8 (rows of this process, H, W, 3)}`, RGB."""

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
    """Image files as a source (see `lvm_jax.data.images.sources`); a name is the path."""

    def __init__(self, files: Sequence[epath.PathLike]):
        self.names = [str(file) for file in files]

    def load(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decodes file `index`."""
        return load_image(self.names[index])


class Images(Protocol):
    """What the loader reads: images by number, each with a name; `lvm_jax.data.images.sources` opens all kinds."""

    @property
    def names(self) -> Sequence[str]:
        """Stable and unique, by number."""
        ...

    def load(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image `index`, or `BadImage`."""
        ...


def as_source(images: "epath.PathLike | Sequence[epath.PathLike] | Images") -> Images:
    """A folder or a list of files as a source; a source as it is."""
    if isinstance(images, str | os.PathLike):
        return FileImages(find_images(images))
    return FileImages(images) if isinstance(images, Sequence) else images


class ImageLoader(StepLoader):
    """Endless batches of images; the batch of step s is a pure function of the files, the arguments and s.

    A file that cannot be decoded is counted and named in a warning, and the next one in name order takes its turn: the
    result is the same on every run and for any number of processes.

    Attributes:
      files: names of all of them, in the order that the seed permutes.
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
          resolution: side of the square.
          global_batch: images a step, of all processes together.
          seed: of the order, the cuts and the flips.
          crop: see `resize_and_crop`.
          flip: mirrors every other image, drawn from the seed.
          process_index: which slice of the global batch this process reads.
          process_count: number of slices.
          max_bad: undecodable files that may be passed over, each process for itself.
          cache_bytes: resized images up to this size stay in memory and are decoded once.
          threads: that read ahead; 0 reads when asked.
          prefetch: batches to read ahead, one a thread at least.

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
        """Distinct undecodable files that this process has met so far."""
        return len(self._bad)

    def batch_at(self, step: int) -> HostBatch:
        """This process's images of `step`."""
        return {"images": np.stack([self._image(i) for i in self.indices_at(step)])}

    def _image(self, index: int) -> np.ndarray:
        """Element `index` of the global order."""
        resized = self._resized(shuffled_index(index, len(self.files), self.seed))
        rng = np.random.default_rng((self.seed, index))
        image = cut(resized, self._resolution, self._crop, rng)
        return image[:, ::-1] if self._flip and rng.random() < 0.5 else image

    def _resized(self, first: int) -> np.ndarray:
        """File `first`, or the next one that can be decoded, before the cut."""
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
        if self._crop != "squash" and max(height, width) > MAX_ASPECT * min(height, width):
            raise BadImage(self.files[file], f"{width}x{height} is longer than {MAX_ASPECT} to 1")
        return resize(image, self._resolution, self._crop)

    def _count_bad(self, file: int, error: BadImage) -> None:
        with self._lock:
            if file in self._bad:
                return
            if len(self._bad) == self._max_bad:
                raise UserError(
                    f"more images that cannot be decoded than the limit of {self._max_bad}; the last: {error}"
                )
            self._bad.add(file)
            count = len(self._bad)
        logging.warning("passed over an image (%d of at most %d): %s", count, self._max_bad, error)
