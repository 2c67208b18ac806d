"""Objects of a COCO or LVIS json, each with the mask of its class.

Shape legend: H, W of a picture.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool

from data_pipelines.annotators.base import once_per_process
from data_pipelines.in_context.class_names import Classes, ClassNames, class_names, plain
from data_pipelines.in_context.keys import object_key, parts_of, picture_id
from data_pipelines.items import Boxes, Item, Mask, Picture, Text
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.coco_masks import mask_runs
from data_pipelines.sources.images import read_image
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import coco as coco_json
from lvm_jax.pictures.coco import Coco, Listed
from lvm_jax.pictures.listing import existing_folder
from lvm_jax.pictures.run_lengths import fill_runs

SMALL = 32 * 32  # pixels; COCO calls an object below it small, and the paper leaves it out


@dataclasses.dataclass(frozen=True)
class CocoObjects:
    """Objects with masks: `{"image", "mask", "boxes", "class", "shows"}`, and `unseen` for classes kept from training.

    The mask covers all objects of the class, crowds too; boxes are those of the objects, the item's own first. Objects
    of classes that LVIS has not annotated exhaustively in their picture are left out: their masks would be wrong.

    Attributes:
      images: folder of the photographs, below `root`.
      annotations: the json file, below `root`.
      synsets: table of LVIS, see `class_names`; "" for COCO itself.
      classes: see `class_names.Classes`.
      unseen: names of classes that training must not see; pictures that show one are held out.
      match: a regular expression for the file names to use; "" for all.
      min_area: pixels of the smallest object, in the photograph.
      pictures: name of the set of photographs. Sources that show the same ones give the same name.
    """

    root: str
    images: str = "train2017"
    annotations: str = "annotations/instances_train2017.json"
    synsets: str = ""
    classes: Classes = "known"
    unseen: tuple[str, ...] = ()
    match: str = ""
    min_area: int = SMALL
    pictures: str = "coco"
    name: str = "coco"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def keys(self) -> list[str]:
        """See `keys`; an object's number is its place among the picture's annotations.

        Raises:
          UserError: no such folder or file, an unknown class in `unseen`, or no object is left.
        """
        coco, names = read_annotations(self.root, self.annotations), self._names()
        check_unseen(names, coco, self.annotations)
        found = [
            key
            for picture, listed in coco.images.items()
            if listed.width and (not self.match or re.fullmatch(self.match, picture))
            for key in self._of_picture(picture, listed, coco, names)
        ]
        if not found:
            raise UserError(
                f"{self.annotations} holds no object with a mask of at least min_area={self.min_area} pixels of the "
                "classes that are asked for: lower it, or ask for other classes"
            )
        return sorted(found)

    def load(self, key: str) -> Item:
        """One object; see `Source`."""
        coco, names = read_annotations(self.root, self.annotations), self._names()
        picture, number = parts_of(key)
        listed = coco.images[picture]
        image = photograph(epath.Path(self.root) / self.images / picture, listed, key)
        own = listed.annotations[int(number)]
        try:
            mask, boxes = _of_class(own, listed)
        except ValueError as error:
            raise BadItem(key, f"has an annotation that cannot be read ({error})") from error
        name = class_of(own, coco, names)
        return {
            "image": [image],
            "mask": [Mask(mask)],
            "boxes": [Boxes(np.array(boxes, np.float32), (name,) * len(boxes))],
            "class": [Text(name)],
            "shows": [Text(picture_id(self.pictures, picture))],
            "unseen": [Text(name)] if names.is_unseen(name) else [],
        }

    def _names(self) -> ClassNames:
        return class_names(self.root, self.synsets, (), self.unseen, self.classes)

    def _of_picture(
        self, picture: str, listed: Listed, coco: Coco, names: ClassNames
    ) -> Iterator[str]:
        """The keys of a picture's objects."""
        classes = [class_of(annotation, coco, names) for annotation in listed.annotations]
        is_held_out = self.classes == "others" or any(map(names.is_unseen, classes))
        for number, annotation in enumerate(listed.annotations):
            if classes[number] and self._is_used(annotation, listed):
                yield object_key(picture, number, is_held_out)

    def _is_used(self, annotation: dict[str, Any], listed: Listed) -> bool:
        return bool(
            not annotation.get("iscrowd")
            and annotation.get("segmentation")
            and annotation.get("category_id") not in listed.incomplete
            and area_of(annotation) >= self.min_area
        )


def photograph(path: epath.Path, listed: Listed, key: str) -> Picture:
    """The picture of an item.

    Raises:
      BadItem: it cannot be read, or has another size than its annotations say.
    """
    image = read_image(path, key)
    if image.shape[:2] != (listed.height, listed.width):
        raise BadItem(
            key,
            f"is {image.shape[1]}x{image.shape[0]} pixels, its annotations are of {listed.width}x{listed.height}",
        )
    return image


def read_annotations(root: epath.PathLike, file: str) -> Coco:
    """A COCO json below `root`, read once in a process.

    Raises:
      UserError: no such folder or file, or it is no COCO json.
    """
    existing_folder(root, "images and annotations")
    path = epath.Path(root) / file
    if not path.is_file():
        raise UserError(f"{root} holds no {file}: give the json file below it")
    return _read(str(path), path.stat().mtime)


@once_per_process
def _read(path: str, mtime: float) -> Coco:
    del mtime  # it is there to read a changed file again
    return coco_json.read_coco(path)


def class_of(annotation: dict[str, Any], coco: Coco, names: ClassNames) -> str:
    """The name of an annotation's class, "" if the source does not give it."""
    try:
        category = coco.categories.get(coco_json.category_of(annotation))
    except ValueError:
        return ""
    return names.name(category.synset, category.name) if category else ""


def area_of(annotation: dict[str, Any]) -> float:
    """Pixels of an object as the json gives them, or of its box; 0 if it has neither, or they are no numbers."""
    area = annotation.get("area")
    try:
        if isinstance(area, int | float):
            return float(area)
        x0, y0, x1, y1 = coco_json.corners(annotation.get("bbox"))
    except (ValueError, OverflowError):  # JSON has integers of any size
        return 0.0
    return (x1 - x0) * (y1 - y0)


def check_unseen(names: ClassNames, coco: Coco, file: str) -> None:
    """Refuses classes in `unseen` that the json does not have: a misspelt one would be trained on."""
    known = set(names.of_synset.values()) or {plain(c.name) for c in coco.categories.values()}
    wrong = sorted(names.unseen - known)
    if wrong:
        raise UserError(
            f"unseen has the class {wrong[0]!r}, which {file} has not: it has {', '.join(sorted(known)[:8])}, ..."
        )


def boxes_of_class(own: dict[str, Any], listed: Listed) -> list[tuple[float, float, float, float]]:
    """The boxes of all objects of an annotation's class, its own first; crowds have none.

    Raises:
      ValueError: one of them is no box.
    """
    others = [
        a
        for a in listed.annotations
        if a is not own and a.get("category_id") == own.get("category_id") and not a.get("iscrowd")
    ]
    return [coco_json.corners(a.get("bbox")) for a in (own, *others)]


def _of_class(
    own: dict[str, Any], listed: Listed
) -> tuple[Bool[np.ndarray, "H W"], list[tuple[float, float, float, float]]]:
    size = (listed.height, listed.width)
    mask = np.zeros(size, bool)
    for annotation in listed.annotations:
        if annotation.get("category_id") == own.get("category_id") and annotation.get(
            "segmentation"
        ):
            mask |= fill_runs(mask_runs(annotation["segmentation"], size), size)
    return mask, boxes_of_class(own, listed)
