"""Photographs that made pictures stand on: listed and decoded once, as each is used many times."""

import functools

from etils import epath

from data_pipelines.annotators.base import once_per_process
from data_pipelines.items import Picture
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.images import shrink
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import EXTENSIONS, BadImage, load_image
from lvm_jax.pictures.listing import list_files


@once_per_process
def list_backgrounds(folder: str) -> list[str]:
    """The photographs below a folder, as relative paths.

    Raises:
      UserError: no folder is named, it is absent, or it holds none.
    """
    if not folder:
        raise UserError("backgrounds is empty: give a folder of photographs to paste on")
    return list_files(folder, EXTENSIONS, "photographs")


def background(folder: str, name: str, short_side: int, key: str) -> Picture:
    """A photograph with a short side of at most `short_side`; read-only, as it is kept.

    Raises:
      BadItem: of `key`, if the photograph cannot be read.
    """
    try:
        return _background(str(epath.Path(folder) / name), short_side)
    except BadImage as error:
        raise BadItem(key, f"{name} {error.why}") from error


@functools.lru_cache(maxsize=256)
def _background(path: str, short_side: int) -> Picture:
    return shrink(load_image(path, enough=2 * short_side), short_side)
