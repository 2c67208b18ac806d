"""Folders of photographs, as they are or with annotations computed from them."""

import dataclasses
import hashlib

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.annotators import photographs
from data_pipelines.sources.base import BadItem, Item, list_keys
from lvm_jax.data.images import EXTENSIONS, BadImage, load_image
from lvm_jax.errors import UserError


def read_image(path: epath.PathLike, key: str) -> UInt8[np.ndarray, "height width 3"]:
    """`load_image`, with a failure told as the `BadItem` of `key`."""
    try:
        return load_image(path)
    except BadImage as error:
        raise BadItem(key, f"{epath.Path(path).name} {error.why}") from error


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Every image below `root`, also in sub-folders: `{"image": [x]}`. Keys are relative paths."""

    root: str
    name: str = "images"
    licence: str = "unknown"
    origin: str = ""
    category: int = 1

    def keys(self) -> list[str]:
        """Relative paths of the images; see `Source`."""
        return list_keys(self.root, EXTENSIONS, "images")

    def load(self, key: str) -> Item:
        """One image; see `Source`."""
        return {"image": [read_image(epath.Path(self.root) / key, key)]}


@dataclasses.dataclass(frozen=True)
class AnnotatedFolder:
    """Every image below `root` with annotations computed from it: `{"image": [x], "edges": [e], ...}`.

    Attributes:
      roles: of `annotators.photographs.ROLES`: edges, grey (for colorization), masked (for inpainting).
      short_side: images are brought down to this short side first, or stay as they are with None. Lines of one pixel
        survive when it is near the tokenizer's resolution.
      seed: of the holes of `masked`, which depend on it and the key alone.
    """

    root: str
    roles: tuple[str, ...] = photographs.ROLES
    short_side: int | None = None
    seed: int = 0
    name: str = "annotated_images"
    licence: str = "unknown"
    origin: str = ""
    category: int = 2

    def __post_init__(self):
        for role in self.roles:
            if role not in photographs.ROLES:
                raise UserError(
                    f"role {role!r} cannot be computed from a photograph: use {', '.join(photographs.ROLES)}"
                )

    def keys(self) -> list[str]:
        """Relative paths of the images; see `Source`."""
        return list_keys(self.root, EXTENSIONS, "images")

    def load(self, key: str) -> Item:
        """One image and its annotations, all of one size; see `Source`."""
        image = read_image(epath.Path(self.root) / key, key)
        if self.short_side is not None:
            image = shrink(image, self.short_side)
        digest = hashlib.sha256(key.encode()).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
        annotations = {role: [photographs.annotate(role, image, rng)] for role in self.roles}
        return {"image": [image], **annotations}


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
