"""The masks of a COCO json: polygons and run lengths.

| the format allows | we |
|---|---|
| polygons, several for an object in parts, of three points or more | fill their union as pycocotools does |
| run lengths as a list, or as COCO's text of it | read both |
| points outside the picture | cut off at its edges; refuse an object that lies wholly outside |

pycocotools reads what it is given without a check: two points as a box, a far point as an allocation. So all numbers
are checked before.

Legend: R runs.
"""

import reprlib
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from pycocotools import mask as pycoco

from lvm_jax.pictures.coco import finite_numbers
from lvm_jax.pictures.run_lengths import read_run_lengths

_FARTHEST = (
    1_000_000  # pixels from the picture's corner; larger numbers overflow pycocotools's fixed point
)
_LONGEST = 1_000_000  # pixels of outline; pycocotools takes about 100 bytes for each


def mask_runs(segmentation: Any, size: tuple[int, int]) -> Int64[np.ndarray, " R"]:
    """The run lengths of an annotation's mask in a picture of size (height, width); see `run_lengths`.

    Raises:
      ValueError: it is no segmentation, or one of a picture of another size.
    """
    if isinstance(segmentation, dict):
        claimed = segmentation.get("size")
        if claimed != list(size):
            raise ValueError(
                f"a mask's size is {reprlib.repr(claimed)}, its image's (height, width) {size}"
            )
        return read_run_lengths(segmentation.get("counts"), size)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(
            f"segmentation is {reprlib.repr(segmentation)}: it must be polygons or run lengths"
        )
    polygons = [_polygon(numbers) for numbers in segmentation]
    points = np.concatenate([p.reshape(-1, 2) for p in polygons])
    height, width = size
    if (points.max(0) <= 0).any() or (points.min(0) >= (width, height)).any():
        raise ValueError(f"a mask lies outside its image of {width}x{height}")
    merged: Any = pycoco.merge(pycoco.frPyObjects([p.tolist() for p in polygons], height, width))
    return read_run_lengths(merged["counts"].decode("ascii"), size)


def _polygon(value: Any) -> Float64[np.ndarray, " N"]:
    numbers = finite_numbers(value, "a polygon")
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(
            f"a polygon has {len(numbers)} numbers: it must be x, y of 3 points or more"
        )
    points = numbers.reshape(-1, 2)
    outline = np.abs(points - np.roll(points, 1, axis=0)).max(1).sum()
    if np.abs(points).max() > _FARTHEST or outline > _LONGEST:
        raise ValueError(
            f"a polygon reaches {np.abs(points).max():.3g} pixels and is {outline:.3g} long: at most {_FARTHEST}"
        )
    return numbers
