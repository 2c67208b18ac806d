"""Captions of COCO's photographs, each about a class that it names and that is annotated."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from data_pipelines.in_context.class_names import ClassNames, class_names, plain
from data_pipelines.in_context.coco_objects import (
    SMALL,
    area_of,
    boxes_of_class,
    check_unseen,
    class_of,
    photograph,
    read_annotations,
)
from data_pipelines.in_context.keys import object_key, parts_of, picture_id
from data_pipelines.items import Boxes, Item, Text
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.coco import Coco, Listed


@dataclasses.dataclass(frozen=True)
class CocoCaptions:
    """Whole photographs: `{"image", "caption", "boxes", "class", "shows"}`, and `unseen`.

    A caption is about the largest object whose class it names, in singular or with an s; captions that name none are
    left out. Boxes are those of all objects of the class.

    Attributes:
      captions: the json of the captions, below `root`.
      images, annotations, unseen, match, min_area, pictures: see `CocoObjects`; `min_area` of the largest object.
    """

    root: str
    images: str = "train2017"
    annotations: str = "annotations/instances_train2017.json"
    captions: str = "annotations/captions_train2017.json"
    unseen: tuple[str, ...] = ()
    match: str = ""
    min_area: int = SMALL
    pictures: str = "coco"
    name: str = "coco_captions"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def keys(self) -> list[str]:
        """See `keys`; an object's number is `OBJECT-CAPTION`, places among the picture's annotations and captions.

        Raises:
          UserError: no such folder or file, an unknown class in `unseen`, or no caption is left.
        """
        coco = read_annotations(self.root, self.annotations)
        check_unseen(self._names(), coco, self.annotations)
        captions = read_annotations(self.root, self.captions)
        found = [
            key
            for picture, listed in coco.images.items()
            if listed.width
            and picture in captions.images
            and (not self.match or re.fullmatch(self.match, picture))
            for key in self._of_picture(picture, listed, coco, captions.images[picture])
        ]
        if not found:
            raise UserError(
                f"{self.captions} holds no caption that names a class of {self.annotations} with an object of "
                f"min_area={self.min_area} pixels: give the two files of one split"
            )
        return sorted(found)

    def _of_picture(self, picture: str, listed: Listed, coco: Coco, told: Listed) -> Iterator[str]:
        names = self._names()
        classes = [class_of(annotation, coco, names) for annotation in listed.annotations]
        is_held_out = any(map(names.is_unseen, classes))
        large_first = sorted(
            (n for n, a in enumerate(listed.annotations) if self._is_used(a, classes[n])),
            key=lambda n: (-area_of(listed.annotations[n]), n),
        )
        for number, annotation in enumerate(told.annotations):
            words = _words(annotation)
            about = next((n for n in large_first if _names_class(words, classes[n])), None)
            if about is not None:
                yield object_key(picture, f"{about}-{number}", is_held_out)

    def load(self, key: str) -> Item:
        """One caption; see `Source`."""
        coco, names = read_annotations(self.root, self.annotations), self._names()
        captions = read_annotations(self.root, self.captions)
        picture, numbers = parts_of(key)
        about, number = map(int, numbers.split("-"))
        listed = coco.images[picture]
        image = photograph(epath.Path(self.root) / self.images / picture, listed, key)
        own = listed.annotations[about]
        try:
            boxes = boxes_of_class(own, listed)
        except ValueError as error:
            raise BadItem(key, f"has an annotation that cannot be read ({error})") from error
        name = class_of(own, coco, names)
        return {
            "image": [image],
            "caption": [Text(_words(captions.images[picture].annotations[number]))],
            "boxes": [Boxes(np.array(boxes, np.float32), (name,) * len(boxes))],
            "class": [Text(name)],
            "shows": [Text(picture_id(self.pictures, picture))],
            "unseen": [Text(name)] if names.is_unseen(name) else [],
        }

    def _names(self) -> ClassNames:
        return class_names(self.root, "", (), self.unseen, "known")

    def _is_used(self, annotation: dict[str, Any], name: str) -> bool:
        return bool(name and not annotation.get("iscrowd") and area_of(annotation) >= self.min_area)


def _words(annotation: dict[str, Any]) -> str:
    """A caption on one line."""
    return " ".join(str(annotation.get("caption", "")).split())


def _names_class(words: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(plain(name))}s?\b", words, re.IGNORECASE) is not None
