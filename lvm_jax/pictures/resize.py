"""Pictures brought to size: squashed, cropped, stretched back. Pixels are uint8 RGB."""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lvm_jax.errors import UserError

Crop = Literal["random", "resized", "center", "squash"]
CROPS = ("random", "resized", "center", "squash")
MIN_AREA = 0.5  # the least that "resized" shows of an image
MIN_RATIO = 3 / 4  # of its box's sides, and 4 / 3 the most
MAX_ASPECT = 32  # a hair's breadth brought to `resolution` would be as large as a bomb


def resize(
    image: UInt8[np.ndarray, "h w 3"], resolution: int, mode: Crop = "squash"
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """`resize_and_crop` before its cut: (resolution, resolution) for "squash", the image itself for "resized", else
    its shorter side is `resolution`.
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
    if size == (width, height):
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def stretch(
    image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image at (height, width), the aspect ratio ignored: undoes a squash."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_and_crop(
    image: UInt8[np.ndarray, "h w 3"],
    resolution: int,
    mode: Crop,
    rng: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "r r 3"]:
    """A square of `resolution` pixels, resized by an antialiased bicubic filter.

    Args:
      image: RGB.
      resolution: side of the result.
      mode: "random" and "center" bring the shorter side to `resolution` and cut a square; "resized" cuts a box of half
        the area or more (less of an image longer than 4 to 3), its sides in a ratio of at most 4 to 3, and squashes it:
        the random resized crop; "squash" ignores the aspect ratio, as the published evaluation does.
      rng: where "random" and "resized" cut; unused otherwise.

    Raises:
      UserError: an unknown mode, or a random one without `rng`.
    """
    return cut(resize(image, resolution, mode), resolution, mode, rng)


def cut(
    image: UInt8[np.ndarray, "h w 3"], resolution: int, mode: Crop, rng: np.random.Generator | None
) -> UInt8[np.ndarray, "r r 3"]:
    """The second half of `resize_and_crop`: a square out of what `resize` gave."""
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
    """Area and logarithm of the ratio of the box are drawn evenly; a box that is too long is clipped."""
    height, width = image.shape[:2]
    area = rng.uniform(MIN_AREA, 1) * height * width
    ratio = np.exp(rng.uniform(np.log(MIN_RATIO), -np.log(MIN_RATIO)))
    box_width = min(width, max(1, round(float(np.sqrt(area * ratio)))))
    box_height = min(height, max(1, round(float(np.sqrt(area / ratio)))))
    x, y = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
    box = Image.fromarray(image[y : y + box_height, x : x + box_width])
    return np.asarray(box.resize((resolution, resolution), Image.Resampling.BICUBIC))
