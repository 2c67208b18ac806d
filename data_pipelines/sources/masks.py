"""Segmentation masks stored as indexed PNGs: the value of a pixel is its id."""

import cv2
import numpy as np
from etils import epath
from jaxtyping import Int32, UInt8

from data_pipelines.sources.base import BadItem
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.decode import BadImage, load_ids


def read_mask(source: epath.PathLike | bytes, key: str) -> Int32[np.ndarray, "H W"]:
    """`load_ids`, with a failure told as the `BadItem` of `key`."""
    try:
        return load_ids(source)
    except BadImage as error:
        name = "a mask" if isinstance(source, bytes) else epath.Path(source).name
        raise BadItem(key, f"{name} {error.why}") from error


def draw_mask(ids: Int32[np.ndarray, "H W"], n_ids: int, ignore: int) -> UInt8[np.ndarray, "H W 3"]:
    """Colours of ids (`annotation_maps.ids_to_rgb`); `ignore` becomes background."""
    return maps.ids_to_rgb(np.where(ids == ignore, 0, ids), n_ids)


def shrink_ids(ids: Int32[np.ndarray, "H W"], size: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    """Nearest ids at (height, width)."""
    if ids.shape == size:
        return ids
    return cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
