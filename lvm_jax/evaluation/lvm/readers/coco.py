"""COCO: single object detection, and the joints of a single person.

K: joints.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.readers.objects import LARGEST_BOX, Boxes, Keypoints, Object
from lvm_jax.pictures.coco import (
    Category,
    Listed,
    category_of,
    corners,
    marked_keypoints,
    read_coco,
)

_LEAST_JOINTS = 4  # fewer say little about a pose


class CocoDetection(Boxes):
    """Pictures of one object, not a crowd, that covers less than half of them; `split` is, for example, val2017."""

    def __init__(self, root: epath.PathLike, split: str = "val2017") -> None:
        base = epath.Path(root)
        objects = {}
        for file, image, found, category in _single(base, "instances", split):
            box = _box(found, file)
            _, _, width, height = found["bbox"]
            if width * height < LARGEST_BOX * image.width * image.height:
                objects[file] = Object(category.name, box)
        super().__init__(objects, base)


class CocoKeypoints(Keypoints):
    """Pictures of one person with at least four marked joints; `split` is, for example, val2017."""

    def __init__(self, root: epath.PathLike, split: str = "val2017") -> None:
        base = epath.Path(root)
        objects = {}
        for file, _, found, category in _single(base, "person_keypoints", split):
            if "keypoints" not in found:
                continue  # nobody marked a joint
            try:
                points_K2 = marked_keypoints(found["keypoints"], category)
            except ValueError as error:
                raise _damaged(file, error) from error
            if np.count_nonzero(~np.isnan(points_K2[:, 0])) >= _LEAST_JOINTS:
                objects[file] = Object(category.name, _box(found, file), points_K2)
        super().__init__(objects, base)


def _single(
    base: epath.Path, listing: str, split: str
) -> Iterator[tuple[epath.Path, Listed, dict[str, Any], Category]]:
    """(file, image, annotation, category) of the pictures that have exactly one annotation, and not of a crowd."""
    path = base / "annotations" / f"{listing}_{split}.json"
    if not path.exists():
        raise UserError(f"{path} does not exist: point at the folder that holds annotations/")
    coco = read_coco(path)
    for name, image in coco.images.items():
        if len(image.annotations) != 1 or image.annotations[0].get("iscrowd"):
            continue
        file, found = base / split / name, image.annotations[0]
        if not image.width:
            raise UserError(f"{path} annotates {name}, which is not among its images: list it")
        try:
            category = coco.categories[category_of(found)]
        except ValueError as error:
            raise _damaged(file, error) from error
        except KeyError as error:
            raise UserError(
                f"{path} has no category {error}, which {name} shows: list it in categories"
            ) from error
        yield file, image, found, category


def _box(annotation: dict[str, Any], file: epath.Path) -> tuple[float, float, float, float]:
    try:
        return corners(annotation.get("bbox"))
    except ValueError as error:
        raise _damaged(file, error) from error


def _damaged(file: epath.Path, error: ValueError) -> UserError:
    return UserError(
        f"the data set is damaged: the annotation of {file}: {error}; correct the json"
    )
