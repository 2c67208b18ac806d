"""Damages clean images: the damaged one is the question of a restoration, the image its answer.

Each annotator draws its strength afresh for every image, within its range. The damaged picture comes first in a pair:
set `annotation_first=True` on the composer `pairs`.

Shape legend: K, the side of a square kernel.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float32

from data_pipelines.annotators.base import ImageAnnotator
from data_pipelines.items import Picture
from lvm_jax.errors import UserError
from lvm_jax.pictures.pixels import to_float, to_uint8

Range = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Noise(ImageAnnotator):
    """A camera's noise: variance read^2 + shot * brightness, on a signal in [0, 1].

    Attributes:
      read: range of the standard deviation in the dark.
      shot: range of the variance per unit of brightness.
    """

    read: Range = (0.02, 0.12)
    shot: Range = (0.0, 0.03)

    def __post_init__(self):
        _check_range("read", self.read, 0.0)
        _check_range("shot", self.shot, 0.0)

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        signal = to_float(image)
        variance = _drawn(self.read, rng) ** 2 + _drawn(self.shot, rng) * signal
        return to_uint8(
            signal + np.sqrt(variance) * rng.standard_normal(image.shape, dtype=np.float32)
        )


@dataclasses.dataclass(frozen=True)
class Rain(ImageAnnotator):
    """Bright streaks of one direction.

    Attributes:
      density: range of the drops per pixel.
      length: range of a streak's length, a fraction of the short side.
      slant: largest angle from the vertical, degrees.
    """

    density: Range = (0.002, 0.012)
    length: Range = (0.06, 0.2)
    slant: float = 30.0

    def __post_init__(self):
        _check_range("density", self.density, 0.0)
        _check_range("length", self.length, 0.0)

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        height, width = image.shape[:2]
        drops = (rng.random((height, width)) < _drawn(self.density, rng)).astype(np.float32)
        drops *= rng.uniform(0.5, 1.0, drops.shape).astype(np.float32)
        length = max(3.0, _drawn(self.length, rng) * min(height, width))
        angle = np.radians(rng.uniform(-self.slant, self.slant))
        streaks = cv2.filter2D(drops, -1, _line(length, np.pi / 2 + angle))
        streaks = np.clip(streaks, 0, 0.8)[..., None]
        return to_uint8(to_float(image) * (1 - streaks) + streaks * 0.95)


@dataclasses.dataclass(frozen=True)
class LowLight(ImageAnnotator):
    """A short exposure: linear light times a small factor, plus noise.

    Attributes:
      exposure: range of the factor.
      read: standard deviation of the noise, on a signal in [0, 1].
    """

    exposure: Range = (0.03, 0.25)
    read: float = 0.01

    def __post_init__(self):
        _check_range("exposure", self.exposure, 0.0)

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        # The gamma of a display undone and redone: exposure scales light, not pixel values.
        dark = to_float(image) ** 2.2 * _drawn(self.exposure, rng)
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        return to_uint8(np.clip(dark, 0, 1) ** (1 / 2.2) + self.read * noise)


@dataclasses.dataclass(frozen=True)
class Blur(ImageAnnotator):
    """Out of focus or shaken, drawn for each image.

    Attributes:
      radius: range, a fraction of the short side: the Gaussian's standard deviation, or half the shake's length.
    """

    radius: Range = (0.008, 0.03)

    def __post_init__(self):
        _check_range("radius", self.radius, 0.0)

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        radius = max(0.5, _drawn(self.radius, rng) * min(image.shape[:2]))
        shaken, angle = bool(rng.integers(2)), rng.uniform(0, np.pi)
        if not shaken:
            return cv2.GaussianBlur(image, (0, 0), radius)
        kernel = _line(2 * radius + 1, angle)
        return cv2.filter2D(image, -1, kernel / kernel.sum())


@dataclasses.dataclass(frozen=True)
class Posterise(ImageAnnotator):
    """A drawing in a few flat tones with dark outlines: style transfer, in both directions.

    Attributes:
      levels: range of the number of tones per channel.
    """

    levels: tuple[int, ...] = (3, 6)

    def __post_init__(self):
        _check_range("levels", self.levels, 2)

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        levels = int(rng.integers(self.levels[0], self.levels[1] + 1))
        smooth = cv2.medianBlur(cv2.bilateralFilter(image, 7, 60, 5), 3).astype(np.float32)
        tones = np.round(smooth / 255 * (levels - 1)) * (255 / (levels - 1))
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        # A difference of Gaussians: negative on the dark side of an edge, which is where a pen would draw.
        ink = cv2.GaussianBlur(luma, (0, 0), 1.0) - cv2.GaussianBlur(luma, (0, 0), 3.0)
        return np.where(ink[..., None] < -9, tones * 0.25, tones).round().astype(np.uint8)


def _line(length: float, angle: float) -> Float32[np.ndarray, "K K"]:
    """A line of weight 1 per pixel through the middle of a square kernel."""
    half = max(
        1, round(length / 2)
    )  # an odd side, 2 half + 1: the kernel has a middle and shifts nothing
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    end = (round(half + half * np.cos(angle)), round(half + half * np.sin(angle)))
    begin = (2 * half - end[0], 2 * half - end[1])
    cv2.line(kernel, begin, end, 1.0, 1)
    return kernel


def _drawn(ends: Range, rng: np.random.Generator) -> float:
    return rng.uniform(ends[0], ends[1])


def _check_range(name: str, ends: tuple[float, ...], least: float) -> None:
    if len(ends) != 2 or not least <= ends[0] <= ends[1]:
        raise UserError(
            f"{name} is {ends}: it must be two numbers (low, high), low at least {least}"
        )
