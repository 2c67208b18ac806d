"""Augmentations of pages: what printing, scanning and photographing do to them.

The kinds and their probabilities are those of Vary's published training. Each is drawn by itself, so most pictures pass
unchanged. Strengths are small: every character stays readable.

Shape legend: H, W of a picture.
"""

import dataclasses
import io
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy import ndimage

from lvm_jax.errors import UserError

_PAPER = 255  # what comes into the picture from outside


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The probability of each change of a picture; the default is the published one.

    Attributes:
      morphology: ink half a pixel thicker or thinner; a whole one would erase the strokes of small type.
      shear: lines lean by up to 2 degrees.
      rotation: up to 2 degrees, up to 2% larger or smaller, moved by up to 2%.
      grid: a coarse grid of points is moved, by up to 0.6% of the side.
      elastic: a fine smooth field moves pixels, by up to 0.3% of the side.
      brightness: brightness and contrast change by up to 20%.
      jpeg: saved as JPEG with quality 95.
      noise: Gaussian, with a standard deviation of up to 10 of 255.
      blur: Gaussian, of up to 1 pixel.
    """

    morphology: float = 0.02
    shear: float = 0.03
    rotation: float = 0.03
    grid: float = 0.04
    elastic: float = 0.04
    brightness: float = 0.03
    jpeg: float = 0.07
    noise: float = 0.08
    blur: float = 0.03

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise UserError(f"augmentation.{name} is {value}: a probability is 0 to 1")


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)


def augment(
    picture: UInt8[np.ndarray, "H W 3"], augmentation: Augmentation, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture with the changes that the generator draws."""
    # In the order in which a page meets them: paper, camera, file.
    changes = (
        (augmentation.morphology, _morphology),
        (augmentation.shear, _shear),
        (augmentation.rotation, _rotation),
        (augmentation.grid, _grid),
        (augmentation.elastic, _elastic),
        (augmentation.brightness, _brightness),
        (augmentation.blur, _blur),
        (augmentation.noise, _noise),
        (augmentation.jpeg, _jpeg),
    )
    for probability, change in changes:
        if rng.random() < probability:
            picture = change(picture, rng)
    return picture


def _morphology(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    change = ndimage.minimum_filter if rng.random() < 0.5 else ndimage.maximum_filter
    return _clipped((picture.astype(np.float32) + change(picture, size=(2, 2, 1))) / 2)


def _shear(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lean = math.tan(math.radians(rng.uniform(-2, 2)))
    return _affine(picture, np.array([[1, lean], [0, 1]]), (0.0, 0.0))


def _rotation(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = math.radians(rng.uniform(-2, 2))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    height, width = picture.shape[:2]
    move = (rng.uniform(-0.02, 0.02) * width, rng.uniform(-0.02, 0.02) * height)
    return _affine(picture, turn * rng.uniform(0.98, 1.02), move)


def _affine(picture: np.ndarray, matrix_xy: np.ndarray, move: tuple[float, float]) -> np.ndarray:
    """Maps each pixel of the result to one of the picture, around the middle."""
    height, width = picture.shape[:2]
    middle = np.array([width / 2, height / 2])
    offset = middle - matrix_xy @ middle + np.array(move)
    (a, b), (d, e) = matrix_xy
    image = Image.fromarray(picture).transform(
        (width, height),
        Image.Transform.AFFINE,
        (a, b, offset[0], d, e, offset[1]),
        Image.Resampling.BILINEAR,
        fillcolor=(_PAPER,) * 3,
    )
    return np.asarray(image)


def _grid(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _warped(picture, rng, points=6, fraction=0.006)


def _elastic(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _warped(picture, rng, points=24, fraction=0.003)


def _warped(
    picture: np.ndarray, rng: np.random.Generator, points: int, fraction: float
) -> np.ndarray:
    """Moves a grid of `points` x `points` at random and all pixels smoothly with it."""
    height, width = picture.shape[:2]
    coarse = rng.uniform(-fraction, fraction, (2, points, points)).astype(np.float32)
    fields = [
        np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)) * side
        for field, side in zip(coarse, (height, width), strict=True)
    ]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    at = (rows + fields[0], columns + fields[1])
    channels = [
        ndimage.map_coordinates(picture[..., c], at, order=1, mode="constant", cval=_PAPER)
        for c in range(3)
    ]
    return np.stack(channels, axis=-1)


def _brightness(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    contrast, shift = rng.uniform(0.8, 1.2), rng.uniform(-0.2, 0.2) * 255
    return _clipped((picture.astype(np.float32) - 128) * contrast + 128 + shift)


def _jpeg(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    del rng
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95)
    return np.asarray(Image.open(file))


def _noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(picture.shape, np.float32) * rng.uniform(1, 10)
    return _clipped(picture + noise)


def _blur(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sigma = rng.uniform(0.3, 1)
    # In floats: on bytes SciPy cuts off the fractions behind each of its two passes, which darkens by a level.
    return _clipped(ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0)))


def _clipped(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
