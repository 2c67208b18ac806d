"""Segmentation masks stored as indexed PNGs: a pixel's value is its id.

Shape legend: H, W of a mask; H2, W2 of the shrunk one.
"""

import cv2
import numpy as np
from etils import epath
from jaxtyping import Int32, UInt8

from data_pipelines.sources.base import BadItem
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.decode import BadImage, load_ids


def read_mask(source: epath.PathLike | bytes, key: str) -> Int32[np.ndarray, "H W"]:
    """`load_ids`; a failure becomes the `BadItem` of `key`."""
    try:
        return load_ids(source)
    except BadImage as error:
        name = "a mask" if isinstance(source, bytes) else epath.Path(source).name
        raise BadItem(key, f"{name} {error.why}") from error


def draw_mask(ids: Int32[np.ndarray, "H W"], n_ids: int, ignore: int) -> UInt8[np.ndarray, "H W 3"]:
    """The ids in colours (`annotation_maps.ids_to_rgb`); `ignore` becomes background."""
    return maps.ids_to_rgb(np.where(ids == ignore, 0, ids), n_ids)


def shrink_ids(ids: Int32[np.ndarray, "H W"], size: tuple[int, int]) -> Int32[np.ndarray, "H2 W2"]:
    """The mask at `size` = (height, width), by the nearest pixel: ids must not be averaged."""
    if ids.shape == size:
        return ids
    return cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
