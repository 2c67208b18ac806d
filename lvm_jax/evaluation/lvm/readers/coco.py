"""COCO: single object detection, and the joints of a single person.

K: joints.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.readers.objects import LARGEST_BOX, Boxes, Keypoints, Object
from lvm_jax.pictures.coco import Listed, corners, marked_keypoints, read_coco

_LEAST_JOINTS = 4  # fewer say little about a pose


class CocoDetection(Boxes):
    """Pictures of one object, not a crowd, that covers less than half of them; `split` is, for example, val2017."""

    def __init__(self, root: epath.PathLike, split: str = "val2017") -> None:
        base = epath.Path(root)
        objects = {}
        for file, image, found, label in _single(base, "instances", split):
            _, _, width, height = found["bbox"]
            if width * height < LARGEST_BOX * image.width * image.height:
                objects[file] = Object(label, corners(found["bbox"]))
        super().__init__(objects, base)


class CocoKeypoints(Keypoints):
    """Pictures of one person with at least four marked joints; `split` is, for example, val2017."""

    def __init__(self, root: epath.PathLike, split: str = "val2017") -> None:
        base = epath.Path(root)
        objects = {}
        for file, _, found, label in _single(base, "person_keypoints", split):
            points_K2 = marked_keypoints(found.get("keypoints", ()))
            if np.count_nonzero(~np.isnan(points_K2[:, 0])) >= _LEAST_JOINTS:
                objects[file] = Object(label, corners(found["bbox"]), points_K2)
        super().__init__(objects, base)


def _single(
    base: epath.Path, listing: str, split: str
) -> Iterator[tuple[epath.Path, Listed, dict[str, Any], str]]:
    """(file, image, annotation, category) of the pictures that have exactly one annotation, and not of a crowd."""
    path = base / "annotations" / f"{listing}_{split}.json"
    if not path.exists():
        raise UserError(f"{path} does not exist: point at the folder that holds annotations/")
    images, names = read_coco(path)
    for name, image in images.items():
        if len(image.annotations) == 1 and not image.annotations[0].get("iscrowd"):
            found = image.annotations[0]
            yield base / split / name, image, found, names[found["category_id"]]
