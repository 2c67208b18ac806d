"""What a COCO json says of its images."""

import dataclasses
import json
from typing import Any

from etils import epath

from lvm_jax.errors import UserError

FIELDS = ("category_id", "iscrowd", "bbox", "keypoints", "segmentation")


@dataclasses.dataclass(frozen=True)
class Listed:
    """What the json says of an image; width 0 where it does not list the image of an annotation.

    Attributes:
      width, height: in pixels.
      annotations: of each object, those of `FIELDS` that are there.
    """

    width: int
    height: int
    annotations: list[dict[str, Any]]


def read_coco(path: epath.PathLike) -> tuple[dict[str, Listed], dict[int, str]]:
    """Images by their file names, and the names of the categories.

    An annotation of an image that is not listed stands under `image_id N`.

    Raises:
      UserError: another kind of file, or one that lists a file name twice.
    """
    try:
        content = json.loads(epath.Path(path).read_text())
        named = {
            image["id"]: (image["file_name"], Listed(image["width"], image["height"], []))
            for image in content["images"]
        }
        listed = dict(named.values())
        for a in content["annotations"]:
            kept = {field: a[field] for field in FIELDS if a.get(field) is not None}
            if not any(kept.get("keypoints", [1])):
                del kept["keypoints"]  # an object of which no joint was marked
            unknown = f"image_id {a['image_id']}"
            where = named.get(a["image_id"])
            image = where[1] if where else listed.setdefault(unknown, Listed(0, 0, []))
            image.annotations.append(kept)
        categories = {c["id"]: c["name"] for c in content.get("categories", [])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no COCO json ({type(error).__name__}: {error}): it needs images and annotations"
        ) from error
    if len(listed) < len(named):
        raise UserError(f"{path} lists a file name twice: each image needs a name of its own")
    return listed, categories
