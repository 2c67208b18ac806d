"""Segmentation masks stored as indexed PNGs: a pixel's value is its id.

Shape legend: H, W of a mask; H2, W2 of the shrunk one, R, R if it is a square.
"""

import cv2
import numpy as np
from etils import epath
from jaxtyping import Bool, Int32, UInt8
from PIL import Image

from data_pipelines.sources.base import BadItem
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.decode import BadImage, load_ids

_VOID = 255  # the border between objects in VOC, and "no class" in many sets after it


def read_mask(source: epath.PathLike | bytes, key: str) -> Int32[np.ndarray, "H W"]:
    """`load_ids`; a failure becomes the `BadItem` of `key`."""
    try:
        return load_ids(source)
    except BadImage as error:
        name = "a mask" if isinstance(source, bytes) else epath.Path(source).name
        raise BadItem(key, f"{name} {error.why}") from error


def draw_mask(
    ids: Int32[np.ndarray, "H W"], n_ids: int, ignore: int | None, key: str
) -> UInt8[np.ndarray, "H W 3"]:
    """The ids in colours (`annotation_maps.ids_to_rgb`).

    Args:
      ids: the mask.
      n_ids: number of colours.
      ignore: an id drawn as background; -1 for none. None: 255 is background beside other ids, as in VOC, and the one
        object, with id 1, in a mask that holds nothing else, as in DAVIS 2016.
      key: of the item.

    Raises:
      BadItem: nothing is left of the mask without `ignore`, or an id has no colour.
    """
    if ignore is None:
        objects = ids[ids != 0]
        if objects.size and (objects == _VOID).all():
            ids = (ids == _VOID).astype(np.int32)
        ignore = _VOID
    kept = np.where(ids == ignore, 0, ids)
    if ids.any() and not kept.any():
        raise BadItem(
            key, f"has a mask of only 0 and {ignore}, and {ignore} is ignored: set ignore to -1"
        )
    try:
        return maps.ids_to_rgb(kept, n_ids)
    except UserError as error:
        raise BadItem(key, f"has a mask whose {error}") from error


def shrink_ids(ids: Int32[np.ndarray, "H W"], size: tuple[int, int]) -> Int32[np.ndarray, "H2 W2"]:
    """The mask at `size` = (height, width), by the nearest pixel: ids must not be averaged."""
    if ids.shape == size:
        return ids
    return cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def squash_mask(inside: Bool[np.ndarray, "H W"], side: int) -> Bool[np.ndarray, "R R"]:
    """The mask as a square of `side`: a pixel is inside if at least half of what it covers is."""
    shares = Image.fromarray(inside.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(shares) >= 0.5
