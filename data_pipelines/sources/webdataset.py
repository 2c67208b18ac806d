"""WebDataset: tar files in which neighbouring members `KEY.jpg`, `KEY.depth.png`, `KEY.cls` form one sample."""

import dataclasses
import functools
import json
from typing import Literal

from absl import logging
from etils import epath

from data_pipelines.annotators.base import once_per_process
from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.images import decode_image
from data_pipelines.sources.masks import draw_mask, read_mask
from lvm_jax.data.records.tar_members import Place, list_members, read_member
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.decode import EXTENSIONS
from lvm_jax.pictures.listing import list_files

_MOST_TARS = 1 << 16  # whose headers a process keeps


@dataclasses.dataclass(frozen=True)
class WebDataset:
    """Every sample of the tars below `root`: `KEY.jpg` gives the role `image`, `KEY.depth.png` the role `depth`.

    A process reads a tar's headers once, by seeking; samples are read in place. Keys are `shard.tar/sample`, or
    `class/shard.tar/sample` with `class_from`, for the composer `category` with `class_of="([^/]+)/.*"`.

    Attributes:
      roles: which to load, by default all; a sample without one of them is bad.
      masks: roles that hold indexed masks, drawn in colours; `n_ids` and `ignore` as in `PairedFiles`.
      class_from: the text member that names a sample's class: `KEY.cls`, `KEY.txt`, or `class_field` of `KEY.json`.
      class_field: see `class_from`.
    """

    root: str
    roles: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    n_ids: int = maps.MAX_IDS
    ignore: int | None = None
    class_from: Literal["", "cls", "txt", "json"] = ""
    class_field: str = "label"
    name: str = "webdataset"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self):
        maps.palette(self.n_ids)  # raises if there is no such palette

    def keys(self) -> list[str]:
        """The samples of all tars; see `Source`.

        Raises:
          UserError: there is no tar, one is truncated, or two members of a sample claim one role.
        """
        found = []
        for shard in list_files(self.root, (".tar",), "tars"):
            path = epath.Path(self.root) / shard
            samples = _index(str(path), path.stat().mtime)
            for name, members in samples.items():
                self._pictures(members, f"{path}: sample {name}")
            found += [
                self._class_of(path, members) + f"{shard}/{name}"
                for name, members in samples.items()
            ]
        if not found:
            raise UserError(
                f"{self.root} holds no sample: its tars have no {', '.join(EXTENSIONS)}"
            )
        return sorted(found)

    def load(self, key: str) -> PictureItem:
        """The pictures of one sample; see `Source`."""
        rest = key.partition("/")[2] if self.class_from else key
        end = rest.lower().find(".tar/") + len(".tar")
        path, sample = epath.Path(self.root) / rest[:end], rest[end + 1 :]
        try:
            return self._read(path, sample, key)
        except OSError as error:
            raise BadItem(key, f"cannot be read any more ({error})") from error

    def _read(self, path: epath.Path, sample: str, key: str) -> PictureItem:
        members = _index(str(path), path.stat().mtime).get(sample, {})
        pictures = self._pictures(members, f"{path}: sample {sample}")
        wanted = self.roles or tuple(pictures)
        absent = [role for role in wanted if role not in pictures]
        if absent or not wanted:
            raise BadItem(
                key, f"has no {absent[0] if absent else 'image'}, but {', '.join(members)}"
            )
        item: PictureItem = {}
        for role in wanted:
            content = read_member(path, members[pictures[role]])
            if role in self.masks:
                item[role] = [draw_mask(read_mask(content, key), self.n_ids, self.ignore, key)]
            else:
                item[role] = [decode_image(content, key, f"its .{pictures[role]}")]
        return item

    def _pictures(self, members: dict[str, Place], sample: str) -> dict[str, str]:
        """Role -> extension of the member that holds its picture.

        Raises:
          UserError: two members claim a role that is wanted.
        """
        pictures: dict[str, str] = {}
        for extension in sorted(filter(_is_picture, members)):
            role = _role(extension)
            if role in pictures and (not self.roles or role in self.roles):
                raise UserError(
                    f"{sample} has two members for the role {role}, .{pictures[role]} and .{extension}: rename one of "
                    "them to its own role, as in KEY.depth.png, or leave the role out of `roles`"
                )
            pictures.setdefault(role, extension)
        return pictures

    def _class_of(self, path: epath.Path, members: dict[str, Place]) -> str:
        """`class/` of a sample; empty without `class_from`."""
        if not self.class_from:
            return ""
        if self.class_from not in members:
            return "unknown/"
        text = read_member(path, members[self.class_from]).decode(errors="replace").strip()
        if self.class_from == "json":
            try:
                text = str(json.loads(text)[self.class_field])
            except (ValueError, KeyError, TypeError, RecursionError):
                return "unknown/"
        return (text.replace("/", "_") or "unknown") + "/"


# Of all tars: sentences take their samples from anywhere, and a tar that was forgotten is listed for each of them.
@functools.partial(once_per_process, most=_MOST_TARS)
def _index(path: str, mtime: float) -> dict[str, dict[str, Place]]:
    """Sample -> extension -> place of the member in the tar; `mtime` is there to reload a changed file."""
    del mtime
    samples: dict[str, dict[str, Place]] = {}
    found = list_members(path)
    for member, place in found:
        folder, _, name = member.rpartition("/")
        # WebDataset's rule: the key ends at the first dot of the file name.
        stem, _, extension = name.partition(".")
        if not extension or not stem:
            continue
        sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, {})
        if extension.lower() in sample:
            same = {name for name, _ in found if name.lower() == member.lower()}
            told = " and ".join(sorted(same)) if len(same) > 1 else f"{member} twice"
            raise UserError(f"{path} holds {told}: write it again with unique names")
        sample[extension.lower()] = place
    pictured = {n: members for n, members in samples.items() if any(map(_is_picture, members))}
    bare = [name for name in samples if name not in pictured]
    if bare:
        logging.warning(
            "%s: skipped %d samples without a picture (%s); the first: %s has %s",
            path,
            len(bare),
            ", ".join(EXTENSIONS),
            bare[0],
            ", ".join(samples[bare[0]]),
        )
    return pictured


def _is_picture(extension: str) -> bool:
    return f".{extension}".endswith(EXTENSIONS)


def _role(extension: str) -> str:
    return extension.rpartition(".")[0] or "image"
