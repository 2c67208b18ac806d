"""COCO's JSON: what it says of each image, and its boxes and keypoints as numbers.

Shape legend: K keypoints of an object, 2 the (x, y) in pixels.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float64

from lvm_jax.errors import UserError

FIELDS = ("category_id", "iscrowd", "bbox", "keypoints", "segmentation")


@dataclasses.dataclass(frozen=True)
class Listed:
    """What the JSON says of an image.

    Attributes:
      width, height: in pixels; 0 if annotations refer to an image that the JSON does not list.
      annotations: for each object, the `FIELDS` that the JSON has.
    """

    width: int
    height: int
    annotations: list[dict[str, Any]]


def read_coco(path: epath.PathLike) -> tuple[dict[str, Listed], dict[int, str]]:
    """Reads the images, by file name, and the names of the categories, by id.

    Annotations of an unlisted image go under the name `image_id N`.

    Raises:
      UserError: the file is not a COCO JSON, or lists a file name twice.
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
            # COCO writes zeros for an object whose joints nobody marked: drop them, they are no annotation.
            if not any(kept.get("keypoints", [1])):
                del kept["keypoints"]
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


def corners(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) of COCO's (x, y, width, height), in pixels."""
    x, y, width, height = bbox
    return x, y, x + width, y + height


def marked_keypoints(numbers: Sequence[float]) -> Float64[np.ndarray, "K 2"]:
    """(x, y) from COCO's flat list of x, y, visibility; NaN where the visibility is 0, "not marked"."""
    x_y_v = np.array(numbers, np.float64).reshape(-1, 3)
    return np.where(x_y_v[:, 2:] > 0, x_y_v[:, :2], np.nan)
