"""Conversations from a JSON file in the published layout, with their images."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from data_pipelines.items import Item, Text
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.images import check_short_side, read_image
from lvm_jax.data.image_text.conversation import BadConversation, Conversation, picture_paths
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Conversations:
    """The entries of a list of {id, image, conversations}: `{"image": [x, ...], "conversation": [Text]}`.

    Keys are `NUMBER` or `NUMBER/ID`, so that ids need not be unique.

    Attributes:
      root: the folder that image paths are relative to.
      file: the JSON file; relative to `root`, or absolute.
      short_side: larger images are shrunk to this short side; None keeps their size.
    """

    root: str
    file: str = "conversations.json"
    short_side: int | None = None
    name: str = "conversations"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        check_short_side(self.short_side)

    def keys(self) -> list[str]:
        """One key an entry; see `Source`."""
        return sorted(_entries(self._path))

    def load(self, key: str) -> Item:
        """One conversation; see `Source`."""
        entry = _entries(self._path)[key]
        try:
            if not isinstance(entry, Mapping) or "conversations" not in entry:
                raise BadConversation("it has no conversations")
            conversation = Conversation.of(entry["conversations"])
            paths = picture_paths(entry)
            conversation.check_pictures(len(paths))
        except BadConversation as error:
            raise BadItem(key, str(error)) from error
        if conversation.turns[-1].answer is None:
            raise BadItem(key, "its last turn has no answer")
        images = [read_image(epath.Path(self.root) / path, key, self.short_side) for path in paths]
        return {"image": images, "conversation": [Text(conversation.to_json())]}

    @property
    def _path(self) -> str:
        return str(epath.Path(self.root) / self.file)


@functools.lru_cache(maxsize=4)
def _entries(path: str) -> dict[str, Any]:
    """Key -> entry."""
    try:
        content = json.loads(epath.Path(path).read_bytes())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: name a JSON file of conversations by root and file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, list) or not content:
        raise UserError(f"{path} holds no list of conversations: see docs/vary_data.md")
    found = {}
    for number, entry in enumerate(content):
        name = entry.get("id") if isinstance(entry, Mapping) else None
        found[f"{number:07d}" if name is None else f"{number:07d}/{name}"] = entry
    return found
