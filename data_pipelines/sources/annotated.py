"""Images stored with their annotations as pictures."""

import dataclasses

from etils import epath

from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem, list_folders
from data_pipelines.sources.images import read_image
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.pictures.decode import EXTENSIONS
from lvm_jax.pictures.listing import list_folder


@dataclasses.dataclass(frozen=True)
class AnnotatedImages:
    """One folder per item: `root/KEY/{image,segmentation,depth,...}.png`; the files' names are the roles.

    Attributes:
      roles: which to load, by default all; an item without one of them is bad.
    """

    root: str
    roles: tuple[str, ...] = ()
    name: str = "annotated_images"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def keys(self) -> list[str]:
        """Names of the folders; see `Source`."""
        return list_folders(self.root, "annotated images")

    def load(self, key: str) -> PictureItem:
        """The image and its annotations; see `Source`."""
        try:
            paths = [
                path
                for path in list_folder(epath.Path(self.root) / key)
                if path.name.lower().endswith(EXTENSIONS)
            ]
        except OSError as error:
            raise BadItem(key, f"cannot be listed ({error})") from error
        files = {path.stem: path for path in paths}
        wanted = self.roles or tuple(files)
        for path in paths:
            if path.stem in wanted and path != files[path.stem]:
                raise BadItem(key, f"has both {path.name} and {files[path.stem].name}: remove one")
        missing = [role for role in ("image", *wanted) if role not in files]
        if missing:
            raise BadItem(key, f"has no {missing[0]}.png (nor .jpg, .webp)")
        return {role: [read_image(files[role], key)] for role in wanted}
