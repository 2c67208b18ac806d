"""What a source of raw data is: named items, each a few images by role."""

from typing import Protocol

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import existing_folder

Image = UInt8[np.ndarray, "height width 3"]
Item = dict[str, list[Image]]


class BadItem(Exception):
    """An item that cannot be read; the pipeline counts it, names it, and skips it up to its limit."""

    def __init__(self, key: str, why: str):
        super().__init__(key, why)  # both, so that it survives pickling
        self.key = key
        self.why = why

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


class Source(Protocol):
    """A set of items. Implementations are small frozen dataclasses of paths and options: they pickle to workers."""

    @property
    def name(self) -> str:
        """Unique in a recipe; written into each record."""
        ...

    @property
    def category(self) -> int:
        """1 unlabelled image, 2 annotated image, 3 unlabelled video, 4 annotated video, 5 3D object."""
        ...

    @property
    def licence(self) -> str:
        """Written into the manifest."""
        ...

    @property
    def origin(self) -> str:
        """Written into the manifest."""
        ...

    def keys(self) -> list[str]:
        """Sorted, unique, and the same on every machine that sees the same files.

        Raises:
          UserError: the folder is absent or has no items.
        """
        ...

    def load(self, key: str) -> Item:
        """Role -> images, RGB, of any size: `{"image": [x], "depth": [d]}`, `{"frame": [x] * 48}`.

        Raises:
          BadItem: unreadable, or its roles do not agree in number.
        """
        ...


def list_folders(root: str, what: str) -> list[str]:
    """Names of the folders in `root`, hidden ones left out.

    Raises:
      UserError: no such folder, or no folder in it.
    """
    names = child_folders(existing_folder(root, what))
    if not names:
        raise UserError(f"{root} holds no {what}: it must have one folder an item")
    return names


def child_folders(folder: epath.Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())
