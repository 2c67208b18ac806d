"""Resizing pictures: squash, crop, stretch back. Pixels are uint8 RGB.

Shape legend: H, W the given picture; H2, W2 the result, or R, R if it is a square.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lvm_jax.errors import UserError

Crop = Literal["random", "resized", "center", "squash"]
CROPS = ("random", "resized", "center", "squash")
MIN_AREA = 0.5  # "resized" shows at least this fraction of an image
MIN_RATIO = 3 / 4  # of width to height of its box; the largest is 4 / 3
MAX_ASPECT = 32  # scaling the short side of a very long image to `resolution` would blow up memory


def resize(
    image: UInt8[np.ndarray, "H W 3"], resolution: int, mode: Crop = "squash"
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """The first half of `resize_and_crop`: "squash" gives (resolution, resolution), "resized" the image itself, and
    the others scale the shorter side to `resolution`.
    """
    height, width = image.shape[:2]
    if mode == "squash":
        size = (resolution, resolution)
    elif mode == "resized":
        return image
    elif mode in ("random", "center"):
        short = min(height, width)
        size = (
            max(resolution, round(width * resolution / short)),
            max(resolution, round(height * resolution / short)),
        )
    else:
        raise UserError(f"crop is {mode!r}: it must be one of {', '.join(CROPS)}")
    if size == (width, height):  # resampling would only cost time
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def stretch(
    image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Scales the image to (height, width), whatever its aspect ratio: undoes a squash."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_and_crop(
    image: UInt8[np.ndarray, "H W 3"],
    resolution: int,
    mode: Crop,
    rng: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "R R 3"]:
    """Makes a square of `resolution` pixels by an antialiased bicubic filter.

    Args:
      image: RGB.
      resolution: side of the result.
      mode: "random" and "center" scale the shorter side to `resolution` and cut a square. "resized" is the random
        resized crop: it cuts a box of at least half the area (less if the image is longer than 4 to 3) with sides in a
        ratio of at most 4 to 3, and squashes it. "squash" ignores the aspect ratio, as the published evaluation does.
      rng: chooses where "random" and "resized" cut; unused otherwise.

    Raises:
      UserError: an unknown mode, or a random one without `rng`.
    """
    return cut(resize(image, resolution, mode), resolution, mode, rng)


def cut(
    image: UInt8[np.ndarray, "H W 3"], resolution: int, mode: Crop, rng: np.random.Generator | None
) -> UInt8[np.ndarray, "R R 3"]:
    """The second half of `resize_and_crop`: cuts a square out of what `resize` gave."""
    spare_y, spare_x = image.shape[0] - resolution, image.shape[1] - resolution
    if mode in ("random", "resized"):
        if rng is None:
            raise UserError(f"crop {mode!r} needs a random generator: pass rng")
        if mode == "resized":
            return _cut_resized(image, resolution, rng)
        y, x = int(rng.integers(spare_y + 1)), int(rng.integers(spare_x + 1))
    else:
        y, x = spare_y // 2, spare_x // 2
    return image[y : y + resolution, x : x + resolution]


def _cut_resized(image: np.ndarray, resolution: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the box's area and the logarithm of its ratio uniformly; clips a box that is too long."""
    height, width = image.shape[:2]
    area = rng.uniform(MIN_AREA, 1) * height * width
    # Uniform in the logarithm: 3 to 4 is as likely as 4 to 3.
    ratio = np.exp(rng.uniform(np.log(MIN_RATIO), -np.log(MIN_RATIO)))
    box_width = min(width, max(1, round(float(np.sqrt(area * ratio)))))
    box_height = min(height, max(1, round(float(np.sqrt(area / ratio)))))
    x, y = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
    box = Image.fromarray(image[y : y + box_height, x : x + box_width])
    return np.asarray(box.resize((resolution, resolution), Image.Resampling.BICUBIC))
