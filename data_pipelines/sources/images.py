"""Folders of photographs.

Shape legend: H, W of an image; H2, W2 of the shrunk one.
"""

import dataclasses

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import EXTENSIONS, BadImage, load_image
from lvm_jax.pictures.listing import list_files


def read_image(
    path: epath.PathLike, key: str, short_side: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """`load_image`, then `shrink`; a failure becomes the `BadItem` of `key`."""
    try:
        if short_side is None:
            return load_image(path)
        # Twice the size is enough for a clean resize, and a JPEG decodes faster at a fraction of its size.
        return shrink(load_image(path, enough=2 * short_side), short_side)
    except BadImage as error:
        raise BadItem(key, f"{epath.Path(path).name} {error.why}") from error


def decode_image(content: bytes, key: str, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """`load_image` of a file's content; a failure becomes the `BadItem` of `key` and mentions `name`."""
    try:
        return load_image(content)
    except BadImage as error:
        raise BadItem(key, f"{name} {error.why}") from error


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Every image below `root`, also in sub-folders: `{"image": [x]}`. Keys are relative paths.

    Folders may stand for classes, as in `n01440764/10026.jpg`: the composer `category` reads them from the keys.

    Attributes:
      short_side: larger images are shrunk to this short side, aspect ratio kept; None keeps their size. Near the
        tokenizer's resolution, edges of one pixel that an annotator draws survive.
    """

    root: str
    short_side: int | None = None
    name: str = "images"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.UNLABELLED_IMAGE

    def __post_init__(self):
        check_short_side(self.short_side)

    def keys(self) -> list[str]:
        """Relative paths of the images; see `Source`."""
        return list_files(self.root, EXTENSIONS, "images")

    def load(self, key: str) -> PictureItem:
        """One image; see `Source`."""
        return {"image": [read_image(epath.Path(self.root) / key, key, self.short_side)]}


def check_short_side(short_side: int | None) -> None:
    """Refuses a side below 1."""
    if short_side is not None and short_side < 1:
        raise UserError(f"short_side is {short_side}: it must be at least 1")


def shrink(image: UInt8[np.ndarray, "H W 3"], short_side: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """The image with a short side of at most `short_side`, aspect ratio kept; smaller ones stay as they are."""
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
