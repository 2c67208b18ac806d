"""Folders of photographs."""

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
) -> UInt8[np.ndarray, "height width 3"]:
    """`load_image`, brought down by `shrink`, with a failure told as the `BadItem` of `key`."""
    try:
        if short_side is None:
            return load_image(path)
        return shrink(load_image(path, enough=2 * short_side), short_side)
    except BadImage as error:
        raise BadItem(key, f"{epath.Path(path).name} {error.why}") from error


def decode_image(content: bytes, key: str, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """`load_image` of a file's content, which `name` tells, with a failure told as the `BadItem` of `key`."""
    try:
        return load_image(content)
    except BadImage as error:
        raise BadItem(key, f"{name} {error.why}") from error


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Every image below `root`, also in sub-folders: `{"image": [x]}`. Keys are relative paths.

    Folders may be classes, as in `n01440764/10026.jpg`: the composer `category` reads them from the keys.

    Attributes:
      short_side: larger images are brought down to this short side, aspect ratio kept; None leaves them. Edges of one
        pixel, drawn by an annotator, survive when it is near the tokenizer's resolution.
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


def shrink(
    image: UInt8[np.ndarray, "height width 3"], short_side: int
) -> UInt8[np.ndarray, "height2 width2 3"]:
    """The image with its short side at most `short_side`, aspect ratio kept; smaller ones stay as they are."""
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
