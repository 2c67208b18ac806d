"""Annotations that need nothing but the photograph: edges, grey levels, holes."""

import dataclasses

import cv2
import numpy as np

from data_pipelines.annotators.base import ImageAnnotator
from data_pipelines.items import Picture
from lvm_jax.pictures import annotation_maps as maps


@dataclasses.dataclass(frozen=True)
class Grey(ImageAnnotator):
    """Luma, the question of colorization; see `annotation_maps.grey`."""

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        return maps.grey(image)


@dataclasses.dataclass(frozen=True)
class Canny(ImageAnnotator):
    """Canny edges, white on black; the thresholds adapt to the picture's gradients."""

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        luma = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
        gradient = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
        # The strongest 12% of gradients start edges; the floor keeps flat pictures from showing their noise.
        high = max(60.0, float(np.percentile(gradient, 88)))
        lines = cv2.Canny(luma, 0.4 * high, high, L2gradient=True)
        return np.repeat(lines[..., None], 3, axis=-1)


@dataclasses.dataclass(frozen=True)
class Holes(ImageAnnotator):
    """One to three black boxes with sides 15 to 45 % of the picture's: the question of inpainting."""

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """See `ImageAnnotator`."""
        result = image.copy()
        height, width = image.shape[:2]
        for _ in range(rng.integers(1, 4)):
            box_height, box_width = (np.array([height, width]) * rng.uniform(0.15, 0.45, 2)).astype(
                int
            )
            y, x = (
                rng.integers(0, height - box_height + 1),
                rng.integers(0, width - box_width + 1),
            )
            result[y : y + box_height, x : x + box_width] = 0
        return result
