"""Images or clips with annotations in separate folders."""

import dataclasses

from etils import epath

from data_pipelines.items import Picture, PictureItem
from data_pipelines.sources import templates
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.images import check_short_side, read_image, shrink
from data_pipelines.sources.masks import draw_mask, read_mask, shrink_ids
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.listing import by_numbers


@dataclasses.dataclass(frozen=True)
class PairedFiles:
    """One file per role and key, found by templates: `{"image": [x], "segmentation": [m]}`.

        VOC         roles=(("image", "JPEGImages/{key}.jpg"), ("segmentation", "SegmentationClass/{key}.png"))
        ADE         roles=(("image", "images/training/{key}.jpg"), ("segmentation", "annotations/training/{key}.png"))
        Cityscapes  ... "leftImg8bit/train/{key}_leftImg8bit.png", "gtFine/train/{key}_gtFine_labelIds.png"
        rain        roles=(("image", "clean/{key}.png"), ("rain", "rainy/{key}.png"))

    The first role is the image, the others are its annotations. Only annotated images are items; an annotation without
    its image is a bad item.

    Attributes:
      roles: (role, template) pairs.
      masks: roles that hold indexed masks, drawn in colours (`annotation_maps`; `rgb_to_ids` inverts it). A mask of
        another size than its image is a bad item.
      n_ids: number of distinct mask colours; a mask with an id from there on is a bad item.
      ignore: an id drawn as background; -1 for none. By default that is 255, VOC's border of nothing, except in a mask
        that holds only 0 and 255: there 255 is the object, and gets the colour of id 1. A mask that has only the
        `ignore` that you set is a bad item.
      short_side: larger images and their masks are shrunk to this; None keeps their size.
    """

    root: str
    roles: templates.Roles = (
        ("image", "images/{key}.png"),
        ("annotation", "annotations/{key}.png"),
    )
    masks: tuple[str, ...] = ()
    n_ids: int = maps.MAX_IDS
    ignore: int | None = None
    short_side: int | None = None
    name: str = "paired_files"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self):
        templates.check_roles(self.roles, ("key",))
        _check_masks(self.roles, self.masks, self.n_ids)
        check_short_side(self.short_side)

    def keys(self) -> list[str]:
        """What `{key}` stands for in the annotations' file names; see `Source`."""
        listed = self.roles[1:] or self.roles
        return sorted({key for _, path in listed for key in templates.list_keys(self.root, path)})

    def load(self, key: str) -> PictureItem:
        """One file of each role; see `Source`."""
        files = {
            role: epath.Path(self.root) / path.replace("{key}", key) for role, path in self.roles
        }
        return {role: [image] for role, image in _read(self, files, key).items()}


@dataclasses.dataclass(frozen=True)
class PairedClips:
    """One folder of frames per role and clip, found by templates: `{"frame": [...], "segmentation": [...]}`.

        DAVIS  roles=(("frame", "JPEGImages/480p/{key}/{frame}.jpg"),
                      ("segmentation", "Annotations/480p/{key}/{frame}.png")), masks=("segmentation",)

    The first role is the frames. A clip keeps the frames that all roles have, in the order of their numbers: every
    fifth one if every fifth is annotated. A clip without such frames is a bad item.

    Attributes:
      roles, masks, n_ids, ignore, short_side: as in `PairedFiles`.
    """

    root: str
    roles: templates.Roles = (
        ("frame", "images/{key}/{frame}.png"),
        ("annotation", "annotations/{key}/{frame}.png"),
    )
    masks: tuple[str, ...] = ()
    n_ids: int = maps.MAX_IDS
    ignore: int | None = None
    short_side: int | None = None
    name: str = "paired_clips"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_VIDEO

    def __post_init__(self):
        templates.check_roles(self.roles, ("key", "frame"))
        _check_masks(self.roles, self.masks, self.n_ids)
        check_short_side(self.short_side)

    def keys(self) -> list[str]:
        """Names of the annotations' folders; see `Source`."""
        listed = self.roles[1:] or self.roles
        return sorted({key for _, path in listed for key in templates.list_clips(self.root, path)})

    def load(self, key: str) -> PictureItem:
        """All frames of a clip that every role has; see `Source`."""
        frames = {role: templates.list_frames(self.root, path, key) for role, path in self.roles}
        shared = set.intersection(*(set(of_role) for of_role in frames.values()))
        if not shared:
            told = ", ".join(f"{len(of_role)} of {role}" for role, of_role in frames.items())
            raise BadItem(key, f"has no frame with every role, but {told}")
        item: PictureItem = {role: [] for role in frames}
        for frame in sorted(shared, key=by_numbers):
            files = {role: of_role[frame] for role, of_role in frames.items()}
            for role, image in _read(self, files, key).items():
                item[role].append(image)
        return item


def _read(
    source: PairedFiles | PairedClips, files: dict[str, epath.Path], key: str
) -> dict[str, Picture]:
    """The pictures of one image and its annotations, with masks shrunk like the image."""
    absent = [role for role, path in files.items() if not path.is_file()]
    if absent:
        raise BadItem(key, f"has no {absent[0]}: {files[absent[0]].name} does not exist")
    first = next(iter(files))
    image = read_image(files[first], key)
    small = image if source.short_side is None else shrink(image, source.short_side)
    pictures = {first: small}
    for role, path in files.items():
        if role in source.masks:
            ids = read_mask(path, key)
            if ids.shape != image.shape[:2]:
                sizes = f"{ids.shape[1]}x{ids.shape[0]}", f"{image.shape[1]}x{image.shape[0]}"
                raise BadItem(key, f"{path.name} is {sizes[0]} pixels, its image {sizes[1]}")
            # As ids, before they become colours: interpolated colours belong to no id.
            ids = shrink_ids(ids, small.shape[:2])
            pictures[role] = draw_mask(ids, source.n_ids, source.ignore, key)
        elif role != first:
            picture = read_image(path, key)
            pictures[role] = (
                picture if source.short_side is None else shrink(picture, source.short_side)
            )
    return pictures


def _check_masks(roles: templates.Roles, masks: tuple[str, ...], n_ids: int) -> None:
    known = [role for role, _ in roles[1:]]
    for role in masks:
        if role not in known:
            raise UserError(
                f"masks names {role!r}: the annotations are {', '.join(known) or 'none'}"
            )
    maps.palette(n_ids)  # raises if there is no such palette
