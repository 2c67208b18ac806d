"""Optical flow between the frames of a clip, as pictures.

Shape legend: H, W of a frame.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32

from data_pipelines.annotators.base import CannotAnnotate
from data_pipelines.items import Picture
from lvm_jax.pictures import annotation_maps as maps

_LEAST_SIDE = 16  # of a frame: the estimator's coarsest patches need it


@dataclasses.dataclass(frozen=True)
class OpticalFlow:
    """Motion of each pixel to the next frame, see `annotation_maps.flow_to_rgb`; the last frame shows the motion to it.

    Estimated by OpenCV's dense inverse search.

    Attributes:
      largest: the motion drawn at full colour, as a fraction of the picture's width and height.
    """

    largest: float = maps.FLOW_LARGEST

    def annotate(self, images: Sequence[Picture], rng: np.random.Generator) -> list[Picture]:
        """See `Annotator`."""
        if len(images) < 2:
            raise CannotAnnotate(f"has {len(images)} frame: motion needs 2")
        if min(images[0].shape[:2]) < _LEAST_SIDE:
            raise CannotAnnotate(
                f"is {images[0].shape[:2]}: motion needs {_LEAST_SIDE} pixels a side"
            )
        flows = [optical_flow(a, b) for a, b in itertools.pairwise(images)]
        # The last frame has no successor: backward flow, negated, continues the motion.
        last = -optical_flow(images[-1], images[-2])
        return [maps.flow_to_rgb(flow, self.largest) for flow in (*flows, last)]


def optical_flow(here: Picture, there: Picture) -> Float32[np.ndarray, "H W 2"]:
    """(x, y) motion of each pixel of `here` towards `there`, as fractions of width and height."""
    # A new one per call: it keeps buffers, so threads cannot share it.
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (here, there)]
    flow = estimator.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), np.float32))
    height, width = grey[0].shape
    return (flow / np.array([width, height])).astype(np.float32)
