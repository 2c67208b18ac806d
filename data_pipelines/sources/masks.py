"""Segmentation masks stored as indexed PNGs: the value of a pixel is its id."""

import io
import struct

import cv2
import numpy as np
from etils import epath
from jaxtyping import Int32, UInt8
from PIL import Image

from data_pipelines.sources.base import BadItem
from lvm_jax.data import annotation_maps as maps


def read_mask(source: epath.PathLike | bytes, key: str) -> Int32[np.ndarray, "H W"]:
    """The ids of a mask: palette indices, or grey levels of 1, 8 or 16 bits.

    Raises:
      BadItem: of `key`; unreadable, or a picture in true colours.
    """
    name = "a mask" if isinstance(source, bytes) else epath.Path(source).name
    try:
        content = source if isinstance(source, bytes) else epath.Path(source).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                raise BadItem(
                    key, f"{name} is of mode {image.mode}, no indexed mask: read it as a picture"
                )
            return np.asarray(image).astype(np.int32)
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise BadItem(key, f"{name} cannot be decoded ({error})") from error


def draw_mask(ids: Int32[np.ndarray, "H W"], n_ids: int, ignore: int) -> UInt8[np.ndarray, "H W 3"]:
    """Colours of ids (`annotation_maps.ids_to_rgb`); `ignore` becomes background."""
    return maps.ids_to_rgb(np.where(ids == ignore, 0, ids), n_ids)


def shrink_ids(ids: Int32[np.ndarray, "H W"], size: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    """Nearest ids at (height, width)."""
    if ids.shape == size:
        return ids
    return cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
