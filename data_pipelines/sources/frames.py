"""Clips and turntables stored as folders of images."""

import dataclasses
from typing import Literal

from etils import epath

from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem, child_folders, list_folders
from data_pipelines.sources.images import read_image
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.pictures.listing import list_frames


@dataclasses.dataclass(frozen=True)
class FrameFolders:
    """One folder per clip; its images, sorted by name (2 before 10), are the frames.

    `root/KEY/000.png, 001.png, ...` gives `{role: [...]}`. With sub-folders, such as `root/KEY/image/000.png` and
    `root/KEY/segmentation/000.png`, the folder `image` gives `role`, the others give roles of their own names, and all
    must have as many frames.

    Attributes:
      role: "frame" for clips; "view" for turntables, whose views go once around the object.
      category: 3 for clips without annotations, 4 with them, 5 for turntables.
    """

    root: str
    role: Literal["frame", "view"] = "frame"
    name: str = "clips"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_VIDEO

    def keys(self) -> list[str]:
        """Names of the folders; see `Source`."""
        return list_folders(self.root, "clips")

    def load(self, key: str) -> PictureItem:
        """All frames of a clip; see `Source`."""
        folder = epath.Path(self.root) / key
        try:
            roles = child_folders(folder) or [""]
            files = {role: list_frames(folder / role) for role in roles}
        except OSError as error:
            raise BadItem(key, f"cannot be listed ({error})") from error
        if {"image", self.role} <= files.keys():
            raise BadItem(
                key, f"has the folders image and {self.role}, which are one role: remove one"
            )
        counts = {role or self.role: len(found) for role, found in files.items()}
        if 0 in counts.values() or len(set(counts.values())) > 1:
            told = ", ".join(f"{count} of {role}" for role, count in counts.items())
            raise BadItem(key, f"needs equally many images of each role, has {told}")
        return {
            self.role if role in ("", "image") else role: [read_image(f, key) for f in found]
            for role, found in files.items()
        }
