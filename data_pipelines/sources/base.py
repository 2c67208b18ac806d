"""What a source of raw data is: a set of named items, each with a few values by role."""

from typing import Protocol

from etils import epath

from data_pipelines.items import Item
from lvm_jax.errors import BadData, UserError
from lvm_jax.pictures.listing import existing_folder, list_folder


class BadItem(BadData):
    """An item that cannot be read. The pipeline skips it and names it at the end, up to the recipe's limit of them."""

    def __init__(self, key: str, why: str):
        super().__init__(key, why)  # both: unpickling calls the class with these arguments
        self.key = key
        self.why = why

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


class Source(Protocol):
    """A set of items. Sources are small frozen dataclasses of paths and options, so they pickle to workers."""

    @property
    def name(self) -> str:
        """Unique in a recipe; stored in each record."""
        ...

    @property
    def category(self) -> int:
        """One of `Category`; stored in each record."""
        ...

    @property
    def licence(self) -> str:
        """Goes into the manifest."""
        ...

    @property
    def origin(self) -> str:
        """Goes into the manifest."""
        ...

    def keys(self) -> list[str]:
        """Sorted, unique, and the same on every machine that sees the same files.

        Raises:
          UserError: the folder is absent or has no items.
        """
        ...

    def load(self, key: str) -> Item:
        """The item: `{"image": [x], "depth": [d]}`, `{"frame": [x] * 48}`. All sources of this package give pictures.

        Raises:
          BadItem: it is unreadable, or its roles have different numbers of values.
        """
        ...


def list_folders(root: str, what: str) -> list[str]:
    """Sorted names of the folders in `root`; hidden ones are skipped.

    Raises:
      UserError: there is no such folder, or it holds no folders.
    """
    names = child_folders(existing_folder(root, what))
    if not names:
        raise UserError(f"{root} holds no {what}: it must have one folder per item")
    return names


def child_folders(folder: epath.Path) -> list[str]:
    """Sorted names of the folders in `folder`; hidden ones are skipped."""
    return [path.name for path in list_folder(folder) if path.is_dir()]
